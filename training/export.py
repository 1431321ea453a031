"""The tuned policy as a folder that transformers loads: safetensors, config, tokenizer, chat template.

The fp32 master weights are gathered one by one into a fresh copy of the start model on rank 0, which then saves
itself: so tied heads, sharding and the names in the files are those of the start model, at every ZeRO stage. Adapters
(`train.lora`) are added to its weights. Only the gathering needs the other ranks; what the disk takes its time for,
writing and reading back, rank 0 does alone. It says how far it is after every tensor and file: a slow disk is no
standstill.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from training import adapters
from training.allocator import release_freed_memory
from training.config import Precision, TrainConfig
from training.engine import Engine
from training.forward import load_model, pack_logps
from training.layout import TOLERANCE
from training.losses import PairLogps
from training.pack import make_pack
from training.rows import TokenRow
from training.status import Progress, TrainerError

if TYPE_CHECKING:
    from peft import PeftModel

_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
MAX_SHARD: Final = "5GB"

Say = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """For whoever asks for no progress."""


@dataclass(frozen=True)
class Export:
    """A trained policy on its way to the disk; rank 0 holds it."""

    model: "PreTrainedModel | PeftModel"
    start: Path
    precision: Precision
    rows: Sequence[TokenRow]
    logps: PairLogps
    """What the policy said of `rows` at the end of its training, (rows,) each."""
    tail_weight: float = 1.0
    """As in training: with LD-DPO the longer answer's surplus counts less."""

    def write(self, folder: Path, *, adapter: Path, say: Say = silent) -> None:
        """Write the policy to `folder`, an adapter alone to `adapter` as well; load the model again and compare.

        `say` hears of every file written, tensor read back and pair compared.

        Raises TrainerError of kind `disk` when the folder does not give back the same weights, of kind `export` when
        the model in it does not give `rows` the log-probs that they had in training.
        """
        model = self.model
        if not isinstance(model, PreTrainedModel):
            adapters.save(model, adapter)
            model = adapters.merge(model)
        with _following(say, "files of the model written"):
            model.save_pretrained(folder, max_shard_size=MAX_SHARD)
        _copy_companions(self.start, folder)
        with _following(say, "tensors read back"):
            read = load_model(folder, precision=self.precision, device="cpu")
        _compare_weights(model, read, folder, say)
        # Weights that were trained in fp32 and written in bf16 are rounded, whatever reads them.
        self._compare_logps(read, folder, TOLERANCE["fp32" if model.dtype == torch.float32 else "bf16"], say)

    def _compare_logps(self, read: PreTrainedModel, folder: Path, tolerance: float, say: Say) -> None:
        found = _logps(read, self.rows, self.tail_weight, say)
        for at, row in enumerate(self.rows):
            for side, tokens in (("chosen", len(row.chosen_ids)), ("rejected", len(row.rejected_ids))):
                trained, exported = (float(getattr(logps, side)[at]) for logps in (self.logps, found))
                if not math.isfinite(trained) and not math.isfinite(exported):
                    continue  # it had no log-prob in training either, whose steps with it were left out
                # Written so that a NaN is refused.
                if not abs(exported - trained) <= tolerance * tokens**0.5:
                    raise TrainerError(
                        "export",
                        f"the model in {folder} is not the one that was trained: it gives the {side} answer of pair"
                        f" {row.pair_id} a log-prob of {exported:.4f}, which was {trained:.4f} in training",
                    )


def gather(
    engine: Engine, start: Path, config: TrainConfig, rows: Sequence[TokenRow], say: Say = silent
) -> Export | None:
    """The policy, and what it says of `rows`, on rank 0; all ranks call together, the others get None.

    Its dtype is bf16 after a bf16 run, and the start model's after an fp32 run. The engine is used up: what each rank
    held of it is free afterwards, since the export has a model of its own and loads another to compare.
    """
    logps = _logps(engine, rows, config.tail_weight, say)
    engine.forget_moments()
    narrow = torch.bfloat16 if config.precision == "bf16" else None
    weights: dict[str, Tensor] = {}
    for at, name in enumerate(engine.names, 1):
        weight = engine.weight(name)
        if dist.get_rank() == 0:
            weights[name] = weight.to("cpu", narrow, copy=True)
            say(Progress(at, len(engine.names), "tensors gathered"))
    engine.close()
    release_freed_memory()  # the start model's file is mapped, and takes none of it
    if dist.get_rank() != 0:
        return None
    model: PreTrainedModel | PeftModel = _load(start, narrow or "auto")
    parameters = dict(model.named_parameters())
    if config.lora is not None:
        model = adapters.wrap(model, config.lora)
        parameters = adapters.parameters_of(model)
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)
    return Export(model, start, config.precision, rows, logps, config.tail_weight)


@torch.no_grad()
def _logps(policy: Engine | PreTrainedModel, rows: Sequence[TokenRow], tail_weight: float, say: Say) -> PairLogps:
    """Log-probs of each row in a pass of its own, on the CPU; an engine knows the weight of the tail itself."""
    sides = []
    for at in range(len(rows)):
        pack = make_pack(rows, [at])
        if isinstance(policy, Engine):
            here = policy.logps(pack.to(policy.device))
        else:
            here = pack_logps(policy, pack, tail_weight=tail_weight)
        sides.append([side.cpu() for side in here])
        say(Progress(at + 1, len(rows), "pairs scored"))
    return PairLogps(*(torch.cat([pair[side] for pair in sides]) for side in range(2)))


def _load(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return model


def _copy_companions(start: Path, folder: Path) -> None:
    """Tokenizer, chat template and what else lies beside the start model's weights."""
    for path in sorted(start.iterdir()):
        if path.is_file() and not path.name.endswith(_WEIGHTS) and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


@contextmanager
def _following(say: Say, unit: str) -> Iterator[None]:
    """Within: hear of every step that transformers would show in a progress bar, shown or not."""

    def followed(bar: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        shown = bar(*args, **kwargs)
        return _counted(shown, len(args[0]), say, unit) if args else shown

    before = transformers_logging.set_tqdm_hook(followed)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


def _counted(items: Any, total: int, say: Say, unit: str) -> Iterator[Any]:
    for done, item in enumerate(items, 1):
        yield item
        say(Progress(done, total, unit))


def _compare_weights(written: nn.Module, read: nn.Module, folder: Path, say: Say) -> None:
    found, total = dict(read.named_parameters()), len(list(written.parameters()))
    for at, (name, parameter) in enumerate(written.named_parameters(), 1):
        say(Progress(at, total, "tensors compared"))
        if name not in found or not torch.equal(parameter.to(found[name].dtype), found[name]):
            raise TrainerError("disk", f"{folder} was written and loads with another {name}")
