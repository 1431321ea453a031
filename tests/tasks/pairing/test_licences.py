"""The licence of a post where the row does not say."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from tasks.pairing.licences import licence
from tasks.pairs import UTC_MS


def of(stated: str | None, created: datetime, edited: datetime | None = None) -> Any:
    row = pl.DataFrame(
        {"stated": [stated], "created": [created], "edited": [edited]},
        schema={"stated": pl.String, "created": UTC_MS, "edited": UTC_MS},
    )
    return row.select(licence(pl.col("stated"), pl.col("created"), pl.col("edited"))).item()


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (datetime(2011, 4, 7, 23, 59, 59, tzinfo=UTC), "CC BY-SA 2.5"),
        (datetime(2011, 4, 8, tzinfo=UTC), "CC BY-SA 3.0"),
        (datetime(2018, 5, 1, 23, 59, 59, tzinfo=UTC), "CC BY-SA 3.0"),
        (datetime(2018, 5, 2, tzinfo=UTC), "CC BY-SA 4.0"),
    ],
)
def test_the_date_of_creation_decides_and_that_of_an_edit_before_it(when: datetime, expected: str) -> None:
    assert of(None, when) == expected
    assert of(None, datetime(2009, 1, 1, tzinfo=UTC), when) == expected


def test_what_the_row_says_holds_whatever_the_dates() -> None:
    assert of("CC BY-SA 2.5", datetime(2020, 1, 1, tzinfo=UTC)) == "CC BY-SA 2.5"
