"""What a gate asks: which frame of a stage folder is looked at, and what must hold of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite


@dataclass(frozen=True)
class Check:
    """One boundary's expectations. What has severity `critical` stops the run where it fails, `warning` marks it."""

    name: str
    version: int
    """Raised when frame or suite change, so that stored results are not taken for theirs."""
    frame: Callable[[Path], pl.DataFrame]
    """From a stage folder to ids, lengths and scores, one row a pair; or to one row of counts, for a big table."""
    suite: "Callable[[], ExpectationSuite]"
    """Built when it is needed: Great Expectations takes seconds to import."""
    row_id: str | None = None
    """The column that names a row; None where the frame is one row of counts."""
    examples: Callable[[Path, str], list[str]] | None = None
    """From a stage folder and a column of counts to the ids of some rows that were counted."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the suite was given and depends on, such as sizes."""
    critical: tuple[str, ...] = ()
    """Names of what is critical, as `named` gives them: known without Great Expectations."""
    waived: Mapping[str, str] = field(default_factory=dict)
    """Names of what may fail without stopping the run, and why. No part of what is stored."""


def named(expectation: str, column: str) -> str:
    """What one expectation of a check is called: the column that it is about, or else what it expects."""
    return column or expectation
