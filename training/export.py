"""The tuned policy as a folder that transformers loads: safetensors, config, tokenizer, chat template.

The fp32 master weights are gathered one by one into a fresh copy of the start model on rank 0, which then saves
itself: so tied heads, sharding and the names in the files are those of the start model, at every ZeRO stage.
"""

import shutil
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, PreTrainedModel

from training.config import Precision
from training.engine import Engine
from training.status import TrainerError

_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
MAX_SHARD: Final = "5GB"


@torch.no_grad()
def export_model(engine: Engine, start: Path, folder: Path, precision: Precision) -> None:
    """Write the policy to `folder`; all ranks call together.

    Its dtype is bf16 after a bf16 run, and the start model's after an fp32 run. The folder is loaded again and
    compared; TrainerError of kind `disk` when it does not give back the same weights.
    """
    writes = dist.get_rank() == 0
    fresh = _load(start, torch.bfloat16 if precision == "bf16" else "auto") if writes else None
    parameters = dict(fresh.named_parameters()) if fresh is not None else {}
    for name in engine.names:
        weight = engine.weight(name)
        if writes:
            parameters[name].copy_(weight)
    if fresh is not None:
        fresh.save_pretrained(folder, max_shard_size=MAX_SHARD)
        _copy_companions(start, folder)
        _compare(fresh, _load(folder, "auto"), folder)
    dist.barrier()


def _load(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return model


def _copy_companions(start: Path, folder: Path) -> None:
    """Tokenizer, chat template and what else lies beside the start model's weights."""
    for path in sorted(start.iterdir()):
        if path.is_file() and not path.name.endswith(_WEIGHTS) and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def _compare(written: PreTrainedModel, read: PreTrainedModel, folder: Path) -> None:
    found = dict(read.named_parameters())
    for name, parameter in written.named_parameters():
        if name not in found or not torch.equal(parameter, found[name]):
            raise TrainerError("disk", f"{folder} was written and loads with another {name}")
