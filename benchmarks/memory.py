"""The memory planner beside measured peaks: trainings of random models on the CPU, the largest rank's resident memory.

    python -m benchmarks.memory [--sizes 15m 60m 135m] [--precisions fp32 bf16] [--ranks 1 2] [--stages 2]
                                [--trained model adapters] [--json]
    python -m benchmarks.memory --add FIRST.json SECOND.json --write docs/benchmarks.md

Each training scores its reference, makes two updates and exports, as in a run; the peak is the kernel's own figure
for its processes. `ours` is the prediction and `peer` the kernel; there is no other trainer here. What was measured
before (`--json`) is added by `--add` and held against the planner as it is now: a measurement takes minutes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import where_measured, write_section
from training.config import LoraConfig, TrainConfig
from training.memory import Load, rank_memory
from training.rows import TokenRow
from training.shape import ModelShape

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "tiny": ModelShape(64, 160, 2, 4, 2, 16, 512, tied=True),
    "15m": ModelShape(288, 768, 6, 6, 6, 48, 32000, tied=True),
    "60m": ModelShape(512, 1536, 8, 8, 8, 64, 32000, tied=False),
    "135m": ModelShape(576, 1536, 30, 9, 3, 64, 49152, tied=True),  # SmolLM2-135M's
}
ADAPTERS = {"model": None, "adapters": LoraConfig()}
STEPS = 2  # the second has all of it: moments, and gradients that meet those of the pass before


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(_measure(options)))
        return
    cases = [_predicted(case) for path in options.add for case in json.loads(path.read_text())["cases"]]
    for size in options.sizes if not options.add else ():
        with tempfile.TemporaryDirectory() as scratch:
            _in_a_process("--worker", "model", "--sizes", size, "--scratch", scratch)
            for case in product(options.precisions, options.stages, options.ranks, options.trained):
                cases.append(_case(size, *case, options, scratch))
                _say(_line(cases[-1]))
    if options.write is not None:
        write_section(options.write.resolve(), "memory", "Memory planner", _section(cases))
    worst = max(cases, key=lambda case: abs(case["error"]))
    if options.json:
        print(json.dumps({
            "ours": worst["predicted_bytes"], "peer": worst["measured_bytes"], "cpu_ratio": None,
            "memory_ratio": worst["predicted_bytes"] / worst["measured_bytes"],
            "largest_error": abs(worst["error"]), "cases": cases,
        }))  # fmt: skip
    else:
        print(*map(_line, cases), f"largest error {abs(worst['error']):.1%}", sep="\n")


def _case(
    size: str, precision: str, stage: int, ranks: int, trained: str, options: argparse.Namespace, scratch: str
) -> dict[str, Any]:
    measured = _in_a_process(
        "--worker", "train", "--sizes", size, "--precisions", precision, "--stages", str(stage), "--ranks", str(ranks),
        "--trained", trained, "--tokens", str(options.tokens), "--scratch", scratch,
    )["peak_bytes"]  # fmt: skip
    return _predicted({
        "size": size, "precision": precision, "zero_stage": stage, "ranks": ranks, "trained": trained,
        "tokens": options.tokens, "measured_bytes": measured, "where": where_measured(),
    })  # fmt: skip


def _predicted(case: dict[str, Any]) -> dict[str, Any]:
    """A measured case with what the planner says of it."""
    load = Load(
        "cpu", case["precision"], case["zero_stage"], case["ranks"], case["tokens"], lora=ADAPTERS[case["trained"]]
    )
    predicted = rank_memory(SIZES[case["size"]], load)
    error = predicted.total / case["measured_bytes"] - 1
    return case | {"predicted_bytes": predicted.total, "error": error, "parts": predicted.parts()}


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own, whose memory is below that of its children: they are counted from their start."""
    scratch = Path(options.scratch)
    (size,) = options.sizes
    if options.worker == "model":
        from benchmarks.random_model import write_random_model

        write_random_model(scratch / "model", SIZES[size], "fp32")
        return {}
    from benchmarks.own_trainer import train_with_trainer

    (precision,), (stage,), (ranks,), (trained,) = (
        options.precisions, options.stages, options.ranks, options.trained,
    )  # fmt: skip
    config = TrainConfig(
        precision=precision, zero_stage=stage, ranks=ranks, batch_size=2 * ranks, epochs=1, learning_rate=1e-5,
        tokens_per_pack=options.tokens, lora=ADAPTERS[trained],
    )  # fmt: skip
    draw = np.random.default_rng(0)
    tokens, vocabulary = options.tokens, SIZES[size].vocabulary

    def ids(count: int) -> list[int]:
        return [int(token) for token in draw.integers(3, vocabulary, count)]

    rows = [  # each fills a pack; a short prompt, so that nearly all positions are scored
        TokenRow(f"made.up/{n}/1/2", ids(tokens // 8), ids(tokens // 2), ids(tokens - tokens // 8 - tokens // 2))
        for n in range(STEPS * config.batch_size)
    ]
    with tempfile.TemporaryDirectory(dir=scratch) as work:
        train_with_trainer(scratch / "model", rows, config, work=Path(work), seed=0)
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}


def _in_a_process(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["15m", "60m", "135m"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--stages", nargs="+", type=int, choices=(0, 1, 2, 3), default=[2], help="of ZeRO")
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--trained", nargs="+", choices=ADAPTERS, default=["model"], help="the model, or LoRA beside it"
    )
    parser.add_argument("--tokens", type=int, default=1024, help="of every pack (%(default)s)")
    parser.add_argument("--add", nargs="+", type=Path, metavar="FILE", default=[], help="measured before, with --json")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the section of FILE (docs/benchmarks.md)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=("model", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--scratch", help=argparse.SUPPRESS)
    return parser.parse_args()


def _line(case: dict[str, Any]) -> str:
    return (
        f"{case['size']:5} {case['trained']:8} {case['precision']} ZeRO {case['zero_stage']} ranks {case['ranks']}"
        f" tokens {case['tokens']}: predicted"
        f" {case['predicted_bytes'] / 1e9:6.3f} GB, measured {case['measured_bytes'] / 1e9:6.3f} GB,"
        f" error {case['error']:+.1%}"
    )


def _section(cases: list[dict[str, Any]]) -> str:
    """For docs/benchmarks.md."""
    rows = [
        f"| {case['size']} | {case['trained']} | {case['precision']} | {case['zero_stage']} | {case['ranks']} |"
        f" {case['tokens']:,} |"
        f" {case['predicted_bytes'] / 1e9:.2f} | {case['measured_bytes'] / 1e9:.2f} | {case['error']:+.1%} |"
        for case in cases
    ]
    return f"""
{chr(10).join(sorted({case["where"] for case in cases}))}
Written by `python -m benchmarks.memory`: random weights; the peak resident memory of the largest rank over scoring, two
updates and export.

| parameters | trained | precision | ZeRO | ranks | tokens of a pack | predicted, GB | measured, GB | error |
|---|---|---|---:|---:|---:|---:|---:|---:|
{chr(10).join(rows)}
"""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
