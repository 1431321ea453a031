"""The story of one run, gathered once: what the model card, the data card and the report are written from.

in   the manifests of all stages
out  Story: numbers and names, nothing of when, where or on what the run was made
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import polars as pl

from tasks.evaluation.held_out import token_lengths
from tasks.manifest import Manifest
from tasks.publication.attribution import posts_used
from tasks.publication.lineage import Step, funnel, in_order, lineage, source_facts
from tasks.reports.data_summary import Summary, summarize

# What the built-in models are called on the hub.
HUB_NAMES: Final = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}

EXAMPLE_COUNT: Final = 6
ANSWER_COUNT: Final = 8


@dataclass(frozen=True)
class Source:
    """One source as a reader of a card knows it."""

    name: str
    """Site, data set or file."""
    facts: dict[str, Any]
    """File name, checksum, revision: whatever ingest recorded, made portable."""
    counts: dict[str, int]
    fingerprint: str


@dataclass(frozen=True)
class Example:
    """A held-out pair with its texts and what the tuned model makes of it."""

    pair: dict[str, Any]
    """tasks/pairs.py."""
    margin: float
    why: str
    """Why this one is shown."""


class Told(Protocol):
    """What the data card says: of a finished run, or of pairs that nothing has been trained on."""

    @property
    def name(self) -> str: ...
    @property
    def recipe(self) -> Mapping[str, Any]: ...
    @property
    def sources(self) -> list[Source]: ...
    @property
    def steps(self) -> list[Step]: ...
    @property
    def summary(self) -> Summary: ...
    @property
    def side_counts(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class DataStory:
    """The data's part of a story."""

    name: str
    recipe: Mapping[str, Any]
    sources: list[Source]
    steps: list[Step]
    summary: Summary
    side_counts: dict[str, int]


@dataclass(frozen=True)
class Answered:
    """A held-out question and what both models answer to it."""

    pair: dict[str, Any]
    """tasks/pairs.py; `chosen` is what people voted up."""
    start: str
    tuned: str


@dataclass(frozen=True)
class Story:
    """Everything that the cards and the report say."""

    name: str
    license: str
    recipe: Mapping[str, Any]
    base: str
    """Hub id of the start model, or the name that the recipe has for it."""
    base_revision: str | None
    base_license: str | None
    """As its card states it."""
    sources: list[Source]
    steps: list[Step]
    side_counts: dict[str, int]
    """Counts of `pair` that are no pairs: ids left out, texts masked."""
    metrics: dict[str, Any]
    summary: Summary
    examples: list[Example]
    answers: list[Answered]
    """Greedy answers side by side; empty where the recipe asked for none."""
    training: pl.DataFrame
    """metrics.jsonl: one row an optimizer step."""
    posts: pl.DataFrame
    """The posts used, tasks/publication/attribution.py."""
    train_ids: list[str]
    """pair_id of every training pair, sorted."""
    lineage: dict[str, Any]
    waiver: str | None = None
    """Why it is published although it may not be better than its start."""

    @property
    def base_is_on_hub(self) -> bool:
        return "/" in self.base

    @property
    def evaluated(self) -> bool:
        return self.metrics.get("accuracy") is not None


def gather(
    stages: Mapping[str, Manifest], sources: Sequence[Manifest], name: str, license: str, recipe: Mapping[str, Any],
    *, waiver: str | None = None,
) -> Story:  # fmt: skip
    """Read what the cards need from the stage folders. Texts are read of the training pairs and of a few examples."""
    max_length = stages["tokenize"].config.get("max_length")
    lengths = token_lengths(stages["tokenize"].path("train"), max_length)
    used = lengths.lazy().select("pair_id")
    pairs = pl.scan_parquet(stages["sample"].path("train.parquet"))
    pairs = pairs.join(used, on="pair_id", how="semi", maintain_order="left")
    posts = posts_used(pairs)
    judged = stages.get("unseen", stages["sample"])  # pairs from elsewhere, where the recipe judges by those
    base, revision = _base(stages["model"], str(recipe.get("model", "")))
    return Story(
        name=name,
        license=license,
        recipe=recipe,
        base=base,
        base_revision=revision,
        base_license=source_facts(stages["model"]).get("license"),
        sources=[source_of(source) for source in in_order(sources)],
        steps=funnel(stages, sources),
        side_counts=side_counts(stages["pair"]),
        metrics=json.loads(stages["evaluate"].path("metrics.json").read_text(encoding="utf-8")),
        summary=summarize(pairs, lengths, posts),
        examples=_examples(stages["evaluate"].path("rows.parquet"), judged.path("held_out.parquet")),
        answers=_answers(stages.get("generate"), judged.path("held_out.parquet")),
        training=_training(stages["train"].path("metrics.jsonl")),
        posts=posts,
        train_ids=sorted(lengths.get_column("pair_id").to_list()),
        lineage=lineage(name, stages, sources, recipe),
        waiver=waiver,
    )


def _base(model: Manifest, named: str) -> tuple[str, str | None]:
    facts = source_facts(model)
    hub = facts.get("hub")
    if isinstance(hub, str):
        revision = facts.get("commit") or facts.get("revision")
        return hub, str(revision) if revision else None
    name = re.split(r"[/\\]", named.rstrip("/\\"))[-1] or "start model"
    return HUB_NAMES.get(name, name), None


def side_counts(paired: Manifest) -> dict[str, int]:
    """Counts of the pair stage that are no pairs: ids left out, texts masked."""
    return {name: count for name, count in paired.counts.items() if name.startswith(("exclude.", "masked."))}


def source_of(manifest: Manifest) -> Source:
    """A source as a reader of a card knows it."""
    facts = source_facts(manifest)
    for key in ("site", "name", "hub", "dataset", "file", "path", "url"):
        if isinstance(facts.get(key), str) and facts[key]:
            return Source(facts[key], facts, manifest.counts, manifest.fingerprint)
    return Source(f"{manifest.stage}-{manifest.fingerprint[:8]}", facts, manifest.counts, manifest.fingerprint)


def _training(path: Path) -> pl.DataFrame:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return pl.DataFrame(lines, infer_schema_length=None)


def _examples(rows: Path, held_out: Path) -> list[Example]:
    """The surest right, the least sure and the surest wrong pairs, of different questions where there are enough."""
    margins = pl.read_parquet(rows, columns=["pair_id", "margin"]).sort("margin", "pair_id", descending=[True, False])
    if margins.height == 0:
        return []
    each = EXAMPLE_COUNT // 3
    unsure = margins.sort(pl.col("margin").abs(), "pair_id")
    chosen: dict[str, tuple[float, str]] = {}
    for why, picked in (
        ("among the surest that the chosen answer is better", margins.filter(pl.col("margin") > 0)),
        ("among the surest of the wrong answer", margins.filter(pl.col("margin") < 0).reverse()),
        ("among the least sure", unsure),
    ):
        fresh = (row for row in picked.rows() if row[0] not in chosen)
        for _, (pair_id, margin) in zip(range(each), fresh, strict=False):
            chosen[pair_id] = (margin, why)
    texts = pl.scan_parquet(held_out).filter(pl.col("pair_id").is_in(list(chosen))).collect()
    by_id = {row["pair_id"]: row for row in texts.to_dicts()}
    return [Example(by_id[pair_id], *chosen[pair_id]) for pair_id in chosen if pair_id in by_id]


def _answers(generated: Manifest | None, held_out: Path) -> list[Answered]:
    """The first questions as they were drawn, answered greedily."""
    if generated is None:
        return []
    greedy = pl.read_parquet(generated.path("generations.parquet")).filter(mode="greedy")
    by_model = {
        model: dict(greedy.filter(model=model).select("pair_id", "text").rows()) for model in ("start", "tuned")
    }
    shown = list(by_model["start"])[:ANSWER_COUNT]
    texts = pl.scan_parquet(held_out).filter(pl.col("pair_id").is_in(shown)).collect()
    pairs = {row["pair_id"]: row for row in texts.to_dicts()}
    return [Answered(pairs[key], by_model["start"][key], by_model["tuned"][key]) for key in shown if key in pairs]
