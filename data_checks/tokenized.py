"""After `tokenize`: every row fits, both sides have something to learn from, and EOS is at the end and nowhere else.

One row a pair: lengths in tokens and what stands at the ends, never the ids themselves.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from data_checks.check import Check

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

SPLITS: Final = ("train", "held_out")
_SIDES: Final = ("chosen", "rejected")


def view(folder: Path, max_length: int) -> pl.DataFrame:
    """`split, pair_id, *_tokens, longest, sides_differ, cut, *_end, early_ends` of every token row.

    `longest`     tokens of the prompt and its longer answer
    `cut`         an answer reaches `max_length`, so that it was cut or only just fits
    `*_end`       the last id of an answer that does not reach `max_length`: EOS, if all is well
    `early_ends`  how often that id occurs elsewhere than at the end of an answer or the beginning of the prompt
    """
    files = [(split, path) for split in SPLITS for path in sorted((folder / split).glob("*.arrow"))]
    ends = pl.concat(_ends(pl.read_ipc_stream(path), max_length) for _, path in files)
    common = ends.to_frame("end").group_by("end").len().sort("len", "end", descending=True)["end"]
    end = common[0] if len(common) else None
    return pl.concat(_lengths(pl.read_ipc_stream(path), split, max_length, end) for split, path in files).sort(
        "split", "pair_id"
    )


def _reach(side: str) -> pl.Expr:
    return (pl.col("prompt_ids").list.len() + pl.col(f"{side}_ids").list.len()).cast(pl.Int64)


def _end(side: str, max_length: int) -> pl.Expr:
    return pl.when(_reach(side) < max_length).then(pl.col(f"{side}_ids").list.last())


def _ends(rows: pl.DataFrame, max_length: int) -> pl.Series:
    return pl.concat(rows.select(end=_end(side, max_length)).to_series().drop_nulls() for side in _SIDES)


def _lengths(rows: pl.DataFrame, split: str, max_length: int, end: int | None) -> pl.DataFrame:
    inside = [pl.col("prompt_ids").list.slice(1)]
    inside += [pl.col(f"{side}_ids").list.head(pl.col(f"{side}_ids").list.len() - 1) for side in _SIDES]
    early = pl.sum_horizontal(ids.list.count_matches(pl.lit(end, pl.Int32)) for ids in inside)
    return rows.select(
        pl.lit(split).alias("split"),
        "pair_id",
        *(pl.col(f"{part}_ids").list.len().cast(pl.Int64).alias(f"{part}_tokens") for part in ("prompt", *_SIDES)),
        longest=pl.max_horizontal(_reach(side) for side in _SIDES),
        sides_differ=pl.col("chosen_ids") != pl.col("rejected_ids"),
        cut=pl.any_horizontal(_reach(side) >= max_length for side in _SIDES).cast(pl.Float64),
        chosen_end=_end("chosen", max_length),
        rejected_end=_end("rejected", max_length),
        early_ends=early.cast(pl.Int64) if end is not None else pl.lit(0, pl.Int64),
    )


def check(max_length: int) -> Check:
    """No row is longer than `max_length` tokens."""

    def suite() -> "ExpectationSuite":
        import great_expectations as gx
        import great_expectations.expectations as gxe

        return gx.ExpectationSuite(
            name="tokenized",
            expectations=[
                gxe.ExpectColumnValuesToNotBeNull(column="pair_id"),
                gxe.ExpectColumnValuesToBeUnique(column="pair_id"),
                *(
                    gxe.ExpectColumnValuesToBeBetween(
                        column=f"{part}_tokens", min_value=1, notes="An empty side has nothing to learn from."
                    )
                    for part in ("prompt", *_SIDES)
                ),
                gxe.ExpectColumnValuesToBeBetween(column="longest", max_value=max_length),
                gxe.ExpectColumnValuesToBeInSet(
                    column="sides_differ", value_set=[True], notes="Sides that were cut to the same are no preference."
                ),
                *(
                    gxe.ExpectColumnUniqueValueCountToBeBetween(
                        column=f"{side}_end", max_value=1, notes="An answer that was not cut ends with EOS."
                    )
                    for side in _SIDES
                ),
                gxe.ExpectColumnValuesToBeBetween(
                    column="early_ends", max_value=0, notes="No text may say EOS; the model would learn to stop there."
                ),
                gxe.ExpectColumnMeanToBeBetween(
                    column="cut", max_value=0.5, severity="warning", notes="Half of the rows are cut: raise max_length."
                ),
            ],
        )

    return Check(
        name="tokenized",
        version=1,
        frame=lambda folder: view(folder, max_length),
        suite=suite,
        row_id="pair_id",
        config={"max_length": max_length},
        critical=(
            "pair_id",
            "prompt_tokens",
            "chosen_tokens",
            "rejected_tokens",
            "longest",
            "sides_differ",
            "chosen_end",
            "rejected_end",
            "early_ends",
        ),
    )
