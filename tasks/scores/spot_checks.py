"""Spot checks: some of the log-probs that were found in the store are worked out again and must be what they were.

Keys and checksums say that a value is the one that was written for these ids and this model; only the model can say
that it was right, and that this machine works it out alike.
"""

from pathlib import Path
from typing import Final

import polars as pl

from tasks.errors import StageFailed
from tasks.keyed import keyed_ranks
from training.config import Precision
from training.layout import TOLERANCE

CHECKED: Final = 4  # pairs of a split: a fraction of a second on a small model


def drawn(found: pl.DataFrame, run: str) -> pl.DataFrame:
    """The rows of `found` (with `key`) to score again: others in every run, the same in a retry of one."""
    ranks = keyed_ranks(0, "check", (f"{run}\0{key}" for key in found.get_column("key")))
    return found.with_columns(ranks).sort("rank").head(CHECKED).drop("rank").sort("row")


def check_again(stage: str, found: pl.DataFrame, again: pl.DataFrame, precision: Precision, place: Path) -> None:
    """Compare what the store gave (`found`: pair_id, chosen_logps, rejected_logps) with what was scored `again`.

    Raises StageFailed, naming the store's folder and the pair that is furthest off.
    """
    sides = [
        again.join(found, on="pair_id", suffix="_found").select(
            "pair_id", side=pl.lit(side), now=f"{side}_logps", was=f"{side}_logps_found", tokens=f"{side}_tokens"
        )
        for side in ("chosen", "rejected")
    ]
    off = pl.concat(sides).with_columns(off=(pl.col("now") - pl.col("was")).abs() / pl.col("tokens").sqrt())
    # A stored NaN compares as more than any number.
    wrong = off.filter(pl.col("off") > TOLERANCE[precision]).sort("off", descending=True)
    if wrong.height:
        worst = wrong.row(0, named=True)
        raise StageFailed(
            f"{stage}: {wrong.get_column('pair_id').n_unique()} of {again.height} pairs that were scored before and"
            f" again now differ, most of all pair {worst['pair_id']}, whose {worst['side']} log-prob is"
            f" {worst['was']:.4f} in {place} and {worst['now']:.4f} now; remove that folder and run again"
        )
