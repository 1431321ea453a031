"""`prefstack sweep`: the flow in this process, as `prefstack run` has it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.commands import prefect_ready, summary_kept
from flows.compare import compare_text
from flows.server import RunApi
from flows.show import rendered
from flows.variations import empty_sweep, sweep_file, variations
from tasks.reports.figures import setting


def sweep_command(
    api: RunApi, recipe: str, vary: Sequence[str], overrides: Sequence[str], name: str | None, *, as_json: bool,
    debug: bool,
) -> None:  # fmt: skip
    """Run a sweep and print what came of it. What can be refused of any run is refused before the first begins."""
    wanted = variations(recipe, overrides, vary, name)
    os.environ["PREFSTACK_VERIFY"] = "0"
    with prefect_ready(api, as_json, debug):
        from flows.sweep import sweep

        path = sweep_file(recipe, name, wanted[0].recipe.work_dir)
        path.unlink(missing_ok=True)  # an older sweep of this name says nothing of this one
        try:
            with summary_kept(lambda: _written(path)):
                sweep.with_options(flow_run_name=path.stem)(
                    recipe=recipe, vary=list(vary), overrides=list(overrides), name=name or ""
                )
        finally:
            answer = _written(path)
            if answer["runs"] and not as_json:  # a failed run is no reason to hide what the others gave
                print(sweep_text(answer))
    if as_json:
        print(json.dumps(answer, ensure_ascii=False, indent=1))


def _written(path: Path) -> dict[str, Any]:
    """What the sweep had written down when it failed or was stopped."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return empty_sweep(path.stem)


def sweep_text(answer: dict[str, Any]) -> str:
    """What a person reads at the end of a sweep: what each run built and reused, then the comparison."""
    table = Table(box=SIMPLE_HEAD, title=f"sweep {answer['sweep']}", title_justify="left")
    table.add_column("run", no_wrap=True, overflow="fold")
    for column in (*answer["runs"][0]["settings"], "", "built", "reused"):
        table.add_column(column, overflow="fold")
    for run in answer["runs"]:
        built = [stage for stage, entry in run["stages"].items() if not entry["reused"]]
        reused = len(run["stages"]) - len(built)
        values = [setting(value) for value in run["settings"].values()]
        at = run["error"]["stage"] if run["error"] else None
        done = Text("failed" + (f" at {at}" if at else ""), "red") if run["error"] else "done"
        table.add_row(run["run"], *values, done, ", ".join(built) or "nothing", f"{reused} stages")
    found = answer["comparison"]
    return rendered(table) + "\n\n" + (compare_text(found) if found else "Fewer than two runs were evaluated.")
