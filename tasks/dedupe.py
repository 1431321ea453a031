"""Dedupe: pairs -> pairs no two of which say the same thing, with a reason for every drop.

in   pairs.parquet
out  pairs.parquet     the same columns and `cluster`, in the order of pair_id
     dropped.parquet   pair_id, reason, place, kept_pair_id (null where no pair stays in its stead)

`cluster` is what a split must not divide: the smallest pair_id among the kept pairs that hang together through the same
(site, question_id), the same normalised prompt or texts found to be near duplicates.
"""

import shutil
from typing import Final

import polars as pl
from pydantic import Field

from tasks.clusters import components, names
from tasks.config import StageConfig
from tasks.exact_duplicates import (
    EXACT_REASONS,
    SAME_ID,
    all_rows,
    dropped_rows,
    exact_reasons,
    kept_rows,
    keyed_rows,
    repeated_ids,
)
from tasks.manifest import Manifest, reasons
from tasks.ordered import write_ordered
from tasks.pairs import DEDUPED_SCHEMA
from tasks.store import Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change

REASONS: Final = (SAME_ID, *EXACT_REASONS)


class DedupeConfig(StageConfig):
    """What counts as saying the same."""

    exact: bool = True
    """Drop a pair whose normalised prompt, chosen and rejected text another pair has."""
    near: bool = False
    """Drop near duplicates too (MinHash, verified by exact Jaccard)."""
    threshold: float = Field(0.8, gt=0.0, le=1.0)
    """Jaccard similarity of word shingles from which two texts are near duplicates."""


def dedupe(store: Store, pairs: Manifest, config: DedupeConfig, seed: int) -> Manifest:
    """The pairs that stay, each with the cluster that a split must not divide.

    A second row of the same pair_id goes whatever the config says: an id that names two rows would be looked up wrongly
    in every later stage.
    """

    def build(work: Workspace) -> dict[str, int]:
        source = pairs.path("pairs.parquet")
        rows = all_rows(keyed_rows(source))
        verdicts = [repeated_ids(source, rows["pair_id"]).select("row", pl.lit(SAME_ID).alias("reason"), "keeper")]
        if config.exact:
            verdicts.append(exact_reasons(kept_rows(rows, *verdicts), seed))
        kept = kept_rows(rows, *verdicts).sort("pair_id")
        links = [kept.select("site", "question_id"), kept.select("prompt")]
        cluster = names(components(kept.height, links), kept["pair_id"]).alias("cluster")

        judged = pl.concat(verdicts)
        dropped_rows(rows, judged).write_parquet(work.folder / "dropped.parquet")
        scratch = work.partial / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        order = kept["row"].cast(pl.Int64).to_numpy()
        write_ordered(source, work.folder / "pairs.parquet", order, DEDUPED_SCHEMA, scratch, cluster.to_frame())
        tally = dict(judged["reason"].value_counts().iter_rows())
        return {"pairs": rows.height, "kept": kept.height, **reasons("dropped", REASONS, tally)}

    return store.stage("dedupe", VERSION, {**config.identity(), "seed": seed}, {"pairs": pairs}, build)
