"""Sample: pairs -> exactly `size` train pairs and the held-out pairs, the same ones every time.

in   pairs.parquet (with cluster)
out  train.parquet, held_out.parquet   the same columns, in the order of their keyed rank

The unit of the split is what hangs together through (site, question_id) or cluster; for pairs without ids, the cluster,
which joins those of one prompt. Units are held out whole, in the order of their keyed rank, until `held_out` pairs are
there; of the last one only as many pairs as are missing, and the rest of it goes nowhere. Then `size` train pairs are
drawn from the other units by the keyed rank of the pairs themselves, so that for the same candidates a smaller sample
is part of a larger one and the held-out pairs depend on neither.
"""

import shutil

import numpy as np
import polars as pl
from pydantic import NonNegativeInt, PositiveInt

from tasks.config import StageConfig
from tasks.duplicates.clusters import components, names
from tasks.errors import RecipeError
from tasks.keyed import keyed_ranks
from tasks.manifest import Manifest
from tasks.ordered import batches, write_ordered
from tasks.pairs import DEDUPED_SCHEMA
from tasks.store import Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change


class SampleConfig(StageConfig):
    """How many pairs are drawn."""

    size: PositiveInt | None = 60_000
    """Train pairs; null = all that are not held out."""
    held_out: NonNegativeInt = 2_000
    """Pairs kept for evaluation, drawn first and independent of `size`."""


def draw(
    rows: pl.DataFrame, config: SampleConfig, seed: int, train_seed: int | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows to train on and the held-out rows, each in the order of its keyed rank.

    rows        pair_id (unique), site, question_id, cluster, and whatever else is to be kept
    train_seed  names the draw of the train pairs in place of `seed`; the held-out pairs are those of `seed`

    Raises RecipeError when there are fewer than asked for.
    """
    links = [rows.select("site", "question_id"), rows.select("cluster")]
    units = names(components(rows.height, links), rows["pair_id"])
    held, left = _hold_out(rows.with_columns(_unit=units), config.held_out, seed)
    if held.height < config.held_out:
        raise RecipeError(
            f"sample.held_out asks for {config.held_out} pairs, but after dedupe there are {rows.height}; "
            "lower sample.held_out or add sources"
        )
    key = seed if train_seed is None else train_seed
    train = left.with_columns(_rank=keyed_ranks(key, "sample", left["pair_id"])).sort("_rank", "pair_id")
    if train.height < (config.size or 1):
        asked = "all train pairs there are" if config.size is None else f"{config.size} train pairs"
        raise RecipeError(
            f"sample.size asks for {asked}, but of the {rows.height} pairs after dedupe there are {train.height} to "
            f"train on beside the questions that sample.held_out = {config.held_out} keeps away; lower sample.size or "
            "sample.held_out, or add sources"
        )
    return train.head(config.size or train.height).drop("_rank", "_unit"), held.drop("_rank", "_unit")


def _hold_out(rows: pl.DataFrame, wanted: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """At most `wanted` rows of whole units, in the order of keyed rank, and the rows of all untouched units."""
    if wanted == 0:
        return rows.clear().with_columns(_rank=pl.lit(0, pl.UInt64)), rows
    units = rows.group_by("_unit").len()
    # A unit bears the name of one of its pairs: a prefix keeps the two draws apart.
    ranks = keyed_ranks(seed, "held_out", ("unit\0" + name for name in units["_unit"]))
    units = units.with_columns(rank=ranks).sort("rank", "_unit")
    touched = units.filter(pl.col("len").cum_sum() - pl.col("len") < wanted).with_row_index("place")
    inside = rows.join(touched.select("_unit", "place"), on="_unit")
    inside = inside.with_columns(_rank=keyed_ranks(seed, "held_out", inside["pair_id"]))
    taken = inside.sort("place", "_rank", "pair_id").head(wanted).drop("place").sort("_rank", "pair_id")
    return taken, rows.join(touched, on="_unit", how="anti")


def sample(
    store: Store, deduped: Manifest, config: SampleConfig, seed: int, train_seed: int | None = None
) -> Manifest:  # fmt: skip
    """The train pairs and the held-out pairs; RecipeError when there are not enough. `train_seed` is draw's."""

    def build(work: Workspace) -> dict[str, int]:
        source = deduped.path("pairs.parquet")
        narrow = ["pair_id", "site", "question_id", "cluster"]
        columns = pl.Schema([(name, DEDUPED_SCHEMA[name]) for name in narrow])
        rows = pl.concat([columns.to_frame(), *(batch.cast(columns) for batch in batches(source, narrow))])
        rows = rows.with_row_index("row")
        train, held = draw(rows, config, seed, train_seed)
        scratch = work.partial / "scratch"
        for name, part in (("train", train), ("held_out", held)):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            order = part["row"].cast(pl.Int64).to_numpy().astype(np.int64)
            write_ordered(source, work.folder / f"{name}.parquet", order, DEDUPED_SCHEMA, scratch)
        return {
            "kept": rows.height,
            "train": train.height,
            "held_out": held.height,
            "not_sampled": rows.height - train.height - held.height,
        }

    identity = {**config.identity(), "seed": seed}
    if train_seed not in (None, seed):  # named only where it tells another draw, so that older samples are found
        identity["train_seed"] = train_seed
    return store.stage("sample", VERSION, identity, {"deduped": deduped}, build)
