"""What a recipe takes: memory of a rank, time and disk, worked out from its settings before anything is built.

Lengths are those of the token rows where they are finished; else Stack Exchange's usual ones are assumed. Nothing
here loads torch.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from flows.preflight import devices
from flows.recipe import Recipe
from tasks.manifest import Manifest
from training.devices import DEVICES, device_named
from training.fit import Fit, choose_fit
from training.memory import DeviceKind, width
from training.shape import ModelShape, known_shape, shape_in

CHECKPOINTS: Final = 3  # two that are kept, and the one that is being written
STATE_BYTES: Final = 12  # of a parameter in a checkpoint: weight and two moments in fp32
CPU_RATE: Final = 60e9  # operations a second and core, as measured on two AMD cores (docs/benchmarks.md)
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


def needs(recipe: Recipe, built: Mapping[str, Manifest]) -> dict[str, Any]:
    """What the training takes. `built` holds the stages that are finished, by name."""
    train = recipe.train
    size = recipe.sample.size
    if size is None and "sample" in built:
        size = built["sample"].counts["train"]
    steps = None if size is None else size // train.batch_size * train.epochs
    answer: dict[str, Any] = {
        "ranks": train.ranks, "zero_stage": train.zero_stage, "precision": train.precision, "steps": steps,
        "parameters": None, "tokens_per_pair": None, "memory": None, "seconds": None, "disk": None,
    }  # fmt: skip
    shape = _shape(recipe.model, built)
    if shape is None:
        return answer
    lengths, measured = _lengths(recipe, built)
    fits = {name: _fit(shape, recipe, kind, available) for name, (kind, available) in _places(recipe).items()}
    answer |= {
        "parameters": shape.parameters,
        "tokens_per_pair": {"mean": round(lengths.tokens, 1), "measured": measured},
        "memory": {name: _memory(fit) for name, fit in fits.items()},
    }
    if size is not None and steps is not None:
        answer["seconds"] = {
            name: _seconds(shape, recipe, lengths, size, steps, name, fit.recompute) for name, fit in fits.items()
        }
        answer["disk"] = _disk(shape, recipe, lengths, size)
    return answer


def _shape(model: str, built: Mapping[str, Manifest]) -> ModelShape | None:
    folder = built["model"].path("model") if "model" in built else Path(model).expanduser()
    return shape_in(folder) if (folder / "config.json").is_file() else known_shape(model)


def _lengths(recipe: Recipe, built: Mapping[str, Manifest]) -> tuple[Lengths, bool]:
    """Mean lengths, and whether they are those of finished token rows (in the usual proportions)."""
    measured = "tokenize" in built
    mean = min(USUAL.tokens, CAPPED * recipe.tokenize.max_length)
    if measured:
        counts = built["tokenize"].counts
        kept = counts["pairs"] - sum(count for name, count in counts.items() if name.startswith("dropped."))
        mean = counts["tokens"] / max(1, kept)
    return Lengths(*(part * mean / USUAL.tokens for part in USUAL)), measured


def _places(recipe: Recipe) -> dict[str, tuple[DeviceKind, int]]:
    """What the training could run on: this host's CPU, and its GPU or else an H100; with the memory of one rank."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    here = devices()
    gpu = (here[0].name, here[0].total * 2**20) if here else ("H100", DEVICES["H100"].memory)
    return {"cpu": ("cpu", host // recipe.train.ranks), gpu[0]: ("cuda", gpu[1])}


def _fit(shape: ModelShape, recipe: Recipe, kind: DeviceKind, available: int) -> Fit:
    # The worst pair: a prompt of a token or two, and both answers cut at the cap.
    return choose_fit(shape, recipe.train, kind, available, longest=2 * recipe.tokenize.max_length)


def _memory(fit: Fit) -> dict[str, Any]:
    return {
        "fits": fit.reason is None, "reason": fit.reason, "bytes": fit.memory.total, "available": fit.available,
        "tokens_per_pack": fit.tokens_per_pack, "recompute": fit.recompute, "parts": fit.memory.parts(),
    }  # fmt: skip


def _seconds(
    shape: ModelShape, recipe: Recipe, lengths: Lengths, size: int, steps: int, place: str, recompute: bool
) -> dict[str, float]:
    """Scoring the reference, training and judging, at a stated rate; loading, saving and the data come on top."""
    train = recipe.train
    forward = shape.forward_flops(lengths.tokens, lengths.attended, lengths.chosen + lengths.rejected)
    device = device_named(place)
    if place == "cpu":
        rate = CPU_RATE * (os.cpu_count() or 1)
    elif device is None:
        return {}
    else:
        rate = GPU_SHARE * device.peak(train.precision) * train.ranks
    held_out = recipe.sample.held_out
    work = {
        "reference": forward * (size + held_out),
        "train": forward * (4 if recompute else 3) * steps * train.batch_size,
        "evaluate": forward * held_out,
    }
    return {name: flops / rate for name, flops in work.items()} | {"rate": rate}


def _disk(shape: ModelShape, recipe: Recipe, lengths: Lengths, size: int) -> dict[str, int]:
    """Bytes; what is read of the dumps comes on top. The published model is a second name for the tuned one."""
    weights = shape.parameters * width(recipe.train.precision)
    pairs = size + recipe.sample.held_out
    candidates = max(recipe.pair.candidates or 0, pairs)
    text = TEXT_BYTES * lengths.tokens * (2 * candidates + pairs)
    parts = {
        "start_model": weights, "tuned_model": weights,
        "checkpoints": CHECKPOINTS * STATE_BYTES * shape.parameters,
        "pairs": int(text + ROW_BYTES * lengths.tokens * pairs),
    }  # fmt: skip
    return parts | {"total": sum(parts.values())}


def needs_text(need: Mapping[str, Any]) -> list[str]:
    """One line for each thing that is needed."""
    steps = "as many steps as the pairs give" if need["steps"] is None else f"{need['steps']:,} optimizer steps"
    lines = [f"training: {steps} on {need['ranks']} ranks, ZeRO {need['zero_stage']}, {need['precision']}"]
    if need["memory"] is None:
        return [*lines, "memory, time and disk: the model's shape is not known before it is here"]
    for name, memory in need["memory"].items():
        packs = f"packs of {memory['tokens_per_pack']:,} tokens, {'with' if memory['recompute'] else 'no'} recompute"
        verdict = "" if memory["fits"] else f"; does not fit: {memory['reason']}"
        parts = ", ".join(f"{part} {_gb(size)}" for part, size in memory["parts"].items() if size >= 0.05e9)
        lines.append(
            f"memory a rank on {name}: {_gb(memory['bytes'])} of {_gb(memory['available'])} ({packs}){verdict}"
        )
        lines.append(f"  {parts}")
    tokens = need["tokens_per_pair"]
    for name, seconds in (need["seconds"] or {}).items():
        if not seconds:
            continue
        parts = ", ".join(f"{part} {_hours(seconds[part])}" for part in ("reference", "train", "evaluate"))
        source = "measured" if tokens["measured"] else "assumed"
        lines.append(
            f"time on {name}: {parts}, at {seconds['rate'] / 1e12:,.2f} TFLOP/s and {tokens['mean']:,.0f} tokens a pair"
            f" ({source})"
        )
    if need["disk"] is not None:
        disk = {part: size for part, size in need["disk"].items() if part != "total"}
        parts = ", ".join(f"{part.replace('_', ' ')} {_gb(size)}" for part, size in disk.items())
        lines.append(f"disk: {_gb(need['disk']['total'])} ({parts}), and what is read of the dumps")
    return lines


def _gb(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
