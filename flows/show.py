"""`prefstack show`: lineage, counts and metrics of a finished run or stage folder."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from flows.runs import brief, find_run
from flows.summaries import stopped
from tasks.errors import RecipeError
from tasks.manifest import Manifest
from tasks.reports.further_tables import FurtherTable, further_tables


def show_target(target: str, work_dir: Path) -> dict[str, Any]:
    """The summary of a run, or the manifest of a stage folder with the lineage behind it."""
    folder = Path(target)
    manifest = Manifest.read(folder)
    if manifest is not None:
        return {"folder": str(folder.absolute()), **manifest.model_dump(mode="json"), "lineage": lineage_of(manifest)}
    if folder.is_dir() and (folder / "summary.json").is_file():
        found = folder
    elif folder.is_dir():
        raise RecipeError(
            f"{folder} is neither a run nor a finished stage: it has no summary.json and no manifest.json"
        )
    else:
        found = find_run(target, work_dir)
    summary: dict[str, Any] = json.loads((found / "summary.json").read_text(encoding="utf-8"))
    return summary


def lineage_of(manifest: Manifest) -> list[dict[str, Any]]:
    """The finished stages beside `manifest` that it was made of, nearest first."""
    by_fingerprint = {}
    for folder in manifest.folder.absolute().parent.glob("*-*"):
        beside = Manifest.read(folder)
        if beside is not None:
            by_fingerprint[beside.fingerprint] = beside
    seen: list[Manifest] = []
    ahead = [manifest]
    while ahead:
        for record in ahead.pop(0).inputs.values():
            made_of = by_fingerprint.get(record.fingerprint)
            if made_of is not None and made_of not in seen:
                seen.append(made_of)
                ahead.append(made_of)
    return [
        {
            "stage": found.stage, "folder": str(found.folder), "fingerprint": found.fingerprint,
            "counts": found.counts, "source": found.provenance.get("source"),
        }
        for found in seen
    ]  # fmt: skip


def show_text(answer: dict[str, Any]) -> str:
    """What a person reads of `show_target`."""
    if "stages" in answer:
        return run_text(answer, None)
    table = Table(title=f"{answer['stage']}-{answer['fingerprint']}", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("count")
    table.add_column("rows", justify="right")
    for name, count in answer["counts"].items():
        table.add_row(name, f"{count:,}")
    files = Table(title="files", box=SIMPLE_HEAD, title_justify="left")
    files.add_column("file")
    files.add_column("bytes", justify="right")
    files.add_column("sha256")
    for name, stored in answer["files"].items():
        files.add_row(name, f"{stored['size']:,}", stored["sha256"][:16] + "…")
    lineage = Table(title="made of", box=SIMPLE_HEAD, title_justify="left")
    lineage.add_column("stage")
    lineage.add_column("folder")
    lineage.add_column("source")
    for entry in answer["lineage"]:
        source = entry["source"] or {}
        lineage.add_row(
            entry["stage"], entry["folder"], f"{source.get('path', '')} {source.get('sha256', '')[:16]}".strip()
        )
    return rendered(table, files, lineage)


def run_text(summary: dict[str, Any], work_dir: Path | None) -> str:
    """What a person reads at the end of a run."""
    table = Table(box=SIMPLE_HEAD, title=f"run {summary['run']}", title_justify="left")
    table.add_column("stage")
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("counts")
    table.add_column("folder")
    for stage, entry in summary["stages"].items():
        state = Text("reused", "green") if entry["reused"] else "built"
        folder = Path(entry["folder"]).name if entry["folder"] else f"{len(entry['sources'])} sources"
        table.add_row(stage, state, f"{entry['seconds']:.1f}", brief(entry["counts"]), folder)
    parts: list[RenderableType] = [table]
    metrics = summary["metrics"]
    if metrics and metrics.get("accuracy") is not None:
        parts.append(results_table(metrics))
    for further in further_tables(metrics or {}):
        parts += further_parts(further)
    for check, reason in summary.get("waived", {}).items():
        parts.append(Text.assemble(("waived", "yellow"), f" {check}: {reason}"))
    if summary["model"] and Path(summary["model"]).is_dir():
        parts.append(f"model   {summary['model']}\nreport  {Path(summary['model']).parent / 'report.html'}")
    elif summary["model"]:
        parts.append(f"model   {summary['model']} is no longer there: run its recipe again to have it")
    if summary["error"]:
        parts.append(Text.assemble(("stopped", "red"), stopped(summary).removeprefix("stopped")))
    return rendered(*parts)


def results_table(metrics: dict[str, Any]) -> Table:
    """Held-out accuracy beside what it must beat."""
    table = Table(box=SIMPLE_HEAD, title="held-out pairs", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    interval = f"{metrics['accuracy_low']:.3f} to {metrics['accuracy_high']:.3f}"
    table.add_row("accuracy (implicit reward, ties wrong)", f"{metrics['accuracy']:.3f}", interval)
    table.add_row("always the longer answer", f"{metrics['length_baseline_accuracy']:.3f}", "")
    table.add_row("margin (beta × difference of log-ratios)", f"{metrics['margin']:.3f}", "")
    table.add_row("loss (ln 2 = 0.693 before training)", f"{metrics['loss']:.4f}", "")
    return table


def further_parts(further: FurtherTable) -> list[RenderableType]:
    """What else the models were asked: a table or the reason why there is none, and what should give pause."""
    parts: list[RenderableType] = []
    for head, rows in further.parts:
        table = Table(box=SIMPLE_HEAD, title=further.title.lower(), title_justify="left")
        for place, name in enumerate(head):
            table.add_column(name, justify="right" if place else "left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        parts.append(table)
    if not further.parts:
        parts.append(Text(further.remark))
    return parts + [Text(f"note: {warning}", style="yellow") for warning in further.warnings]


def rendered(*parts: RenderableType) -> str:
    """Tables as text, in colour where standard output is a terminal.

    No text is markup: names of authors, files and settings may hold brackets. What has a colour is a rich.text.Text.
    """
    out = StringIO()
    real = Console()
    width = max(real.width, 100)
    console = Console(
        file=out, force_terminal=real.is_terminal, width=width, highlight=False, markup=False, emoji=False
    )
    for part in parts:
        console.print(part)
    return out.getvalue().rstrip()
