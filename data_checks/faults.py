"""Checks of big tables: polars counts the rows that should not be, and Great Expectations looks at one row of counts.

A million rows take seconds this way and a quarter of a minute, with three times the memory, as pandas rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from great_expectations.expectations import Expectation

EXAMPLES: Final = 10


@dataclass(frozen=True)
class Fault:
    """A kind of row that should not be."""

    name: str
    """The column of its count."""
    rows: pl.Expr
    """True for such a row; null is taken for false."""
    note: str
    """Why it should not be."""
    severity: str = "critical"
    share: float | None = None
    """The share of all rows up to which it is borne; None bears none."""


def tally(table: pl.LazyFrame, faults: Sequence[Fault]) -> pl.DataFrame:
    """One row: `rows`, and for each fault how many rows have it, or their share of all where a share is borne."""
    counts = [_counted(fault) for fault in faults]
    return table.select(pl.len().cast(pl.Int64).alias("rows"), *counts).collect(engine="streaming")


def _counted(fault: Fault) -> pl.Expr:
    rows = fault.rows.fill_null(value=False)
    if fault.share is None:
        return rows.sum().cast(pl.Int64).alias(fault.name)
    return rows.mean().fill_null(0.0).alias(fault.name)  # of no rows, none has it


def expectations(faults: Sequence[Fault]) -> "list[Expectation]":
    """One expectation a fault, on the row that `tally` gives."""
    import great_expectations.expectations as gxe

    found: list[Any] = [
        gxe.ExpectColumnValuesToBeBetween(
            column=fault.name, max_value=fault.share or 0, severity=fault.severity, notes=fault.note
        )
        for fault in faults
    ]
    return found


def critical(faults: Iterable[Fault]) -> tuple[str, ...]:
    """Names of the faults that stop a run."""
    return tuple(fault.name for fault in faults if fault.severity == "critical")


def some_rows(what: str) -> "Expectation":
    """A warning where `tally` counted no row at all."""
    import great_expectations.expectations as gxe

    found: Expectation = gxe.ExpectColumnValuesToBeBetween(
        column="rows", min_value=1, severity="warning", notes=f"There are no {what}."
    )
    return found


def examples(table: pl.LazyFrame, faults: Sequence[Fault], column: str, row_id: pl.Expr) -> list[str]:
    """The ids of some rows with the fault `column`, in the order of the ids; none where `column` names no fault."""
    for fault in faults:
        if fault.name == column:
            found = table.filter(fault.rows.fill_null(value=False)).select(row_id.cast(pl.String).alias("id"))
            return found.bottom_k(EXAMPLES, by="id").collect(engine="streaming")["id"].sort().to_list()
    return []
