"""After `evaluate`: the numbers are numbers, and the tuned model is better than its start, than a coin, than length.

One row: the headline metrics, and counts of rows that cannot be.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from data_checks.better import SCHEMA, numbers
from data_checks.check import Check
from data_checks.faults import Fault, critical, examples, expectations, tally
from data_checks.pair_faults import duplicate_id
from data_checks.publishable import demands
from data_checks.publishable import examples as hurt

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

_LOGPS: Final = ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")

_FAULTS: Final = (
    duplicate_id("critical"),
    Fault(
        "not_finite",
        pl.any_horizontal(~pl.col(name).is_finite() | pl.col(name).is_null() for name in (*_LOGPS, "margin")),
        "A log-prob that is no number makes every mean one.",
    ),
    Fault(
        "above_zero",
        pl.any_horizontal(pl.col(name) > 0.0 for name in _LOGPS),
        "The logarithm of a probability is not positive.",
    ),
    Fault(
        "no_tokens",
        (pl.col("chosen_tokens") < 1) | (pl.col("rejected_tokens") < 1),
        "Without a token there is nothing to judge.",
    ),
)

_METRICS: Final = ("accuracy", "accuracy_low", "accuracy_high", "margin", "loss", "length_baseline_accuracy")


def view(folder: Path) -> pl.DataFrame:
    """The row: `_METRICS` (null without held-out pairs), `beyond_length`, the numbers of better.py, faults counted."""
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    metrics = pl.DataFrame([{name: found[name] for name in _METRICS}], schema=dict.fromkeys(_METRICS, pl.Float64))
    beyond = pl.col("accuracy") - pl.col("length_baseline_accuracy")
    asked = pl.DataFrame([numbers(found)], schema=SCHEMA)
    columns = [tally(_rows(folder), _FAULTS), metrics.with_columns(beyond_length=beyond), asked]
    return pl.concat(columns, how="horizontal")


def check() -> Check:
    """Critical: rows and metrics that cannot be. A warning: a model that did not learn what it was to learn."""

    def suite() -> "ExpectationSuite":
        import great_expectations as gx
        import great_expectations.expectations as gxe

        return gx.ExpectationSuite(
            name="evaluated",
            expectations=[
                *expectations(_FAULTS),
                gxe.ExpectColumnValuesToBeBetween(column="accuracy", min_value=0, max_value=1),
                gxe.ExpectColumnValuesToBeBetween(column="loss", min_value=0),
                gxe.ExpectColumnValuesToBeBetween(
                    column="accuracy_low", min_value=0.5, severity="warning", notes="No better than a coin."
                ),
                gxe.ExpectColumnValuesToBeBetween(
                    column="beyond_length",
                    min_value=0,
                    severity="warning",
                    notes="Choosing the longer answer does as well.",
                ),
                *demands("warning"),
            ],
        )

    return Check(
        name="evaluated",
        version=3,
        frame=view,
        suite=suite,
        examples=lambda folder, column: (
            examples(_rows(folder), _FAULTS, column, pl.col("pair_id")) or hurt(folder, column)
        ),
        critical=(*critical(_FAULTS), "accuracy", "loss"),
    )


def _rows(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / "rows.parquet")
