"""After `pair`: what the pairs of all sources must be. One row of counts."""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from data_checks.check import Check
from data_checks.faults import Fault, critical, examples, expectations, some_rows, tally
from data_checks.pair_faults import COLUMNS, FAULTS, duplicate_id

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite


def check(min_gap: int = 0) -> Check:
    """Chosen beats rejected, by `min_gap` ranks at least; ids are whole and say what they name."""
    # One source given twice repeats its pairs; dedupe drops the second of each.
    faults = [*FAULTS, duplicate_id("warning"), _gap(min_gap)]

    def suite() -> "ExpectationSuite":
        import great_expectations as gx

        return gx.ExpectationSuite(name="paired", expectations=[some_rows("pairs"), *expectations(faults)])

    return Check(
        name="paired",
        version=1,
        frame=lambda folder: tally(_pairs(folder), faults),
        suite=suite,
        examples=lambda folder, column: examples(_pairs(folder), faults, column, pl.col("pair_id")),
        config={"min_gap": min_gap},
        critical=critical(faults),
    )


def _gap(least: int) -> Fault:
    gap = pl.col("chosen_rank") - pl.col("rejected_rank")
    return Fault("gap_too_small", gap < least, f"The recipe asks for a difference of {least} ranks at least.")


def _pairs(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / "pairs.parquet").select(COLUMNS)
