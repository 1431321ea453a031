"""DPO beside TRL 1.16: the same pairs in the same order, the same model, CPU seconds, peak memory and losses.

    python -m benchmarks.dpo --model FOLDER [--rows FOLDER] [--pairs 16] [--cap 512] [--json]
    python -m benchmarks.dpo --shape 1b --device cuda --precision bf16        random weights, on a GPU

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
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("trl-precomputed", "trl-online")
SEED = 0
SHAPES = {  # hidden size, MLP, layers, heads, key heads, vocabulary: Llama 3.2 1B and 3B, Llama 2 7B, a layer of 13B
    "1b": (2048, 8192, 16, 32, 8, 128256),
    "3b": (3072, 8192, 28, 24, 8, 128256),
    "7b": (4096, 11008, 32, 32, 32, 32000),
    "13b-layer": (5120, 13824, 1, 40, 40, 32000),
}


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(_work(options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        if options.model is None:
            options.model = _random_model(Path(scratch) / "model", options.shape, options.precision)
        names = ("ours", *(["ours-trainer"] if options.trainer else []), *PEERS)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for repeat in range(options.repeats):
            for name in runs:
                runs[name].append(_run(name, options, Path(scratch)))
                _say(f"{repeat + 1}/{options.repeats} {name}: {_line(runs[name][-1])}", options)
    results = {name: _median(found) for name, found in runs.items()}
    peer = {
        "name": "TRL 1.16",
        "cpu_seconds": min(results[name]["cpu_seconds"] for name in PEERS),
        "seconds": min(results[name]["seconds"] for name in PEERS),
        "peak_bytes": min(results[name]["peak_bytes"] for name in PEERS),
        **{name: results[name] for name in PEERS},
    }
    ours = results["ours"]
    verdict = {
        "ours": ours,
        "peer": peer,
        "cpu_ratio": ours["cpu_seconds"] / peer["cpu_seconds"],
        "time_ratio": ours["seconds"] / peer["seconds"],
        "memory_ratio": ours["peak_bytes"] / peer["peak_bytes"],
        "loss_difference": max(
            abs(a - b) for found in results.values() for a, b in zip(ours["losses"], found["losses"], strict=True)
        ),
        "pairs": options.pairs,
        "cap": options.cap,
        "threads": options.threads,
        "peer_micro_batch": options.peer_micro_batch,
    }
    if options.trainer:
        whole = min(results[name]["process_cpu_seconds"] for name in PEERS)
        verdict["ours_trainer"] = results["ours-trainer"]
        verdict["trainer_cpu_ratio"] = results["ours-trainer"]["process_cpu_seconds"] / whole
        verdict["trainer_memory_ratio"] = results["ours-trainer"]["peak_bytes"] / peer["peak_bytes"]
    if options.json:
        print(json.dumps(verdict))
        return
    for name, found in results.items():
        print(f"{name:16} {_line(found)}  losses {' '.join(f'{loss:.5f}' for loss in found['losses'])}")
    print(
        f"ours / TRL: CPU {verdict['cpu_ratio']:.3f}, time {verdict['time_ratio']:.3f}, memory"
        f" {verdict['memory_ratio']:.3f}, losses apart by {verdict['loss_difference']:.1e} at most"
    )
    if options.trainer:
        print(
            f"trainer / TRL, whole processes: CPU {verdict['trainer_cpu_ratio']:.3f}, memory"
            f" {verdict['trainer_memory_ratio']:.3f}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.dpo", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="folder of a causal language model, e.g. SmolLM2-135M")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this size instead of --model")
    parser.add_argument("--rows", type=Path, help="folder of token rows; else lengths like Stack Exchange's, made up")
    parser.add_argument("--pairs", type=int, default=16, help="pairs to train on (%(default)s)")
    parser.add_argument("--cap", type=int, default=512, help="tokens of prompt and answer together (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="pairs in an optimizer step (%(default)s)")
    parser.add_argument("--peer-micro-batch", type=int, default=2, help="pairs that TRL pads together (%(default)s)")
    parser.add_argument("--tokens-per-pack", type=int, help="of ours; default: 1024 on a CPU, 16384 on a GPU")
    parser.add_argument("--trainer", action="store_true", help="also the trainer's own processes, under DeepSpeed")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of either (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=("ours", "ours-trainer", *PEERS), help=argparse.SUPPRESS)
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
        str(options.threads), "--scratch", str(scratch),
    ]  # fmt: skip
    for flag, value in (("--rows", options.rows), ("--tokens-per-pack", options.tokens_per_pack)):
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
    """One training in this process."""
    import resource

    import torch

    from training.batch import batch_indices
    from training.config import TrainConfig

    torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    config = TrainConfig(
        precision=options.precision, batch_size=options.batch_size, epochs=1, learning_rate=1e-5, warmup_ratio=0.0,
        tokens_per_pack=options.tokens_per_pack or (16384 if cuda else 1024), zero_stage=0, ranks=1,
    )  # fmt: skip
    rows = _rows(options)
    steps = range(len(rows) // config.batch_size)
    ordered = [rows[i] for step in steps for i in batch_indices(len(rows), config.batch_size, SEED, step)]
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
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "process_cpu_seconds": after.ru_utime + after.ru_stime,
        "seconds": time.perf_counter() - began,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else after.ru_maxrss * 1024,
        "tokens": sum(row.tokens for row in rows),
        "losses": losses,
    }


def _rows(options: argparse.Namespace) -> list[Any]:
    """The first pairs of --rows, cut to the cap; else random ids whose lengths are spread like Stack Exchange's."""
    import numpy as np
    from transformers import AutoConfig

    from training.rows import TokenRow, load_rows

    cap = options.cap
    if options.rows is not None:
        kept = (row for row in load_rows(options.rows) if len(row.prompt_ids) < cap)
        found = [
            row._replace(
                chosen_ids=row.chosen_ids[: cap - len(row.prompt_ids)],
                rejected_ids=row.rejected_ids[: cap - len(row.prompt_ids)],
            )
            for row, _ in zip(kept, range(options.pairs), strict=False)
        ]
        if len(found) < options.pairs:
            sys.exit(f"{options.rows} holds {len(found)} pairs whose prompt is below {cap} tokens")
        return found
    vocabulary = AutoConfig.from_pretrained(options.model).vocab_size
    draw = np.random.default_rng(0)

    def ids(median: float, spread: float, limit: int) -> list[int]:
        length = int(np.clip(draw.lognormal(np.log(median), spread), 1, limit))
        return [int(token) for token in draw.integers(3, vocabulary, length)]

    rows = []
    for number in range(options.pairs):
        prompt = ids(130, 0.8, cap - 16)  # means of about 180, 300 and 225 tokens without a cap
        room = cap - len(prompt)
        rows.append(TokenRow(f"made.up/{number}/1/2", prompt, ids(200, 0.9, room), ids(150, 0.9, room)))
    return rows


def _random_model(folder: Path, shape: str, precision: str) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, mlp, layers, heads, key_heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=key_heads, vocab_size=vocabulary, max_position_embeddings=4096,
        tie_word_embeddings=vocabulary > 100_000,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(config.dtype)
    LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    return folder


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = [name for name, value in runs[0].items() if name != "losses"]
    return {name: statistics.median(run[name] for run in runs) for name in numbers} | {"losses": runs[0]["losses"]}


def _line(run: dict[str, Any]) -> str:
    return f"{run['cpu_seconds']:8.1f} CPU s {run['seconds']:8.1f} s {run['peak_bytes'] / 1e9:6.2f} GB"


def _say(text: str, options: argparse.Namespace) -> None:
    if not options.json:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
