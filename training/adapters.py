"""LoRA by peft: the start model stays as it is, and small matrices beside its linear layers are trained.

Of each pair of matrices the second begins at zero, so that the untrained policy is the start model bit for bit and the
reference log-probs of the start model hold: there is no adapter to switch off. peft is loaded only where it is asked
for.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from training.config import LoraConfig
from training.status import TrainerError

if TYPE_CHECKING:
    from peft import PeftModel


def attach(model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
    """Freeze `model`, which is on the CPU, and put untrained adapters into it: the same ones for the same seed.

    Raises TrainerError of kind `recipe` where peft is missing or `lora.targets` names no layer.
    """
    peft = _peft()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _naming_targets(lora, lambda: peft.inject_adapter_in_model(_settings(peft, lora), model))
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if hasattr(layer, "base_layer"):
            raise TrainerError(
                "recipe",
                f"train.lora.targets is {lora.targets}, which names the embedding or the head: the head reads its"
                " weights alone, and would not be trained; name linear layers of the blocks, or leave all-linear",
            )


def wrap(model: PreTrainedModel, lora: LoraConfig) -> "PeftModel":
    """`model` with adapters that can be saved and merged; parameters are named as after `attach` by `parameters_of`."""
    peft = _peft()
    wrapped: PeftModel = _naming_targets(lora, lambda: peft.get_peft_model(model, _settings(peft, lora)))
    return wrapped


def parameters_of(wrapped: "PeftModel") -> dict[str, nn.Parameter]:
    """Every parameter under the name that `attach` gives it."""
    return dict(wrapped.base_model.model.named_parameters())


def save(wrapped: "PeftModel", folder: Path) -> None:
    """Write the adapter alone, as peft loads it beside any copy of the start model."""
    # Where the start model lay is no property of the adapter, and would make its bytes differ from place to place.
    wrapped.peft_config["default"].base_model_name_or_path = ""  # of None peft would make the path again
    wrapped.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # a card of placeholders


def merge(wrapped: "PeftModel") -> PreTrainedModel:
    """The start model with the adapters added to its weights; `wrapped` is used up."""
    merged: Any = wrapped.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return merged


def _settings(peft: Any, lora: LoraConfig) -> Any:
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    return peft.LoraConfig(
        task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, lora_dropout=0.0,
        bias="none", use_rslora=False, init_lora_weights=True,
    )  # fmt: skip


def _naming_targets(lora: LoraConfig, build: Any) -> Any:
    try:
        return build()
    except ValueError as error:
        first = next(iter(str(error).splitlines()), "no message")
        raise TrainerError("recipe", f"train.lora.targets is {lora.targets!r}: {first}") from error


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise TrainerError("recipe", "train.lora needs the package peft: pip install 'prefstack[lora]'") from error
    return peft
