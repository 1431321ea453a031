"""`prefstack plan`: what would run, what is reused, what is missing, and what it takes; starts nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.needs import needs_of, needs_text
from flows.plain import plain_steps
from flows.prerequisites import unmet
from flows.recipe import load_recipe
from flows.runs import store_of
from flows.show import rendered
from flows.stages import all_stages
from tasks.manifest import Manifest


def plan_recipe(recipe: str, overrides: Sequence[str], force: Sequence[str]) -> dict[str, Any]:
    """One entry a stage: reused, or would run; with what is not to be found here, and what the run would end for."""
    settings = load_recipe(recipe, overrides)
    store = replace(store_of(settings, "", force), plan=True)
    stages: dict[str, Any] = {}
    built: dict[str, Manifest] = {}
    for stage, manifests in all_stages(plain_steps(), store, settings):
        missing = [str(found.provenance["missing"]) for found in manifests if "missing" in found.provenance]
        reused = all(not found.planned for found in manifests)
        stages[stage] = {
            "reused": reused,
            "folder": str(manifests[0].folder) if reused and len(manifests) == 1 else None,
            "missing": missing,
        }
        if reused and len(manifests) == 1:
            built[stage] = manifests[0]
    prerequisites = [
        {"stage": one.stage, "kind": one.error.kind, "status": one.error.status, "message": str(one.error)}
        for one in unmet(store, settings)
    ]
    return {
        "recipe": recipe, "stages": stages, "needs": needs_of(settings, built), "prerequisites": prerequisites,
        "error": None,
    }  # fmt: skip


def plan_text(answer: dict[str, Any]) -> str:
    """What a person reads of a plan."""
    table = Table(box=SIMPLE_HEAD, title=f"plan of {answer['recipe']}", title_justify="left")
    table.add_column("stage")
    table.add_column("")
    table.add_column("folder or what is missing", overflow="fold")
    for stage, entry in answer["stages"].items():
        state = Text("reused", "green") if entry["reused"] else "would run"
        table.add_row(stage, state, "; ".join(entry["missing"]) or entry["folder"] or "")
    if all(entry["reused"] for entry in answer["stages"].values()):
        return rendered(table, "nothing would run: every stage is reused")
    return rendered(table, *_prerequisites(answer["prerequisites"]), *needs_text(answer["needs"]))


def _prerequisites(missing: Sequence[dict[str, Any]]) -> list[Table]:
    """What `run` would refuse to begin without; nothing where it has all."""
    if not missing:
        return []
    table = Table(box=SIMPLE_HEAD, title="missing on this host: run would end at once", title_justify="left")
    table.add_column("stage")
    table.add_column("what it needs", overflow="fold")
    for one in missing:
        table.add_row(one["stage"], one["message"])
    return [table]
