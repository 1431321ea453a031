"""What the process of a benchmark runs: lm-eval's tasks, one after the other, on one model.

    python -m training.benchmark JOB.json

Each task's numbers and the verdict on each of its items are a part file, so that an interrupted benchmark goes on with
the task that it was at. Prompts are put into the chat template of the model's folder, examples within the user's turn.
"""

import json
import math
import os
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from training.jobs import BenchmarkJob, BenchmarkTask
from training.rank import Stop, die_with_parent, job_path, run_rank
from training.status import Outcome, Progress, TrainerError, write_progress

SEED: Final = 42  # of the draw of items and of the examples in prompts, as in the paper's code


def benchmark(job: BenchmarkJob, stop: Stop) -> Outcome:
    """Run the tasks and write their part files."""
    # lm-eval would take these for a rank of its own kind of parallel run.
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    if job.run_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    try:
        import lm_eval
    except ImportError as error:
        raise TrainerError(
            "recipe", f"evaluate.benchmarks needs lm-eval ({error}): pip install 'prefstack[eval]'"
        ) from error
    done = 0
    write_progress(job.folder, 0, Progress(done, len(job.tasks), "benchmarks"))
    model = load(job)
    local = local_tasks(job.include)
    if job.include is not None:
        os.chdir(job.include)  # what local tasks say of their files is relative to where they lie
    job.parts.mkdir(parents=True, exist_ok=True)
    for task in job.tasks:
        found = run_task(model, task, local, job)
        place = job.parts / f"{task.name}.json"
        scratch = place.with_name(f".{place.name}.tmp")
        scratch.write_text(json.dumps(found, allow_nan=False), encoding="utf-8")
        scratch.rename(place)
        done += 1
        write_progress(job.folder, 0, Progress(done, len(job.tasks), "benchmarks"))
        if stop.asked:
            return Outcome("stopped", done)
    return Outcome("finished", done, {"lm_eval": lm_eval.__version__, "device": str(model.device)})


def load(job: BenchmarkJob) -> Any:
    """The model as lm-eval asks it."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from training.world import rank_device

    tokenizer = AutoTokenizer.from_pretrained(job.model, local_files_only=True)
    if not tokenizer.chat_template:
        raise TrainerError("recipe", f"{job.model} has no chat template; benchmarks ask in the form it was tuned in")
    dtype = "bfloat16" if job.precision == "bf16" else "float32"
    return HFLM(
        pretrained=str(job.model), tokenizer=tokenizer, dtype=dtype, batch_size=job.batch_size,
        device=str(rank_device()),
    )  # fmt: skip


def local_tasks(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Tasks that are JSON files in `folder`, by name; those in YAML lm-eval finds by itself."""
    found = {}
    for path in sorted(folder.glob("*.json")) if folder is not None else []:
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TrainerError("recipe", f"{path} is not JSON: {error}") from error
        if isinstance(settings, dict) and "task" in settings:
            found[str(settings["task"])] = settings
    return found


def run_task(model: Any, task: BenchmarkTask, local: Mapping[str, Any], job: BenchmarkJob) -> dict[str, Any]:
    """Value, standard error and items of one benchmark."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if job.include is None else str(job.include))
    asked = local.get(task.task, task.task)
    if isinstance(asked, str) and asked not in manager.all_tasks:
        raise TrainerError(
            "recipe", f"evaluate.benchmarks.tasks: neither lm-eval nor evaluate.benchmarks.include_path has {asked!r}"
        )
    drawn = None
    if task.items is not None and job.limit is None:
        drawn = dict(_drawn(manager.load(asked)["tasks"], task.items))
    said = simple_evaluate(
        model, tasks=[asked], num_fewshot=task.shots, limit=job.limit, samples=drawn, task_manager=manager,
        apply_chat_template=True, fewshot_as_multiturn=False, log_samples=True, bootstrap_iters=1000,
        confirm_run_unsafe_code=job.run_code, random_seed=SEED, numpy_random_seed=SEED, torch_random_seed=SEED,
        fewshot_random_seed=SEED,
    )  # fmt: skip
    return condensed(said, task)


def _drawn(tasks: Mapping[str, Any], number: int) -> Iterator[tuple[str, list[int]]]:
    for name, task in tasks.items():
        count = len(task.eval_docs)
        if count > number:
            yield name, sorted(random.Random(SEED).sample(range(count), number))
        else:
            yield name, list(range(count))


def condensed(said: Mapping[str, Any], task: BenchmarkTask) -> dict[str, Any]:
    """What is kept of lm-eval's results: one metric, and what each item got by it.

    Raises TrainerError where the metric is missing or no number.
    """
    scores = said["results"][task.task]
    metrics = [key for key in scores if "," in key and "_stderr," not in key]
    metric = task.metric or (metrics[0] if metrics else None)
    if metric is None or metric not in metrics:
        raise TrainerError(
            "recipe", f"benchmark {task.name}: lm-eval gives no {metric or 'metric'}; it has {', '.join(metrics)}"
        )
    value = float(scores[metric])
    if not math.isfinite(value):
        raise TrainerError("nonfinite", f"benchmark {task.name}: {metric} is {value}; look for broken weights")
    name, _, kept_by = metric.partition(",")
    items = []
    for leaf, samples in sorted(said["samples"].items()):
        for sample in samples:
            got = sample.get(name)
            if sample.get("filter", "none") == kept_by and isinstance(got, bool | int | float):
                items.append([leaf, int(sample["doc_id"]), str(sample["doc_hash"]), float(got)])
    leaves = {leaf for leaf, *_ in items} or {task.task}
    better = {said["higher_is_better"].get(leaf, {}).get(name) for leaf in [*leaves, task.task]} - {None}
    stderr = scores.get(f"{name}_stderr,{kept_by}")
    return {
        "name": task.name,
        "task": task.task,
        "metric": metric,
        "value": value,
        "stderr": float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None,
        "higher_is_better": better != {False},
        "shots": max(said["n-shot"].get(leaf, 0) for leaf in leaves),
        "asked": sum(said["n-samples"][leaf]["effective"] for leaf in said["samples"]),
        "items": items,
    }


def main() -> int:
    """Run the process; returns its exit code."""
    die_with_parent()
    try:
        job = BenchmarkJob.read(job_path())
    except TrainerError as error:
        sys.exit(str(error))
    job.folder.mkdir(parents=True, exist_ok=True)
    return run_rank(job.folder, lambda stop: benchmark(job, stop))


if __name__ == "__main__":
    sys.exit(main())
