"""DPO beside TRL 1.16: the same pairs in the same order, the same model, CPU seconds, peak memory and losses.

    python -m benchmarks.dpo --model FOLDER [--rows FOLDER] [--pairs 16] [--cap 512] [--json]
    python -m benchmarks.dpo --shape 1b --device cuda --precision bf16 --pairs 512 --batch-size 32       on a GPU
    python -m benchmarks.dpo --model FOLDER --rows FOLDER --order questions       whole questions, one after the other
    python -m benchmarks.dpo --model FOLDER --write docs/benchmarks.md

Three interleaved runs of each, every one in a process of its own; medians are compared. Counted is what comes after
the imports: loading the model, scoring the reference, and one pass of training. TRL runs without gradient
checkpointing (its default, which is slower) and both with its reference computed before training and beside it; the
ratios are against the faster and the smaller of the two. `--trainer` also runs the trainer as the pipeline does, in
two processes under DeepSpeed, and compares whole processes, imports, export and all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.dpo_tables import PEERS, line, millions, section, table
from benchmarks.sections import write_section
from training.devices import device_named
from training.shape import KNOWN, ModelShape, shape_in

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
SHAPES = {
    "tiny": ModelShape(48, 80, 2, 6, 2, 8, 97, tied=True),
    "1b": KNOWN["meta-llama/Llama-3.2-1B"],
    "3b": KNOWN["meta-llama/Llama-3.2-3B"],
    "7b": KNOWN["meta-llama/Llama-2-7b-hf"],
    "13b-layer": replace(KNOWN["meta-llama/Llama-2-13b-hf"], layers=1),
}


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(_work(options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        if options.model is None:
            options.model = Path(scratch) / "model"
            _run("model", options, Path(scratch))
        names = ("ours", *(["ours-trainer"] if options.trainer else []), *PEERS)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for repeat in range(options.runs):
            for name in runs:
                runs[name].append(_run(name, options, Path(scratch)))
                _say(f"{repeat + 1}/{options.runs} {name}: {line(runs[name][-1])}", options)
        shape = shape_in(options.model)
    verdict = _verdict({name: _median(found) for name, found in runs.items()}, options)
    if options.write is not None:
        what = f"`--shape {options.shape}`" if options.shape else f"a model of {millions(shape)} parameters"
        write_section(options.write.resolve(), "dpo", "DPO", section(verdict, what))
    print(json.dumps(verdict) if options.json else table(verdict))


def _verdict(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    peer = {
        "name": "TRL 1.16",
        "cpu_seconds": min(results[name]["cpu_seconds"] for name in PEERS),
        "seconds": min(results[name]["seconds"] for name in PEERS),
        "peak_bytes": min(results[name]["peak_bytes"] for name in PEERS),
        **{name: results[name] for name in PEERS},
    }
    ours = results["ours"]
    verdict: dict[str, Any] = {
        "ours": ours,
        "peer": peer,
        "cpu_ratio": ours["cpu_seconds"] / peer["cpu_seconds"],
        "time_ratio": ours["seconds"] / peer["seconds"],
        "memory_ratio": ours["peak_bytes"] / peer["peak_bytes"],
        "loss_difference": max(
            abs(a - b) for found in results.values() for a, b in zip(ours["losses"], found["losses"], strict=True)
        ),
        **{
            name: vars(options)[name]
            for name in ("runs", "pairs", "order", "cap", "batch_size", "threads", "precision", "peer_micro_batch")
        },
    }
    if options.trainer:
        whole = min(results[name]["process_cpu_seconds"] for name in PEERS)
        verdict["ours_trainer"] = results["ours-trainer"]
        verdict["trainer_cpu_ratio"] = results["ours-trainer"]["process_cpu_seconds"] / whole
        verdict["trainer_memory_ratio"] = results["ours-trainer"]["peak_bytes"] / peer["peak_bytes"]
    return verdict


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.dpo", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="folder of a causal language model, e.g. SmolLM2-135M")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this size instead of --model")
    parser.add_argument("--rows", type=Path, help="folder of token rows; else lengths like Stack Exchange's, made up")
    parser.add_argument(
        "--order", choices=("pairs", "questions"), default="pairs", help="what is shuffled (%(default)s)"
    )
    parser.add_argument("--pairs", type=int, default=16, help="pairs to train on (%(default)s)")
    parser.add_argument("--cap", type=int, default=512, help="tokens of prompt and answer together (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="pairs in an optimizer step (%(default)s)")
    parser.add_argument("--peer-micro-batch", type=int, default=2, help="pairs that TRL pads together (%(default)s)")
    parser.add_argument("--tokens-per-pack", type=int, help="of ours; default: 1024 on a CPU, 16384 on a GPU")
    parser.add_argument("--trainer", action="store_true", help="also the trainer's own processes, under DeepSpeed")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of either (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each, interleaved; medians count (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the section DPO of FILE (docs/benchmarks.md)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=("model", "ours", "ours-trainer", *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.worker and (options.model is None) == (options.shape is None):
        parser.error("give either --model or --shape")
    for name in ("model", "rows"):  # the runs start in the project's folder
        if vars(options)[name] is not None:
            setattr(options, name, vars(options)[name].resolve())
    if options.pairs % options.batch_size or options.batch_size % options.peer_micro_batch:
        parser.error("--pairs must be a multiple of --batch-size, and that of --peer-micro-batch")
    return options


def _run(name: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "benchmarks.dpo", "--worker", name, "--model", str(options.model), "--pairs",
        str(options.pairs), "--cap", str(options.cap), "--batch-size", str(options.batch_size), "--peer-micro-batch",
        str(options.peer_micro_batch), "--precision", options.precision, "--device", options.device, "--threads",
        str(options.threads), "--scratch", str(scratch), "--order", options.order,
    ]  # fmt: skip
    for flag, value in (
        ("--shape", options.shape),
        ("--rows", options.rows),
        ("--tokens-per-pack", options.tokens_per_pack),
    ):
        command += [] if value is None else [flag, str(value)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    # TRL keeps its reference values in the data set's cache: a fresh one for every run.
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        environment["HF_DATASETS_CACHE"] = cache
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _work(options: argparse.Namespace) -> dict[str, Any]:
    """One training in this process, or a random model: the process that starts the others stays small, since Linux
    counts its memory as theirs."""
    import resource

    import torch

    from benchmarks.pairs import in_batches, made_up_rows, rows_of
    from training.config import TrainConfig

    if options.worker == "model":
        from benchmarks.random_model import write_random_model

        write_random_model(options.model, SHAPES[options.shape], options.precision)
        return {}
    torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    config = TrainConfig(
        precision=options.precision, batch_size=options.batch_size, epochs=1, learning_rate=1e-5, warmup_ratio=0.0,
        tokens_per_pack=options.tokens_per_pack or (16384 if cuda else 1024), zero_stage=0, ranks=1,
        order=options.order,
    )  # fmt: skip
    if options.rows is not None:
        rows = rows_of(options.rows, options.pairs, options.cap, whole_questions=options.order == "questions")
    else:
        vocabulary = json.loads((options.model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        rows = made_up_rows(vocabulary, options.pairs, options.cap)
    ordered = in_batches(rows, config, SEED)
    start: Callable[[], list[float]]
    if options.worker == "ours":
        from benchmarks.own_loop import train_with_ours

        start = partial(train_with_ours, options.model, ordered, config, options.device)
    elif options.worker == "ours-trainer":
        from benchmarks.own_trainer import train_with_trainer

        start = partial(train_with_trainer, options.model, rows, config, work=options.scratch / "trainer", seed=SEED)
    else:
        from benchmarks.trl_peer import train_with_trl

        def start() -> list[float]:
            return train_with_trl(
                options.model, ordered, config, work=options.scratch / "trl", micro_batch=options.peer_micro_batch,
                precompute=options.worker == "trl-precomputed", device=options.device,
            ).losses  # fmt: skip

    # The trainer's processes are children; the others are this one.
    whose = resource.RUSAGE_CHILDREN if options.worker == "ours-trainer" else resource.RUSAGE_SELF
    began, before = time.perf_counter(), resource.getrusage(whose)
    losses = start()
    after = resource.getrusage(whose)
    seconds = time.perf_counter() - began
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "process_cpu_seconds": after.ru_utime + after.ru_stime,
        "seconds": seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else after.ru_maxrss * 1024,
        **_speed(options, ordered, seconds),
        "losses": losses,
    }


def _speed(options: argparse.Namespace, rows: list[Any], seconds: float) -> dict[str, Any]:
    """Tokens a second, and what share of the device's peak the operations are: reference and training."""
    import torch

    from training.batch import pack_batch
    from training.work import step_flops

    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else None
    found: dict[str, Any] = {"tokens": sum(row.tokens for row in rows), "device": name}
    found["tokens_per_second"] = found["tokens"] / seconds
    device = device_named(name or "")
    if device is not None:
        size = options.batch_size
        packs = [pack for at in range(0, len(rows), size) for pack in pack_batch(rows[at : at + size], 2**62, 1)[0]]
        flops = step_flops(shape_in(options.model), [packs], recompute=False)
        for kind, count in flops.items():  # three forward passes of training, and one of the reference
            share = 4 / 3 * count / (seconds * device.peak(options.precision))
            found[kind.removeprefix("perf/").replace("_flops", "_mfu")] = share
    return found


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = [name for name, value in runs[0].items() if isinstance(value, (int, float))]
    return runs[0] | {name: statistics.median(run[name] for run in runs) for name in numbers}


def _say(text: str, options: argparse.Namespace) -> None:
    if not options.json:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
