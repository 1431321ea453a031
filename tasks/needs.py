"""What a training takes: memory of a rank, time and disk, worked out from its settings before anything is built.

Lengths are those of the token rows where they are finished; else Stack Exchange's usual ones are assumed. Nothing
here loads torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from tasks.manifest import Manifest
from training.config import TrainConfig
from training.devices import DEVICES, device_named
from training.fit import Fit, choose_fit
from training.memory import DeviceKind, trained_parameters, width
from training.shape import ModelShape, known_shape, shape_in
from training.work import passes_of

H100_BYTES: Final = DEVICES["H100"].memory
CHECKPOINTS: Final = 3  # two that are kept, and the one that is being written
STATE_BYTES: Final = 12  # of a parameter in a checkpoint: weight and two moments in fp32
CPU_RATE: Final = 70e9  # operations a second and core: 73e9 were seen on one with AVX-512, SmolLM2-135M in fp32
GPU_SHARE: Final = 0.4  # of the peak, as a trainer of this kind reaches on long packs
TEXT_BYTES: Final = 4  # of a token, as text
ROW_BYTES: Final = 8  # of a token in the token rows


class Lengths(NamedTuple):
    """Mean tokens of a pair."""

    prompt: float
    chosen: float
    rejected: float

    @property
    def tokens(self) -> float:
        """With the prompt once, as it is computed."""
        return sum(self)

    @property
    def attended(self) -> float:
        """Pairs of a query and a key that it sees."""
        return (self.prompt + self.chosen) ** 2 / 2 + self.rejected * (self.prompt + self.rejected / 2)


USUAL: Final = Lengths(300, 270, 230)  # Stack Exchange with Llama 2's tokenizer
CAPPED: Final = 1.2  # tokens of a mean pair for each of a cap that most rows reach


@dataclass(frozen=True)
class Settings:
    """As much of a recipe as its needs hang on."""

    model: str
    train: TrainConfig
    size: int | None
    held_out: int
    candidates: int | None
    max_length: int


Places = Mapping[str, tuple[DeviceKind, int]]
"""What the training could run on, by name: `cpu`, or what a driver calls its GPU; and bytes for one rank."""


def needs(asked: Settings, built: Mapping[str, Manifest], places: Places) -> dict[str, Any]:
    """What the training takes. `built` holds the stages that are finished, by name."""
    train, size = asked.train, asked.size
    if size is None and "sample" in built:
        size = built["sample"].counts["train"]
    steps = None if size is None else size // train.batch_size * train.epochs
    answer: dict[str, Any] = {
        "ranks": train.ranks, "zero_stage": train.zero_stage, "offload": train.offload, "precision": train.precision,
        "steps": steps, "parameters": None, "tokens_per_pair": None, "memory": None, "seconds": None, "disk": None,
    }  # fmt: skip
    shape = _shape(asked.model, built)
    if shape is None:
        return answer
    lengths, measured = _lengths(asked, built)
    fits = {name: _fit(shape, asked, kind, available) for name, (kind, available) in places.items()}
    answer |= {
        "parameters": shape.parameters,
        "tokens_per_pair": {"mean": round(lengths.tokens, 1), "measured": measured},
        "memory": {name: _memory(fit) for name, fit in fits.items()},
    }
    if size is not None and steps is not None:
        answer["seconds"] = {
            name: _seconds(shape, asked, lengths, size, steps, name, fit.recompute) for name, fit in fits.items()
        }
        answer["disk"] = _disk(shape, asked, lengths, size)
    return answer


def _shape(model: str, built: Mapping[str, Manifest]) -> ModelShape | None:
    folder = built["model"].path("model") if "model" in built else Path(model).expanduser()
    return shape_in(folder) if (folder / "config.json").is_file() else known_shape(model)


def _lengths(asked: Settings, built: Mapping[str, Manifest]) -> tuple[Lengths, bool]:
    """Mean lengths, and whether they are those of finished token rows (in the usual proportions)."""
    measured = "tokenize" in built
    mean = min(USUAL.tokens, CAPPED * asked.max_length)
    if measured:
        counts = built["tokenize"].counts
        kept = counts["pairs"] - sum(count for name, count in counts.items() if name.startswith("dropped."))
        mean = counts["tokens"] / max(1, kept)
    return Lengths(*(part * mean / USUAL.tokens for part in USUAL)), measured


def _fit(shape: ModelShape, asked: Settings, kind: DeviceKind, available: int) -> Fit:
    # The worst pair: a prompt of a token or two, and both answers cut at the cap.
    return choose_fit(shape, asked.train, kind, available, longest=2 * asked.max_length)


def _memory(fit: Fit) -> dict[str, Any]:
    return {
        "fits": fit.reason is None, "reason": fit.reason, "bytes": fit.memory.total, "available": fit.available,
        "tokens_per_pack": fit.tokens_per_pack, "recompute": fit.recompute, "parts": fit.memory.parts(),
        "host_bytes": fit.memory.host,
    }  # fmt: skip


def _seconds(
    shape: ModelShape, asked: Settings, lengths: Lengths, size: int, steps: int, place: str, recompute: bool
) -> dict[str, float]:
    """Scoring the reference, training and judging, at a stated rate; loading, saving and the data come on top."""
    train = asked.train
    forward = shape.forward_flops(lengths.tokens, lengths.attended, lengths.chosen + lengths.rejected)
    device = device_named(place)
    if place == "cpu":
        rate = CPU_RATE * (os.cpu_count() or 1)
    elif device is None:
        return {}
    else:
        rate = GPU_SHARE * device.peak(train.precision) * train.ranks
    held_out = asked.held_out
    work = {
        "reference": forward * (size + held_out),
        "train": forward * passes_of(recompute=recompute, frozen=train.lora is not None) * steps * train.batch_size,
        "evaluate": forward * held_out,
    }
    return {name: flops / rate for name, flops in work.items()} | {"rate": rate}


def _disk(shape: ModelShape, asked: Settings, lengths: Lengths, size: int) -> dict[str, int]:
    """Bytes; what is read of the dumps comes on top. The published model is a second name for the tuned one."""
    weights = shape.parameters * width(asked.train.precision)
    pairs = size + asked.held_out
    candidates = max(asked.candidates or 0, pairs)
    text = TEXT_BYTES * lengths.tokens * (2 * candidates + pairs)
    parts = {
        "start_model": weights, "tuned_model": weights,
        "checkpoints": CHECKPOINTS * STATE_BYTES * trained_parameters(shape, asked.train.lora),
        "pairs": int(text + ROW_BYTES * lengths.tokens * pairs),
    }  # fmt: skip
    return parts | {"total": sum(parts.values())}
