"""What happens after a deployed run was cancelled or has crashed, when its own process can do nothing any more.

Prefect calls a hook with `flow`, `flow_run` and `state`, by these names, mostly in a process of its own that has
imported the flow afresh: everything is found again from the run's parameters.
"""

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.recipe import load_recipe
from flows.summaries import empty_summary
from flows.variations import empty_sweep, sweep_file
from tasks.folders import write_text
from tasks.scores.orphans import end_orphans

if TYPE_CHECKING:
    from prefect import Flow, State
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger("prefstack")


def write_cancelled(flow: "Flow[..., Any]", flow_run: "FlowRun", state: "State[Any]") -> None:
    """Say in the run's summary that it was cancelled, and see that none of its ranks is left."""
    _finish(flow_run, "interrupted", 130, state.message or "cancelled")


def write_crashed(flow: "Flow[..., Any]", flow_run: "FlowRun", state: "State[Any]") -> None:
    """Say in the run's summary that its process ended without a word, and see that none of its ranks is left."""
    _finish(flow_run, "crashed", 1, state.message or "crashed")


def _finish(flow_run: "FlowRun", kind: str, status: int, message: str) -> None:
    ended = end_orphans("PREFECT__FLOW_RUN_ID", str(flow_run.id))
    if ended:
        message += f"; ended processes that were left: {', '.join(map(str, ended))}"
    with suppress(Exception):  # a hook that fails would be reported in place of what it is about
        path = summary_file(flow_run.parameters, flow_run.name)
        summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else _empty(flow_run.parameters, path)
        if path.parent.is_dir():
            summary["error"] = {"status": status, "stage": None, "kind": kind, "message": message}
            write_text(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def _empty(parameters: dict[str, Any], path: Path) -> dict[str, Any]:
    return empty_sweep(path.stem) if "vary" in parameters else empty_summary(path.parent.name)


def summary_file(parameters: dict[str, Any], flow_run_name: str) -> Path:
    """Where the run, or the sweep, that was started with these parameters is written down."""
    if "vary" in parameters:
        recipe = parameters.get("recipe", "demo")
        settings = load_recipe(recipe, parameters.get("overrides", []))
        return sweep_file(recipe, parameters.get("name"), settings.work_dir)
    return run_folder(parameters, flow_run_name) / "summary.json"


def run_folder(parameters: dict[str, Any], flow_run_name: str) -> Path:
    """The folder of the run that was started with these parameters."""
    settings = load_recipe(parameters.get("recipe", "demo"), parameters.get("overrides", []))
    return settings.work_dir.absolute() / "runs" / (parameters.get("name") or flow_run_name)
