"""Publish: everything -> a model folder with its card, attribution and lineage.

out  model/              safetensors, tokenizer, chat template, README.md (the card) and its plot
     data_card.md        what the training pairs are; its plots in plots/
     attribution.csv     one row a post used
     lineage.json        every stage, from the dump's checksum to the weights
     train_pair_ids.txt
     report.html         all of it on one page
     pairs/              train and held-out pairs for other trainers (tasks/publication/pair_export.py)
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
from pydantic import Field

from tasks.config import StageConfig
from tasks.folders import write_text
from tasks.manifest import Manifest
from tasks.publication.attribution import write_attribution
from tasks.publication.data_card import data_card
from tasks.publication.lineage import in_order, portable, source_facts
from tasks.publication.model_card import PICTURE, model_card
from tasks.publication.model_folder import check_model_folder
from tasks.publication.pair_export import export_pairs
from tasks.reports.report import report
from tasks.reports.story import Story, gather
from tasks.reports.story_plots import draw_data, draw_training
from tasks.store import Store, Workspace

VERSION = 5  # bump when the bytes this stage writes would change
UNSTATED: Final = "other"  # what hubs call a licence that they have no name for


class PublishConfig(StageConfig):
    """What the model is called and how it is licensed."""

    name: str = Field("tulu-v2.5-dpo-13b-stackexchange-60k", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    """Name of the model in its card."""
    license: str | None = None
    """Licence of the weights; null = the one that the start model's card states, or `other` where it states none. The
    data's CC BY-SA is named beside it."""
    require_better: bool = False
    """Whether a model that is not shown to be better than its start is refused (data_checks/better.py says how)."""
    waiver: str | None = Field(None, pattern=r"\S")
    """Why the model is published although `require_better` may refuse it; stands in the card and in the report."""
    pairs: bool = True
    """Whether the pairs are published too, as texts, in the form that TRL reads; about the size of the sample."""


def publish(
    store: Store, stages: Mapping[str, Manifest], sources: Sequence[Manifest], config: PublishConfig,
    recipe: Mapping[str, Any],
) -> Manifest:  # fmt: skip
    """The model folder. `stages` has every earlier stage by name; `recipe` is the whole recipe, for the card."""
    shown = portable(recipe)
    start_license = source_facts(stages["model"]).get("license")
    license = config.license or start_license or UNSTATED

    def build(work: Workspace) -> dict[str, int]:
        story = gather(stages, sources, config.name, license, shown, waiver=config.waiver)
        plots = work.folder / "plots"
        draw_data(plots, story.summary)
        data_plots = sorted(plots.glob("*.png"))
        write_text(work.folder / "data_card.md", data_card(story, [f"plots/{path.name}" for path in data_plots]))
        draw_training(plots, story.training)
        judged = sorted(stages["evaluate"].path("plots").glob("*.png"))
        write_text(work.folder / "report.html", report(story, [*judged, *sorted(plots.glob("*.png"))]))
        write_attribution(story.posts, work.folder / "attribution.csv")
        write_text(work.folder / "lineage.json", json.dumps(story.lineage, indent=1, ensure_ascii=False) + "\n")
        write_text(work.folder / "train_pair_ids.txt", "".join(f"{pair_id}\n" for pair_id in story.train_ids))
        if config.pairs:
            export_pairs(_splits(stages, story), config.name, work.folder / "pairs")
        take_over(stages["train"].path("model"), work.folder / "model")
        rows, pairs = stages["tokenize"].path("train"), stages["sample"].path("train.parquet")
        if not check_model_folder(work.folder / "model", rows, pairs):
            work.message("no training pair could be compared with what the chat template renders: all are cut")
        picture = stages["evaluate"].path("plots") / PICTURE
        if picture.exists():
            shutil.copyfile(picture, work.folder / "model" / PICTURE)
        write_text(work.folder / "model" / "README.md", model_card(story, picture=picture.exists()))
        return {
            "pairs": story.summary.pairs, "questions": story.summary.questions, "posts": story.posts.height,
            "files": len(list((work.folder / "model").iterdir())),
        }  # fmt: skip

    inputs = {**stages, **{f"source.{place}": source for place, source in enumerate(in_order(sources))}}
    return store.stage("publish", VERSION, config.identity() | {"recipe": shown, "license": license}, inputs, build)


def _splits(stages: Mapping[str, Manifest], story: Story) -> dict[str, tuple[Path, pl.Series]]:
    """Where the pairs of each split are, and which of them became token rows that were used."""
    judged = stages.get("unseen", stages["sample"])
    rows = pl.scan_parquet(stages["evaluate"].path("rows.parquet")).select("pair_id").collect()
    return {
        "train": (stages["sample"].path("train.parquet"), pl.Series("pair_id", story.train_ids, dtype=pl.String)),
        "held_out": (judged.path("held_out.parquet"), rows.get_column("pair_id")),
    }


def take_over(model: Path, folder: Path) -> list[Path]:
    """Every file of `model` into `folder`: a second name for the same bytes where the disk allows, else a copy.

    A README.md is left where it is: ours is written in its place.
    """
    taken = []
    for source in sorted(path for path in model.rglob("*") if path.is_file()):
        place = folder / source.relative_to(model)
        if place.name == "README.md":
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, place)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, place)
        taken.append(place)
    return taken
