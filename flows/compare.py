"""`prefstack compare RUN RUN...`: finished runs side by side, as a table, a page and one JSON object.

out  WORK_DIR/comparisons/NAME/   comparison.html, comparison.png, comparison.json; NAME tells the runs
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table

from flows.runs import find_run
from flows.show import rendered
from flows.summaries import stopped
from tasks.errors import RecipeError
from tasks.evaluation.side_by_side import Judged, SideBySide, side_by_side
from tasks.manifest import Manifest, digest_json
from tasks.reports.comparison_page import ANSWER, PAGE, PICTURE, write_comparison
from tasks.reports.figures import interval, percent, setting


def compare_runs(names: Sequence[str], work_dir: Path) -> dict[str, Any]:
    """Compare the runs `names` of `work_dir`, write page and picture, and give what --json prints.

    Raises RecipeError naming the run that is not there, is not finished or has no evaluation.
    """
    _, answer = compared(names, work_dir)
    return answer


def compared(names: Sequence[str], work_dir: Path) -> tuple[SideBySide, dict[str, Any]]:
    """The comparison itself beside the answer of `compare_runs`."""
    folders = [find_run(name, work_dir) for name in names]
    twice = [folder.name for place, folder in enumerate(folders) if folder in folders[:place]]
    if twice:
        raise RecipeError(f"run {twice[0]} is named twice: a run cannot be compared with itself")
    found = side_by_side([judged_run(folder) for folder in folders])
    folder = work_dir / "comparisons" / comparison_name(found.runs)
    write_comparison(found, folder)
    files = {"page": str(folder / PAGE), "plot": str(folder / PICTURE), "data": str(folder / ANSWER)}
    return found, {**found.as_json(), **files, "error": None}


def comparison_name(runs: Sequence[str]) -> str:
    """The same for the same runs in the same order."""
    return f"{runs[0][:48]}-and-{len(runs) - 1}-more-{digest_json(list(runs))[:8]}"


def judged_run(folder: Path) -> Judged:
    """The run in `folder` with its evaluation, whatever came after; RecipeError where it has none."""
    name = folder.name
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if "evaluate" not in summary["stages"]:
        if summary["error"]:
            raise RecipeError(f"run {name} has no evaluation: it {stopped(summary)}")
        last = list(summary["stages"])[-1] if summary["stages"] else "nothing"
        raise RecipeError(f"run {name} has no evaluation: it has come to {last}; run it until evaluate to compare it")
    evaluated = Manifest.read(folder / "stages" / "evaluate")
    if evaluated is None:
        raise RecipeError(f"the evaluation of run {name} is no longer in the store: run its recipe again to compare it")
    return Judged(
        name=name,
        settings=yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")),
        metrics=json.loads(evaluated.path("metrics.json").read_text(encoding="utf-8")),
        rows=pl.read_parquet(evaluated.path("rows.parquet")),
    )


def compare_text(answer: dict[str, Any]) -> str:
    """What a person reads of `compare_runs`."""
    runs = answer["runs"]
    results = Table(title="held-out pairs", box=SIMPLE_HEAD, title_justify="left")
    results.add_column("run", no_wrap=True, overflow="fold")
    for column in runs[0]["settings"]:
        results.add_column(column, overflow="fold")
    for column in ("accuracy (95 % interval)", "at equal length", "longer answer", "margin", "loss", "pairs"):
        results.add_column(column, justify="right")
    for run in runs:
        found = run["metrics"]
        results.add_row(
            run["name"], *(setting(value) for value in run["settings"].values()),
            f"{percent(found['accuracy'])} ({interval(found['accuracy_low'], found['accuracy_high'])})",
            percent(found["length_controlled_accuracy"]), percent(found["length_baseline_accuracy"]),
            f"{found['margin']:.3f}", f"{found['loss']:.4f}", f"{found['pairs']:,}",
        )  # fmt: skip
    parts = [results]
    if answer["paired"] is not None:
        parts.append(_paired_table(answer["paired"]))
    notes = "".join(f"note    {note}\n" for note in answer["notes"])
    return f"{rendered(*parts)}\n\n{notes}page    {answer['page']}"  # a path is not broken into lines


def _paired_table(paired: dict[str, Any]) -> Table:
    against = paired["versus"][0]["against"]
    title = f"against {against}, on {paired['pairs']:,} shared pairs of {paired['questions']:,} questions"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    table.add_column("run", no_wrap=True, overflow="fold")
    for column in ("accuracy, points", "95 % interval", "right alone", "other alone", "p", "adjusted p"):
        table.add_column(column, justify="right")
    for one in paired["versus"]:
        gain = one["accuracy"]
        ends = "–" if gain["low"] is None else f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}"
        table.add_row(
            one["name"], f"{100 * gain['value']:+.1f}", ends, str(one["only_this"]), str(one["only_other"]),
            f"{one['p']:.3g}", f"{one['p_adjusted']:.3g}",
        )  # fmt: skip
    return table
