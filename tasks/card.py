"""Card: the sampled pairs -> what they are, before anything is trained on them.

out  data_card.md      the data card, its plots in plots/; lengths in characters, since nothing is tokenized yet
     attribution.csv   one row a post of the training pairs

`publish` writes both again about what was trained on, with lengths in tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tasks.folders import write_text
from tasks.manifest import Manifest
from tasks.publication.attribution import posts_used, write_attribution
from tasks.publication.data_card import data_card
from tasks.publication.lineage import funnel, in_order, portable
from tasks.reports.data_summary import summarize
from tasks.reports.story import DataStory, side_counts, source_of
from tasks.reports.story_plots import draw_data
from tasks.store import Store, Workspace

VERSION = 3  # bump when the bytes this stage writes would change


def card(
    store: Store, stages: Mapping[str, Manifest], sources: Sequence[Manifest], name: str, recipe: Mapping[str, Any]
) -> Manifest:
    """The data card. `stages` has pair, dedupe and sample; `recipe` their sections and the seed."""
    shown = portable(recipe)

    def build(work: Workspace) -> dict[str, int]:
        pairs = pl.scan_parquet(stages["sample"].path("train.parquet"))
        posts = posts_used(pairs)
        story = DataStory(
            name=name,
            recipe=shown,
            sources=[source_of(source) for source in in_order(sources)],
            steps=funnel(stages, sources),
            summary=summarize(pairs, None, posts),
            side_counts=side_counts(stages["pair"]),
        )
        draw_data(work.folder / "plots", story.summary)
        plots = [f"plots/{path.name}" for path in sorted((work.folder / "plots").glob("*.png"))]
        write_text(work.folder / "data_card.md", data_card(story, plots))
        write_attribution(posts, work.folder / "attribution.csv")
        return {"pairs": story.summary.pairs, "questions": story.summary.questions, "posts": posts.height}

    inputs = {**stages, **{f"source.{place}": source for place, source in enumerate(in_order(sources))}}
    return store.stage("card", VERSION, {"name": name, "recipe": shown}, inputs, build)
