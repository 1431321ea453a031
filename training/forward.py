"""One forward pass for policy and reference: a pack of pairs -> the summed log-probs of its completions.

Llama, Mistral, Qwen2 and Qwen3 compute each prompt once for all its completions. Any other causal language model runs
its own forward over padded sequences, a prompt each and the head on all positions: the same values at more cost.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from training import attention
from training.adapters import attach
from training.allocator import keep_freed_memory
from training.config import LoraConfig, Precision
from training.head import Scored, ScoringHead
from training.kernels import Heads
from training.layout import layout_tag, shares_prompt
from training.lean import make_lean
from training.losses import PairLogps
from training.pack import Pack
from training.rows import TokenRows
from training.status import TrainerError

__all__ = ["check_ids", "check_lengths", "layout_tag", "load_model", "pack_logps"]

log = logging.getLogger(__name__)

_LEARNED: Final = (".wpe", ".embed_positions")
"""What a table of positions is called: in GPT-2 and its like, in OPT and its like."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_model(
    folder: Path, *, precision: Precision, device: torch.device | str, lora: LoraConfig | None = None, seed: int = 0
) -> PreTrainedModel:
    """The causal language model in `folder`, without dropout, ready for `pack_logps`; in training mode.

    With `lora` it is frozen and has untrained adapters, which depend on the seed (training/adapters.py).
    Its parameters have the names they have in transformers, so state dicts fit both ways, and outside `pack_logps`
    it gives logits as any model does if `layout` is not needed, i.e. on the padded path.

    Raises TrainerError of kind `model` where the folder lacks weights that its config.json asks for.
    """
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    config.update(_without_dropout(config))
    chosen: dict[str, Any] = {"config": config, "dtype": DTYPES[precision], "local_files_only": True}
    if shares_prompt(config.model_type):
        attention.register()
        model = _whole(folder, attn_implementation=attention.NAME, **chosen)
        if lora is not None:
            attach(model, lora, seed)
        model.set_output_embeddings(ScoringHead(model.get_output_embeddings()))
        make_lean(model)
        if torch.device(device).type == "cpu":
            _add_embeddings_to_the_heads_gradient(model)
    else:
        log.warning(
            "models of type %s have no shared-prompt path: each answer has its own prompt, padded", config.model_type
        )
        model = _whole(folder, **chosen)
        if lora is not None:
            attach(model, lora, seed)
    loaded: PreTrainedModel = model.to(device).train()
    return loaded


def _whole(folder: Path, **chosen: Any) -> PreTrainedModel:
    """The model, every parameter of it from `folder`: transformers would draw one that is missing at random, and each
    rank another."""
    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **chosen)
    if missing := sorted(found["missing_keys"]):
        raise TrainerError(
            "model",
            f"the model in {folder} lacks {len(missing)} of the weights that its config.json asks for, the first of"
            f" them {missing[0]}",
        )
    loaded: PreTrainedModel = model
    return loaded


def check_ids(model: PreTrainedModel, rows: TokenRows, folder: Path) -> None:
    """Raise TrainerError of kind `data` where rows of `folder` hold ids that `model` has no embedding of: a GPU would
    only say that it is lost."""
    known, largest = model.get_input_embeddings().weight.shape[0], rows.largest_id()
    if largest >= known:
        raise TrainerError(
            "data",
            f"{folder} holds the token id {largest} and the model has embeddings of the ids below {known}: its"
            " tokenizer is another model's, or tokens were added to it alone",
        )


def check_lengths(model: PreTrainedModel, rows: TokenRows, folder: Path) -> None:
    """Raise TrainerError of kind `recipe` where rows of `folder` are longer than the model has learned positions, or
    than those within which what it says of a sequence depends on that sequence alone."""
    lengths = rows.lengths()
    longest = int((lengths.prompt + np.maximum(lengths.chosen, lengths.rejected)).max(initial=0))
    for limit, why in _limits(model):
        if longest > limit:
            raise TrainerError(
                "recipe",
                f"the longest prompt with an answer in {folder} has {longest} tokens, and {why} {limit}: lower"
                f" tokenize.max_length to {limit}",
            )


def _limits(model: PreTrainedModel) -> Iterator[tuple[int, str]]:
    config = model.config
    known = int(getattr(config, "max_position_embeddings", None) or 0)
    if known and any(name.endswith(_LEARNED) for name, _ in model.named_modules()):
        yield known, "the model has learned positions up to"
    rope = getattr(config, "rope_parameters", None) or {}
    kind = str(rope.get("rope_type"))
    # Their frequencies are chosen in each pass by the longest sequence in it, for all others too.
    within = {"dynamic": known, "longrope": int(rope.get("original_max_position_embeddings") or known)}.get(kind)
    if within:
        yield within, f"positions of rope type {kind} depend on the other sequences of a pass beyond"


def _add_embeddings_to_the_heads_gradient(model: PreTrainedModel) -> None:
    """Where both have one weight: the rows of the tokens that occurred are added to the head's gradient, instead of a
    second gradient of the whole vocabulary that is zero but for them."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embeddings, nn.Embedding) and embeddings.weight is head.weight and head.weight.requires_grad:
        embeddings.sparse = True


def _without_dropout(config: PretrainedConfig) -> dict[str, float]:
    """Noise in the policy that the reference does not have would be read as a preference."""
    return {name: 0.0 for name, value in config.to_dict().items() if "drop" in name and isinstance(value, float)}


def pack_logps(model: nn.Module, pack: Pack, *, tail_weight: float = 1.0) -> PairLogps:
    """Summed log-probs of the completions of `pack` under `model`, which may be wrapped by a DeepSpeed engine.

    Completion tokens beyond the length of the shorter side count `tail_weight` (LD-DPO; 1 for every other loss).
    Values are fp32 (fp64 for an fp64 model), (P,) each, on the model's device, and differentiable; `pack` must be on
    that device. The model is called once, so a ZeRO-3 engine gathers every parameter once a pass.
    """
    inner = model if isinstance(model, PreTrainedModel) else model.module
    assert isinstance(inner, PreTrainedModel)
    head = inner.get_output_embeddings()
    if isinstance(head, ScoringHead):
        layout = attention.Layout.of(pack, inner.dtype, Heads.of(inner.config))
        with head.scoring(Scored(pack.positions, pack.targets)):
            scored = model(
                input_ids=pack.input_ids[None], position_ids=pack.position_ids[None], use_cache=False, layout=layout
            )
        logps = scored.logits[0]
    else:
        logps = _padded_logps(model, pack)
    return _sums(logps, pack, tail_weight)


def _sums(logps_C: Tensor, pack: Pack, tail_weight: float) -> PairLogps:
    """Sums in fp64, so that they do not depend on how the tokens lie."""
    parts = torch.split(logps_C, pack.lengths())
    whole = [part.sum(dtype=torch.float64) for part in parts]

    def counted(side: int, other: int) -> Tensor:
        if tail_weight == 1.0:
            return whole[side]
        tail = parts[side][len(parts[other]) :]
        return whole[side] - (1 - tail_weight) * tail.sum(dtype=torch.float64)

    chosen = torch.stack([counted(pair.chosen, pair.rejected) for pair in pack.sides])
    rejected = torch.stack([counted(pair.rejected, pair.chosen) for pair in pack.sides])
    return PairLogps(chosen.to(logps_C.dtype), rejected.to(logps_C.dtype))


def _padded_logps(model: nn.Module, pack: Pack) -> Tensor:
    """(C,) in the pack's own order, from padded sequences: every completion behind a prompt of its own."""
    ids = pack.input_ids
    prompts = [prompt.stop - prompt.start for prompt, _ in pack.sequences()]
    sequences = [torch.cat((ids[prompt], ids[completion])) for prompt, completion in pack.sequences()]
    input_ids = pad_sequence(sequences, batch_first=True)
    # Masked by length: the id that pads may be one that occurs.
    mask = pad_sequence([torch.ones_like(sequence) for sequence in sequences], batch_first=True)
    logits_BTV = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    predicted = []
    for at, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True)):
        predicted.append(logits_BTV[at, prompt - 1 : len(sequence) - 1])
    logits_CV = torch.cat(predicted)
    wide = torch.float64 if logits_CV.dtype == torch.float64 else torch.float32
    return -F.cross_entropy(logits_CV.to(wide), pack.targets, reduction="none")
