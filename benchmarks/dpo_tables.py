"""What benchmarks/dpo.py prints, and what it writes into docs/benchmarks.md."""

from typing import Any

from benchmarks.sections import where_measured
from training.shape import ModelShape

PEERS = ("trl-precomputed", "trl-online")


def table(verdict: dict[str, Any]) -> str:
    """A line for each, the ratio last."""
    ours = {"ours": verdict["ours"]} | ({"ours-trainer": verdict["ours_trainer"]} if "ours_trainer" in verdict else {})
    lines = [
        f"{name:16} {line(found)}  losses {' '.join(f'{loss:.5f}' for loss in found['losses'])}"
        for name, found in (ours | {name: verdict["peer"][name] for name in PEERS}).items()
    ]
    if "ours_trainer" in verdict:
        lines.append(
            f"trainer / TRL, whole processes: CPU {verdict['trainer_cpu_ratio']:.3f}, memory"
            f" {verdict['trainer_memory_ratio']:.3f}"
        )
    lines.append(
        f"ours / TRL: CPU {verdict['cpu_ratio']:.3f}, time {verdict['time_ratio']:.3f}, memory"
        f" {verdict['memory_ratio']:.3f}, losses apart by {verdict['loss_difference']:.1e} at most"
    )
    return "\n".join(lines)


def section(verdict: dict[str, Any], what: str) -> str:
    """The same for docs/benchmarks.md."""
    pairs = verdict["pairs"]
    rows = [
        f"| {label} | {found['cpu_seconds'] / pairs:.2f} | {found['seconds'] / pairs:.2f} |"
        f" {found['peak_bytes'] / 1e9:.2f} | {', '.join(f'{loss:.6f}' for loss in found['losses'])} |"
        for label, found in (
            ("ours", verdict["ours"]),
            ("TRL 1.16, reference before training", verdict["peer"]["trl-precomputed"]),
            ("TRL 1.16, reference beside it", verdict["peer"]["trl-online"]),
        )
    ]
    return f"""
{where_measured(verdict["ours"]["device"])} Written by `python -m benchmarks.dpo`: {what}, {verdict["precision"]},
{pairs} pairs ({verdict["order"]} shuffled), at most {verdict["cap"]} tokens of prompt and answer,
{verdict["batch_size"]} pairs a step,
{verdict["threads"]} thread; loading, reference and training; medians of {verdict["runs"]} interleaved runs.

| | CPU seconds a pair | seconds a pair | peak memory, GB | losses |
|---|---|---|---|---|
{chr(10).join(rows)}

Ours over the better of the two: CPU {verdict["cpu_ratio"]:.3f}, time {verdict["time_ratio"]:.3f},
memory {verdict["memory_ratio"]:.3f}; losses apart by {verdict["loss_difference"]:.1e} at most.
"""


def millions(shape: ModelShape | None) -> str:
    return "an unknown number of" if shape is None else f"{shape.parameters / 1e6:,.0f} million"


def line(run: dict[str, Any]) -> str:
    return f"{run['cpu_seconds']:8.1f} CPU s {run['seconds']:8.1f} s {run['peak_bytes'] / 1e9:6.2f} GB"
