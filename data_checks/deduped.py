"""After `dedupe`: ids are unique, and every pair says which cluster no split may divide. One row of counts."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from data_checks.check import Check
from data_checks.faults import Fault, critical, examples, expectations, some_rows, tally
from data_checks.pair_faults import COLUMNS, FAULTS, duplicate_id

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

_FAULTS: Final = (
    *FAULTS,
    duplicate_id("critical"),
    Fault("no_cluster", pl.col("cluster").is_null(), "The split keeps clusters whole."),
    Fault(
        "cluster_not_first",
        pl.col("cluster") > pl.col("pair_id"),
        "A cluster bears the smallest id among its pairs.",
    ),
    Fault(
        "question_divided",
        pl.col("question_id").is_not_null() & (pl.col("cluster").n_unique().over("site", "question_id") > 1),
        "The pairs of one question belong to one cluster.",
    ),
)


def check() -> Check:
    """No id twice, no pair without a cluster, no question in two clusters."""

    def suite() -> "ExpectationSuite":
        import great_expectations as gx

        return gx.ExpectationSuite(name="deduped", expectations=[some_rows("pairs"), *expectations(_FAULTS)])

    return Check(
        name="deduped",
        version=1,
        frame=lambda folder: tally(_pairs(folder), _FAULTS),
        suite=suite,
        examples=lambda folder, column: examples(_pairs(folder), _FAULTS, column, pl.col("pair_id")),
        critical=critical(_FAULTS),
    )


def _pairs(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / "pairs.parquet").select(*COLUMNS, "cluster")
