"""After `sample`: as many pairs as were asked for, none of them twice, and nothing on both sides of the split.

One row a pair: ids, ranks and lengths, never the texts.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from data_checks.check import Check

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

SPLITS: Final = ("train", "held_out")


def view(folder: Path) -> pl.DataFrame:
    """`split, pair_id, rank_gap, *_chars, sides_differ, licensed, leaks` of every sampled pair.

    `leaks` is true where the pair's question or cluster is in the other split too.
    """
    rows = pl.concat(
        pl.scan_parquet(folder / f"{split}.parquet").select(
            pl.lit(split).alias("split"),
            "pair_id",
            "site",
            "question_id",
            "cluster",
            (pl.col("chosen_rank") - pl.col("rejected_rank")).alias("rank_gap"),
            *(pl.col(text).str.len_chars().alias(f"{text}_chars") for text in ("prompt", "chosen", "rejected")),
            (pl.col("chosen") != pl.col("rejected")).alias("sides_differ"),
            pl.all_horizontal(pl.col("^(question|chosen|rejected)_license$").is_not_null()).alias("licensed"),
        )
        for split in SPLITS
    ).collect(engine="streaming")
    same_question = pl.col("question_id").is_not_null() & (pl.col("split").n_unique().over("site", "question_id") > 1)
    same_cluster = pl.col("split").n_unique().over("cluster") > 1
    leaks = rows.with_columns(leaks=same_question | same_cluster).drop("site", "question_id", "cluster")
    return leaks.sort("split", "pair_id")


def check(size: int | None, held_out: int) -> Check:
    """Exactly `size` train pairs (null: any number) and `held_out` held-out pairs."""

    def suite() -> "ExpectationSuite":
        import great_expectations as gx
        import great_expectations.expectations as gxe
        from great_expectations.expectations.row_conditions import Column

        counts: list[Any] = []
        for split, rows in zip(SPLITS, (size, held_out), strict=True):
            if rows is not None:
                counts.append(gxe.ExpectTableRowCountToEqual(value=rows, row_condition=Column("split") == split))
        return gx.ExpectationSuite(
            name="sampled",
            expectations=[
                *counts,
                gxe.ExpectColumnValuesToNotBeNull(column="pair_id"),
                gxe.ExpectColumnValuesToBeUnique(column="pair_id", notes="A pair counts once."),
                gxe.ExpectColumnValuesToBeBetween(
                    column="rank_gap", min_value=1, notes="A tie is not a preference, and the better one comes first."
                ),
                gxe.ExpectColumnValuesToBeInSet(
                    column="leaks", value_set=[False], notes="No question and no cluster is in both splits."
                ),
                *(
                    gxe.ExpectColumnValuesToBeBetween(
                        column=f"{text}_chars", min_value=1, severity="warning", notes="Dedupe drops what says nothing."
                    )
                    for text in ("prompt", "chosen", "rejected")
                ),
                gxe.ExpectColumnValuesToBeInSet(
                    column="sides_differ", value_set=[True], severity="warning", notes="Tokenize drops such pairs."
                ),
                gxe.ExpectColumnValuesToBeInSet(
                    column="licensed",
                    value_set=[True],
                    severity="warning",
                    notes="What is published names the licence of each post.",
                ),
            ],
        )

    return Check(
        name="sampled",
        version=1,
        frame=view,
        suite=suite,
        row_id="pair_id",
        config={"size": size, "held_out": held_out},
        critical=("expect_table_row_count_to_equal", "pair_id", "rank_gap", "leaks"),
    )
