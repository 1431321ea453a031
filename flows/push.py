"""`prefstack push RUN REPO`: the model of a finished run to a hub. Nothing else ever pushes."""

import json
from pathlib import Path
from typing import Any

from flows.runs import find_run
from flows.summaries import stopped
from tasks.errors import RecipeError
from tasks.manifest import Manifest
from tasks.publication.hub_push import push


def push_run(run: str, repo: str, work_dir: Path, *, private: bool) -> dict[str, Any]:
    """Push what the run has published; RecipeError where it has published nothing."""
    folder = find_run(run, work_dir)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if "publish" not in summary["stages"]:
        said = f": it {stopped(summary)}" if summary["error"] else ""
        raise RecipeError(f"run {folder.name} has published no model{said}; run its recipe to the end before pushing")
    published = Manifest.read(folder / "stages" / "publish")
    if published is None:
        raise RecipeError(f"the model of run {folder.name} is no longer in the store: run its recipe again to push it")
    return {"run": folder.name, **push(published, repo, private=private), "error": None}


def push_text(answer: dict[str, Any]) -> str:
    """What a person reads of `push_run`."""
    size = answer["bytes"] / 1e6
    return (
        f"pushed  {len(answer['files'])} files, {size:,.1f} MB, as commit {answer['commit']}\nmodel   {answer['url']}"
    )
