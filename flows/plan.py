"""`prefstack plan`: what would run, what is reused, what is missing; starts nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from flows.recipe import Recipe, load_recipe
from flows.runs import store_of
from flows.show import rendered
from flows.stages import all_stages, plain_steps


def plan_recipe(recipe: str, overrides: Sequence[str], force: Sequence[str]) -> dict[str, Any]:
    """One entry a stage: reused, or would run; with what is not to be found here."""
    settings = load_recipe(recipe, overrides)
    store = replace(store_of(settings, "", force), plan=True)
    stages: dict[str, Any] = {}
    for stage, manifests in all_stages(plain_steps(), store, settings):
        missing = [str(found.provenance["missing"]) for found in manifests if "missing" in found.provenance]
        reused = all(not found.planned for found in manifests)
        stages[stage] = {
            "reused": reused,
            "folder": str(manifests[0].folder) if reused and len(manifests) == 1 else None,
            "missing": missing,
        }
    return {"recipe": recipe, "stages": stages, "needs": needs(settings), "error": None}


def needs(recipe: Recipe) -> dict[str, Any]:
    """What the training takes, as far as the recipe alone tells it."""
    train = recipe.train
    size = recipe.sample.size
    steps = None if size is None else size // train.batch_size * train.epochs
    return {"ranks": train.ranks, "zero_stage": train.zero_stage, "precision": train.precision, "steps": steps}


def plan_text(answer: dict[str, Any]) -> str:
    """What a person reads of a plan."""
    table = Table(box=SIMPLE_HEAD, title=f"plan of {answer['recipe']}", title_justify="left")
    table.add_column("stage")
    table.add_column("")
    table.add_column("folder or what is missing", overflow="fold")
    for stage, entry in answer["stages"].items():
        state = "[green]reused[/]" if entry["reused"] else "would run"
        table.add_row(stage, state, "; ".join(entry["missing"]) or entry["folder"] or "")
    need = answer["needs"]
    steps = "as many steps as the pairs give" if need["steps"] is None else f"{need['steps']:,} optimizer steps"
    text = f"training: {steps} on {need['ranks']} ranks, ZeRO {need['zero_stage']}, {need['precision']}"
    return rendered(table, text)
