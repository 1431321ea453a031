"""Tokens of a pack and recompute where the config leaves them open: the fastest that a device's memory holds.

Neither changes a result beyond rounding. On a CPU the choice is the same on every machine, so that the same ranks and
threads give the same bytes; on a GPU it follows from the kind of device.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from training.config import TrainConfig
from training.memory import DeviceKind, Load, RankMemory, rank_memory, trained_parameters
from training.shape import ModelShape

# Activations of a pack must fit beside the model; a GPU needs long packs to be busy, and gains little beyond that.
TOKENS_PER_PACK: Final = {"cpu": 2048, "cuda": 8192}
LEAST_TOKENS: Final = 1024
USABLE: Final = {"cpu": 0.9, "cuda": 0.95}
"""Share of the memory that a plan may fill: others use the host, and a driver its device."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """How a training uses the memory of a device."""

    tokens_per_pack: int
    recompute: bool
    memory: RankMemory
    available: int
    """Bytes for one rank."""
    reason: str | None
    """Why it does not fit, and what would help; None when it fits."""


def choose_fit(shape: ModelShape, config: TrainConfig, device: DeviceKind, available: int, longest: int) -> Fit:
    """The fastest setting whose peak fits into `available` bytes a rank; the leanest, with a reason, where none does.

    `longest` is the number of tokens of the longest pair: it is never split, so a pack may hold as many.
    """
    usable = USABLE[device] * available
    last: Fit | None = None
    for budget, recompute in _settings(config, device):
        load = Load(
            device, config.precision, config.zero_stage, config.ranks, max(budget, longest), recompute, config.lora,
            config.offload == "optimizer",
        )  # fmt: skip
        memory = rank_memory(shape, load)
        last = Fit(budget, recompute, memory, available, None)
        if memory.total <= usable:
            return last
    assert last is not None
    return replace(last, reason=_reason(shape, config, device, last, longest))


def pack_settings(
    shape: ModelShape | None, config: TrainConfig, device: DeviceKind, available: int, longest: int
) -> tuple[int, bool]:
    """Tokens of a pack and whether to recompute; for a model whose shape is not known what the config says, or the
    default."""
    if shape is None:
        return config.tokens_per_pack or TOKENS_PER_PACK[device], config.recompute is True
    fit = choose_fit(shape, config, device, available, longest)
    if fit.reason is not None:
        log.warning("memory may not do: %s", fit.reason)
    return fit.tokens_per_pack, fit.recompute


def _settings(config: TrainConfig, device: DeviceKind) -> Iterator[tuple[int, bool]]:
    """Budgets and recompute, the fastest first. Less recompute is worth more than long packs, down to a point."""
    budgets = [config.tokens_per_pack or TOKENS_PER_PACK[device]]
    if config.tokens_per_pack is None and device == "cuda":
        while budgets[-1] > LEAST_TOKENS:
            budgets.append(budgets[-1] // 2)
    choices = [config.recompute] if isinstance(config.recompute, bool) else [False, True][: 1 + (device == "cuda")]
    for recompute in choices:
        yield from ((budget, recompute) for budget in budgets)


def _reason(shape: ModelShape, config: TrainConfig, device: DeviceKind, fit: Fit, longest: int) -> str:
    memory, usable = fit.memory, int(USABLE[device] * fit.available)
    parts = memory.parts()
    largest = max(parts, key=lambda name: parts[name])
    said = (
        f"a rank needs {_gb(memory.total)} and may use {_gb(usable)} of {_gb(fit.available)}; the largest part is"
        f" {largest} with {_gb(parts[largest])}"
    )
    load = Load(
        device, config.precision, config.zero_stage, config.ranks, max(fit.tokens_per_pack, longest),
        config.recompute is not False and device == "cuda", config.lora, config.offload == "optimizer",
    )  # fmt: skip
    for stage in range(config.zero_stage + 1, 4):
        if config.ranks > 1 and _total(shape, replace(load, zero_stage=stage)) <= usable:
            return f"{said}; train.zero_stage {stage} would fit"
    if device == "cuda":
        helps = [text for text in (_offload(shape, load, usable), _more_ranks(shape, load, usable)) if text]
        if helps:
            return "; ".join([said, *helps])
    return f"{said}; it takes a smaller model, or shorter pairs (tokenize.max_length)"


def _offload(shape: ModelShape, load: Load, usable: int) -> str | None:
    """What the same GPUs could do with the host's help, and what that costs."""
    there = replace(load, zero_stage=3, offload=True)
    if load.offload or _total(shape, there) > usable:
        return None
    memory = rank_memory(shape, there)
    # Sums of gradients go up to the GPU and come back in every pack, in fp32.
    moved = 8 * trained_parameters(shape, load.lora) / load.ranks
    return (
        f"train.offload optimizer with train.zero_stage 3 would fit, for {_gb(memory.host * load.ranks)} of the host's"
        f" memory and a slower step ({_gb(int(moved))} over a GPU's bus in every pack, Adam on the host's cores)"
    )


def _more_ranks(shape: ModelShape, load: Load, usable: int) -> str | None:
    for ranks in (2 * load.ranks, 4 * load.ranks, 8 * load.ranks):
        if _total(shape, replace(load, zero_stage=3, ranks=ranks)) <= usable:
            return f"train.zero_stage 3 on train.ranks {ranks} would fit"
    return None


def _total(shape: ModelShape, load: Load) -> int:
    return rank_memory(shape, load).total


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
