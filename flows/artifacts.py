"""What the Prefect UI shows of each stage: counts, the funnel, gates, curves, results, lineage.

Keys are the same in every run, so that the UI shows a history. Tables are lists of records that JSON can hold, at most
1,000 rows: the UI loads all of them.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from data_checks.check import Check
from flows.files import url_of
from flows.run_pages import write_gate, write_lineage
from tasks.comparison_page import markdown
from tasks.further_tables import further_tables
from tasks.gate import stored_result
from tasks.manifest import Manifest
from tasks.model_card import further_markdown
from tasks.side_by_side import SideBySide
from tasks.store import Store

MAX_ROWS: Final = 1000
PLOTS: Final = ("accuracy", "margins", "calibration")
logger = logging.getLogger("prefstack")

Record = dict[str, Any]


def publish_stage(stage: str, manifest: Manifest, run_folder: Path) -> None:
    """The artifacts of a finished stage. A server that refuses them does not fail the stage: it is said in the log."""
    try:
        _table(
            f"{stage}-counts", counts_table(manifest), f"{stage}: what came in, what went out, what was dropped and why"
        )
        if stage == "card":
            _publish_data_card(manifest)
        if stage == "train":
            curves = training_curves(manifest.path("metrics.jsonl"))
            links = linked({"every step": manifest.path("metrics.jsonl"), "log": run_folder / "train.log"})
            _markdown("train-curves", f"{curves}\n\n{links}", "Training, step by step")
        if stage == "evaluate":
            metrics = json.loads(manifest.path("metrics.json").read_text(encoding="utf-8"))
            _table("evaluate-report", metrics_table(metrics), "The tuned model on held-out pairs")
            for name in PLOTS:
                _image(f"evaluate-{name}", manifest.path(f"plots/{name}.png"), f"Held-out pairs: {name}")
        if stage == "results":
            metrics = json.loads(manifest.path("metrics.json").read_text(encoding="utf-8"))
            for further in further_tables(metrics):
                _markdown(f"evaluate-{further.anchor}", further_markdown(further), further.title)
        if stage == "publish":
            _publish_model(manifest, run_folder)
    except Exception as error:
        logger.warning("%-9s its artifacts could not be published: %s", stage, error)


def _publish_data_card(manifest: Manifest) -> None:
    """The card with its plots, where a browser can fetch them; a picture of its own each, too."""
    card = manifest.path("data_card.md").read_text(encoding="utf-8")
    pages = linked({"data card": manifest.path("data_card.md"), "attribution": manifest.path("attribution.csv")})
    for plot in sorted(manifest.path("plots").glob("*.png")):
        card = card.replace(f"](plots/{plot.name})", f"]({url_of(plot) or ''})")
        _image(f"data-{plot.stem}", plot, f"Training pairs: {plot.stem.replace('_', ' ')}")
    _markdown("data-card", f"{pages}\n\n{card}".lstrip(), "What the training pairs are")


def _publish_model(manifest: Manifest, run_folder: Path) -> None:
    card = manifest.path("model/README.md").read_text(encoding="utf-8")
    pages = linked({
        "report": manifest.path("report.html"), "model folder": manifest.path("model"),
        "data card": manifest.path("data_card.md"), "attribution": manifest.path("attribution.csv"),
        "run": run_folder,
    })  # fmt: skip
    _markdown("model-card", f"{pages}\n\n{without_front_matter(card)}".lstrip(), "The model card")
    lineage = json.loads(manifest.path("lineage.json").read_text(encoding="utf-8"))
    _table("run-lineage", lineage_table(lineage), "From the dump's checksum to the weights")
    if run_folder.is_dir():
        _image("run-lineage-picture", write_lineage(lineage, run_folder), "From the dump's checksum to the weights")


def publish_gate(name: str, store: Store, subject: Manifest, check: Check) -> None:
    """The expectations of a gate, what each saw, and whether it held."""
    try:
        result = stored_result(store, subject, check)
        said = f"What {name} rows must be, and what was seen"
        run_folder = store.work_dir / "runs" / store.run
        if store.run and run_folder.is_dir():
            page = url_of(write_gate(name, subject.folder.name, result, run_folder))
            said += f" ([as a page]({page}))" if page else ""
        _table(f"gate-{name}", gate_table(result), said)
    except Exception as error:
        logger.warning("%-9s the artifact of its gate could not be published: %s", name, error)


def publish_comparison(found: SideBySide, answer: Mapping[str, Any]) -> None:
    """The comparison of several runs: its tables, and its picture where it is served."""
    try:
        pages = linked({"page": Path(answer["page"]), "numbers": Path(answer["data"])})
        _markdown("comparison", f"{pages}\n\n{markdown(found)}".lstrip(), f"{len(found.runs)} runs side by side")
        _image("comparison-picture", Path(answer["plot"]), f"{len(found.runs)} runs side by side")
    except Exception as error:
        logger.warning("%-9s the artifact of the comparison could not be published: %s", "sweep", error)


def linked(pages: Mapping[str, Path]) -> str:
    """Links to what is there and served (`prefstack up` does); the empty string where nothing is."""
    found = {name: url_of(path) for name, path in pages.items() if path.exists()}
    return " · ".join(f"[{name}]({url})" for name, url in found.items() if url)


def counts_table(manifest: Manifest) -> list[Record]:
    """One record a count, dropped rows with their share of what came in."""
    whole = max(manifest.counts.values(), default=0)
    return [
        {"count": name, "rows": count, "share": f"{count / whole:.1%}" if whole else ""}
        for name, count in manifest.counts.items()
    ] or [{"count": "none", "rows": 0, "share": ""}]


def funnel_table(stages: Mapping[str, Mapping[str, int]]) -> list[Record]:
    """Every count of every stage, in order: how the posts became a sample."""
    return [
        {"stage": stage, "count": name, "rows": count}
        for stage, counts in stages.items()
        for name, count in counts.items()
    ]


def metrics_table(metrics: Mapping[str, Any]) -> list[Record]:
    """The single numbers among the metrics."""
    return [
        {"metric": name, "value": round(value, 4) if isinstance(value, float) else value}
        for name, value in metrics.items()
        if isinstance(value, int | float | str | None) and not isinstance(value, bool)
    ]


def lineage_table(lineage: Mapping[str, Any]) -> list[Record]:
    """One record a stage: what it is called and what it was made of."""
    stages: Iterable[Any] = lineage.get("stages", [])
    if isinstance(stages, Mapping):
        stages = [{"stage": name, **entry} for name, entry in stages.items()]
    return [
        {
            "stage": entry.get("stage"),
            "fingerprint": entry.get("fingerprint"),
            "made of": ", ".join(sorted(entry.get("inputs", {}))),
            "content": str(entry.get("content", ""))[:16],
        }
        for entry in stages
    ]


def training_curves(path: Path) -> str:
    """The course of training as a table with bars that every browser draws."""
    steps = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    if not steps:
        return "No step was made."
    shown = steps[:: max(1, math.ceil(len(steps) / 40))]
    lines = ["| step | loss | accuracy | margin | learning rate |", "|---:|:---|:---|---:|---:|"]
    top = max(step["loss"] for step in steps) or 1.0
    for step in shown:
        lines.append(
            f"| {step['step']} | {bar(step['loss'] / top)} {step['loss']:.4f} "
            f"| {bar(step['rewards/accuracies'])} {step['rewards/accuracies']:.2f} "
            f"| {step['rewards/margins']:.3f} | {step['learning_rate']:.2e} |"
        )
    return "\n".join(lines)


def bar(share: float, width: int = 12) -> str:
    """A bar of block characters, `share` of `width` long."""
    filled = round(max(0.0, min(1.0, share)) * width) if math.isfinite(share) else 0
    return "█" * filled + "░" * (width - filled)


def without_front_matter(card: str) -> str:
    """A card without the metadata block that hubs read."""
    if card.startswith("---\n"):
        _, _, rest = card[4:].partition("\n---\n")
        return rest.lstrip("\n")
    return card


def clean(value: Any) -> Any:
    """`value` as JSON can hold it: no NaN, no infinities, no dates, no numpy scalars."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    try:
        return clean(value.item())
    except (AttributeError, ValueError):
        return str(value)


def _table(key: str, rows: Sequence[Record], description: str) -> None:
    shown = [clean(row) for row in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        description += f" (the first {MAX_ROWS:,} of {len(rows):,} rows)"
    create_table_artifact(shown, key=key, description=description)


def _image(key: str, path: Path, description: str) -> None:
    """A picture that the browser fetches itself: nothing where no server for it is known."""
    url = url_of(path) if path.exists() else None
    if url is not None:
        create_image_artifact(image_url=url, key=key.replace("_", "-"), description=description)


def _markdown(key: str, text: str, description: str) -> None:
    create_markdown_artifact(text, key=key, description=description)


def gate_table(result: Mapping[str, Any]) -> list[Record]:
    """One record an expectation: what it is about, how grave it is, whether it held, what was seen."""
    return [
        {
            "held": "yes" if entry["success"] else "NO",
            "expectation": entry["expectation"],
            "column": entry.get("column") or "",
            "severity": entry["severity"],
            "seen": str(entry.get("seen", "")),
            "examples": ", ".join(str(example) for example in entry.get("examples", [])[:5]),
        }
        for entry in result["expectations"]
    ]
