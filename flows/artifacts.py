"""What the Prefect UI shows of each stage: counts, gates, curves, results, lineage.

Keys are the same in every run, so that the UI shows a history.
"""

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prefect.artifacts import create_image_artifact, create_markdown_artifact

from data_checks.check import Check
from flows.artifact_tables import counts_table, gate_table, lineage_table, metrics_table, publish_table
from flows.device_time import cost_table, device_time
from flows.files import url_of
from flows.prefect_api import asking
from flows.run_pages import write_gate, write_lineage
from flows.summaries import one_line
from tasks.evaluation.side_by_side import SideBySide
from tasks.gate import stored_result
from tasks.manifest import Manifest
from tasks.publication.model_card import further_markdown
from tasks.reports.comparison_page import markdown
from tasks.reports.further_tables import further_tables
from tasks.store import Store

PLOTS: Final = ("accuracy", "margins", "calibration")
TIMES: Final = 4
"""How often a server that does not answer is asked: some 14 s, within which `prefstack up` has started one anew. An
artifact less is a line in the log; a stage that waits out each of them would hold up all that come after."""
logger = logging.getLogger("prefstack")


@asking(TIMES)
def publish_stage(stage: str, manifest: Manifest, run_folder: Path) -> None:
    """The artifacts of a finished stage. A server that refuses them does not fail the stage: it is said in the log."""
    try:
        said = f"{stage}: what came in, what went out, what was dropped and why"
        if "built_again" in manifest.provenance and not manifest.reused:
            said += f" (built again: {manifest.provenance['built_again']})"
        publish_table(f"{stage.replace('_', '-')}-counts", counts_table(manifest), said, run_folder)
        if stage == "card":
            _publish_data_card(manifest)
        if stage == "train":
            curves = training_curves(manifest.path("metrics.jsonl"))
            links = linked({"every step": manifest.path("metrics.jsonl"), "log": run_folder / "train.log"})
            _markdown("train-curves", f"{curves}\n\n{links}", "Training, step by step")
        if stage == "evaluate":
            metrics = json.loads(manifest.path("metrics.json").read_text(encoding="utf-8"))
            publish_table("evaluate-report", metrics_table(metrics), "The tuned model on held-out pairs", run_folder)
            for name in PLOTS:
                _image(f"evaluate-{name}", manifest.path(f"plots/{name}.png"), f"Held-out pairs: {name}")
        if stage == "results":
            metrics = json.loads(manifest.path("metrics.json").read_text(encoding="utf-8"))
            for further in further_tables(metrics):
                _markdown(f"evaluate-{further.anchor}", further_markdown(further), further.title)
        if stage == "publish":
            _publish_model(manifest, run_folder)
    except Exception as error:
        logger.warning("%-9s its artifacts could not be published: %s", stage, one_line(error))


def _publish_data_card(manifest: Manifest) -> None:
    """The card with its plots, where a browser can fetch them; a picture of its own each, too."""
    card = manifest.path("data_card.md").read_text(encoding="utf-8")
    pages = linked({"data card": manifest.path("data_card.md"), "attribution": manifest.path("attribution.csv")})
    for plot in sorted(manifest.path("plots").glob("*.png")):
        _image(f"data-{plot.stem}", plot, f"Training pairs: {plot.stem.replace('_', ' ')}")
    text = with_addresses(card, manifest.folder)
    _markdown("data-card", f"{pages}\n\n{text}".lstrip(), "What the training pairs are")


def _publish_model(manifest: Manifest, run_folder: Path) -> None:
    card = manifest.path("model/README.md").read_text(encoding="utf-8")
    pages = linked({
        "report": manifest.path("report.html"), "model folder": manifest.path("model"),
        "data card": manifest.path("data_card.md"), "attribution": manifest.path("attribution.csv"),
        "run": run_folder,
    })  # fmt: skip
    text = with_addresses(without_front_matter(card), manifest.path("model"))
    _markdown("model-card", f"{pages}\n\n{text}".lstrip(), "The model card")
    lineage = json.loads(manifest.path("lineage.json").read_text(encoding="utf-8"))
    publish_table("run-lineage", lineage_table(lineage), "From the dump's checksum to the weights", run_folder)
    if run_folder.is_dir():
        _image("run-lineage-picture", write_lineage(lineage, run_folder), "From the dump's checksum to the weights")


@asking(TIMES)
def publish_gate(name: str, store: Store, subject: Manifest, check: Check) -> None:
    """The expectations of a gate, what each saw, and whether it held."""
    try:
        result = stored_result(store, subject, check)
        said = f"What {name} rows must be, and what was seen"
        run_folder = store.work_dir / "runs" / store.run
        if store.run and run_folder.is_dir():
            page = url_of(write_gate(name, subject.folder.name, result, run_folder))
            said += f" ([as a page]({page}))" if page else ""
        publish_table(f"gate-{name}", gate_table(result), said, run_folder)
    except Exception as error:
        logger.warning("%-9s the artifact of its gate could not be published: %s", name, one_line(error))


@asking(TIMES)
def publish_comparison(found: SideBySide, answer: Mapping[str, Any]) -> None:
    """The comparison of several runs: its tables, and its picture where it is served."""
    try:
        pages = linked({"page": Path(answer["page"]), "numbers": Path(answer["data"])})
        _markdown("comparison", f"{pages}\n\n{markdown(found)}".lstrip(), f"{len(found.runs)} runs side by side")
        _image("comparison-picture", Path(answer["plot"]), f"{len(found.runs)} runs side by side")
    except Exception as error:
        logger.warning("%-9s the artifact of the comparison could not be published: %s", "sweep", one_line(error))


@asking(TIMES)
def publish_cost(run_folder: Path, price: float | None) -> None:
    """How long the run has held devices, its lost attempts too, and what that costs. Nothing where it has held none."""
    try:
        rows = cost_table(device_time(run_folder), price)
        if rows:
            said = "Device-seconds of every attempt" + ("" if price is None else f", at {price:g} a device and hour")
            publish_table("run-cost", rows, said, run_folder)
    except Exception as error:
        logger.warning("%-9s what the devices cost could not be published: %s", "run", one_line(error))


def linked(pages: Mapping[str, Path]) -> str:
    """Links to what is there and served (`prefstack up` does); the empty string where nothing is."""
    found = {name: url_of(path) for name, path in pages.items() if path.exists()}
    return " · ".join(f"[{name}]({url})" for name, url in found.items() if url)


def training_curves(path: Path) -> str:
    """The course of training as a table with bars that every browser draws."""
    whole = path.read_text(encoding="utf-8").split("\n")[:-1]  # what stands behind the last line's end is being written
    steps = [json.loads(line) for line in whole if line]
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


def with_addresses(card: str, folder: Path) -> str:
    """A card whose links and pictures of files in its folder open elsewhere; pictures that are not served are left out.

    The UI would look for them among its own pages.
    """

    def addressed(found: re.Match[str]) -> str:
        picture, words, name = found.groups()
        path = folder / name
        if ".." in path.parts or not path.is_file():
            return "" if picture else found[0]
        url = url_of(path)
        if url is None:
            return "" if picture else words
        return f"{picture}[{words}]({url})"

    return re.sub(r"(!?)\[([^\]\n]*)\]\((\w[\w./-]*)\)", addressed, card)


def _image(key: str, path: Path, description: str) -> None:
    """A picture that the browser fetches itself: nothing where no server for it is known."""
    url = url_of(path) if path.exists() else None
    if url is not None:
        create_image_artifact(image_url=url, key=key.replace("_", "-"), description=description)


def _markdown(key: str, text: str, description: str) -> None:
    create_markdown_artifact(text, key=key, description=description)
