"""`prefstack push RUN REPO`: the model of a finished run to a hub. Nothing else ever pushes."""

import json
from pathlib import Path
from typing import Any

from flows.runs import find_run
from tasks.errors import RecipeError
from tasks.manifest import Manifest
from tasks.publication.hub_push import push


def push_run(run: str, repo: str, work_dir: Path, *, private: bool) -> dict[str, Any]:
    """Push what the run has published; RecipeError where it has published nothing."""
    folder = find_run(run, work_dir)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    published = Manifest.read(folder / "stages" / "publish") if "publish" in summary["stages"] else None
    if published is None:
        said = f": it stopped at {summary['error']['stage']}" if summary["error"] else ""
        raise RecipeError(f"run {folder.name} has published no model{said}; run its recipe to the end before pushing")
    return {"run": folder.name, **push(published, repo, private=private), "error": None}


def push_text(answer: dict[str, Any]) -> str:
    """What a person reads of `push_run`."""
    size = answer["bytes"] / 1e6
    return (
        f"pushed  {len(answer['files'])} files, {size:,.1f} MB, as commit {answer['commit']}\nmodel   {answer['url']}"
    )
