"""Whether lm-eval can ask what a recipe wants: found out in a moment, before a model is trained for hours.

Each check raises RecipeError that names the key and what to do.
"""

import glob
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import yaml

from tasks.errors import RecipeError
from tasks.evaluation.suite import SUITE, Benchmark

OF_TASK: Final = {"ifeval": ("immutabledict", "langdetect", "nltk")}  # what lm-eval imports for it alone


def refuse_missing_group(asked: Sequence[Benchmark]) -> None:
    """Where lm-eval, or what a task of it needs, is not installed."""
    wanted = ["lm_eval", *(package for one in asked for package in OF_TASK.get(one.task or "", ()))]
    missing = [package for package in wanted if find_spec(package) is None]
    if missing:
        raise RecipeError(
            f"evaluate.benchmarks needs {', '.join(missing)}, not installed here: pip install 'prefstack[eval]'"
        )


def refuse_missing_folder(folder: Path | None) -> None:
    """Where the folder of local tasks is none."""
    if folder is not None and not folder.is_dir():
        raise RecipeError(f"evaluate.benchmarks.include_path: {folder} is no folder")


def refuse_missing_files(asked: Sequence[Benchmark], folder: Path | None) -> None:
    """Where a file is not there that one of the local tasks asked for has its items in."""
    if folder is None:
        return
    names = {one.task for one in asked}
    for path, task in local_tasks(folder):
        if task.get("task") not in names:
            continue
        for name in _data_files(task):
            if "://" not in name and not glob.glob(name, root_dir=folder, recursive=True):
                raise RecipeError(
                    f"{path}: task {task['task']!r} has its items in {name}, which is not in {folder} and not to be "
                    "found from there"
                )


def refuse_unknown_tasks(asked: Sequence[Benchmark], folder: Path | None) -> None:
    """Where neither lm-eval nor `folder` has a task. To list lm-eval's own takes it ten seconds: only if in doubt."""
    known = {one.task for one in SUITE}
    if folder is not None:
        known |= {task.get("task") for _, task in local_tasks(folder)}
    doubtful = [one.name for one in asked if one.task not in known]
    if not doubtful:
        return
    command = [
        sys.executable, "-P", "-m", "training.known_tasks", "" if folder is None else str(folder), *doubtful,
    ]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    unknown = json.loads(done.stdout) if done.returncode == 0 else []  # lm-eval's own fault is told by the benchmark
    if unknown:
        raise RecipeError(
            f"evaluate.benchmarks.tasks: neither lm-eval nor evaluate.benchmarks.include_path has {unknown[0]!r}"
        )


def local_tasks(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The tasks in `folder`, as far as they can be read without lm-eval; RecipeError for JSON that is none."""
    for path in sorted((*folder.glob("*.json"), *folder.rglob("*.yaml"))):
        try:
            text = path.read_text(encoding="utf-8")
            found = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_AnyTag)
        except yaml.YAMLError:
            continue  # lm-eval says more of its own kind
        except (OSError, ValueError) as error:
            raise RecipeError(f"evaluate.benchmarks.include_path: {path} cannot be read: {error}") from error
        if isinstance(found, dict):
            yield path, found


class _AnyTag(yaml.SafeLoader):
    """YAML in which `!function` and its like stand for nothing."""


_AnyTag.add_multi_constructor("!", lambda loader, suffix, node: None)


def _data_files(task: dict[str, Any]) -> list[str]:
    """The files in `dataset_kwargs.data_files`: a name, a list, or either for each split."""
    settings = task.get("dataset_kwargs")
    found = settings.get("data_files") if isinstance(settings, dict) else None
    values = list(found.values()) if isinstance(found, dict) else [found]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    return [name for name in names if isinstance(name, str)]
