"""Benchmark: a model -> its numbers on tasks of lm-eval, and what each item got.

in   model/ (start or trained); the folder of local tasks, where there is one
out  benchmarks.json   one entry a benchmark: metric, value, shots, standard error, whether asked in its own way
     items.parquet     benchmark, task, doc, digest, value: what the start and the tuned model are compared by

A stage for each model: the start model's numbers serve every run that begins with it.
"""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import polars as pl
from pydantic import Field, NonNegativeInt, PositiveInt

from tasks.alpaca_eval import AlpacaEvalConfig
from tasks.config import StageConfig
from tasks.digests import remembered_sha256
from tasks.errors import RecipeError
from tasks.evaluation.benchmark_table import ITEMS_SCHEMA
from tasks.evaluation.examination import refuse_missing_folder
from tasks.evaluation.suite import Benchmark, benchmarks
from tasks.folders import write_text
from tasks.manifest import Manifest, digest_json
from tasks.scores.ranks import run_ranks
from tasks.store import External, Store, Workspace
from training.config import TrainConfig
from training.jobs import BenchmarkJob, BenchmarkTask
from training.withheld import without_credentials

VERSION = 1  # bump when the bytes this stage writes would change

STALL_SECONDS: Final = 12 * 3600.0  # a benchmark says nothing until it is done


class BenchmarkConfig(StageConfig):
    """What start and tuned model are examined in, by lm-eval (`pip install 'prefstack[eval]'`) and by alpaca_eval."""

    # The folder of local tasks is known by the digest of its files, and `tasks` by what they come to: `paper` and the
    # names that it stands for are the same.
    incidental: ClassVar[frozenset[str]] = frozenset({"tasks", "include_path", "batch_size", "run_code", "alpaca_eval"})

    tasks: Annotated[list[str], Field(min_length=1)]
    """Names of the paper's suite (mmlu, gsm8k, alpaca_eval, ...; `paper` = all that lm-eval can do), or of lm-eval."""
    limit: PositiveInt | None = None
    """First items of each task that are asked, to try things out; null = all, or as many as the paper drew."""
    fewshot: NonNegativeInt | None = None
    """Examples in the prompt, for every task; null = as the paper or the task has it."""
    include_path: Path | None = None
    """Folder of further tasks: lm-eval's YAML, or the same as JSON; paths in them are relative to it."""
    batch_size: PositiveInt = 8
    """Prompts that are asked together."""
    run_code: bool = False
    """Whether what the models write may be executed on this machine, as coding benchmarks do. The process that does so
    has no tokens in its environment: what only a token can fetch must lie in the hub's cache."""
    alpaca_eval: AlpacaEvalConfig = AlpacaEvalConfig()
    """How alpaca_eval is asked, where it is among the tasks: a tool of its own, and an annotator at an endpoint."""


def benchmark(
    store: Store, subject: Manifest, config: BenchmarkConfig, train: TrainConfig, withheld: Collection[str] = ()
) -> Manifest:
    """Numbers of the model in `subject`, a `model` or a `train` manifest.

    Where code of the model runs, its process has no credentials, nor the environment's variables named in `withheld`.

    Raises RecipeError for a task that nobody knows or that would run code unasked, StageFailed naming the log.
    """
    wanted = wanted_tasks(config)

    def build(work: Workspace) -> dict[str, int]:
        folder = work.partial / "benchmark"
        parts = folder / "parts"
        parts.mkdir(parents=True, exist_ok=True)
        left = [one for one in wanted if _part(parts, one.name) is None]
        if left:
            BenchmarkJob(
                model=subject.path("model").absolute(), tasks=tuple(left), parts=parts.absolute(),
                folder=folder.absolute(), precision=train.precision, limit=config.limit,
                include=None if config.include_path is None else config.include_path.absolute(),
                batch_size=config.batch_size, run_code=config.run_code,
            ).write(folder / "job.json")  # fmt: skip
            outcome = run_ranks(
                work, "training.benchmark", folder / "job.json", folder, ranks=1, log_file=folder / "benchmark.log",
                stall_seconds=STALL_SECONDS, environment=_environment(config, withheld),
            )  # fmt: skip
            work.provenance |= {"benchmark": outcome.facts}
        found: list[dict[str, Any]] = [_part(parts, one.name) or {} for one in wanted]
        whole = config.limit is None and config.fewshot is None
        found = [one | {"whole": whole} for one in found]
        items = [
            (one["name"], *item) for one in found for item in sorted(map(tuple, one.pop("items")))
        ]  # fmt: skip
        pl.DataFrame(items, schema=ITEMS_SCHEMA, orient="row").write_parquet(work.folder / "items.parquet")
        write_text(work.folder / "benchmarks.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
        return {"benchmarks": len(found), "asked": sum(one["asked"] for one in found), "items": len(items)}

    identity = config.identity() | {
        "precision": train.precision, "asked": [vars(one) for one in wanted]
    }  # fmt: skip
    inputs: dict[str, Manifest | External] = {"model": subject}
    if config.include_path is not None:
        inputs["include"] = External(_digest(config.include_path, store.work_dir))
    return store.stage("benchmark", VERSION, identity, inputs, build)


def _environment(config: BenchmarkConfig, withheld: Collection[str]) -> dict[str, str]:
    """Ours as it is, since a benchmark may have to be fetched with a token; less, where what a model writes is run."""
    return without_credentials(os.environ, withheld) if config.run_code else dict(os.environ)


def asks_alpaca_eval(config: BenchmarkConfig) -> bool:
    """Whether AlpacaEval is among what is asked: not by lm-eval, and so by stages of its own."""
    return any(one.tool for one in benchmarks(config.tasks))


def wanted_tasks(config: BenchmarkConfig) -> list[BenchmarkTask]:
    """What is asked of lm-eval; RecipeError for a task that it cannot do, and for one that would run code unasked."""
    asked = [one for one in benchmarks(config.tasks) if one.task is not None]
    dangerous = [one.name for one in asked if one.runs_code and not config.run_code]
    if dangerous:
        raise RecipeError(
            f"evaluate.benchmarks: {', '.join(dangerous)} would execute what the models write; "
            "evaluate.benchmarks.run_code=true allows it, on a machine that can bear it"
        )
    return [_task(one, config) for one in asked]


def _task(one: Benchmark, config: BenchmarkConfig) -> BenchmarkTask:
    assert one.task is not None
    shots = one.shots if config.fewshot is None else config.fewshot
    return BenchmarkTask(one.name, one.task, shots, one.metric, one.items)


def _part(parts: Path, name: str) -> dict[str, Any] | None:
    """What is known of a benchmark that is done; a torn file counts for nothing."""
    try:
        found: dict[str, Any] = json.loads((parts / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _digest(folder: Path, work_dir: Path) -> str:
    refuse_missing_folder(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return digest_json({path.relative_to(folder).as_posix(): remembered_sha256(path, work_dir) for path in files})
