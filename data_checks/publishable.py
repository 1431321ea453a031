"""Before `publish`, where the recipe asks for it: the tuned model is better than its start, or nothing is published.

One row: the numbers of data_checks/better.py.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from data_checks.better import BENCHMARKS, DEMANDS, SCHEMA, UNKNOWN, hurt_benchmarks, numbers, unknown
from data_checks.check import Check

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.expectations import Expectation


def view(folder: Path) -> pl.DataFrame:
    """The row of an `evaluate` folder."""
    return pl.DataFrame([numbers(_metrics(folder))], schema=SCHEMA)


def check() -> Check:
    """All critical: what a model must show before it is published. A number that is missing shows nothing."""

    def suite() -> "ExpectationSuite":
        import great_expectations as gx
        import great_expectations.expectations as gxe

        missing = gxe.ExpectColumnValuesToBeBetween(column="unknown", max_value=0, notes=UNKNOWN)
        return gx.ExpectationSuite(name="publishable", expectations=[*demands("critical"), missing])

    return Check(
        name="publishable", version=2, frame=view, suite=suite, examples=examples,
        critical=(*(demand.column for demand in DEMANDS), "hurt_benchmarks", "unknown"),
    )  # fmt: skip


def demands(severity: str) -> "list[Expectation]":
    """The expectations on the numbers of data_checks/better.py; a number that is not known passes."""
    import great_expectations.expectations as gxe

    found: list[Any] = []
    for demand in DEMANDS:
        bound = {"min_value": demand.at_least} if demand.above is None else {"min_value": demand.above}
        strict = {} if demand.above is None else {"strict_min": True}
        found.append(
            gxe.ExpectColumnValuesToBeBetween(
                column=demand.column, severity=severity, notes=demand.note, **bound, **strict
            )
        )
    found.append(
        gxe.ExpectColumnValuesToBeBetween(column="hurt_benchmarks", max_value=0, severity=severity, notes=BENCHMARKS)
    )
    return found


def examples(folder: Path, column: str) -> list[str]:
    """Which benchmarks were hurt, or which numbers are missing."""
    if column == "hurt_benchmarks":
        return hurt_benchmarks(_metrics(folder))
    return unknown(_metrics(folder)) if column == "unknown" else []


def _metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found
