"""Under which licence a post is: as it says, or worked out from its dates.

What was contributed to Stack Exchange before 2011-04-08 is under CC BY-SA 2.5, from then to 2018-05-01 under 3.0 and
from 2018-05-02 on under 4.0 (https://stackoverflow.com/help/licensing). Dumps since 2020 say so on each row; the date
that counts is that of the last edit, or of the creation of a post never edited.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import polars as pl

_VERSIONS: Final = (
    ("CC BY-SA 2.5", datetime(2011, 4, 8, tzinfo=UTC)),  # until then
    ("CC BY-SA 3.0", datetime(2018, 5, 2, tzinfo=UTC)),
)
_NEWEST: Final = "CC BY-SA 4.0"


def licence(stated: pl.Expr, created: pl.Expr, edited: pl.Expr) -> pl.Expr:
    """The licence of each post, e.g. "CC BY-SA 4.0"; `stated` is null where the row says nothing.

    Null where no date is known either.
    """
    when = pl.coalesce(edited, created)
    worked_out = pl.when(when.is_not_null()).then(pl.lit(_NEWEST))
    for name, end in reversed(_VERSIONS):
        worked_out = pl.when(when < end).then(pl.lit(name)).otherwise(worked_out)  # type: ignore[assignment]
    return pl.coalesce(stated, worked_out)


def licence_by_date(created: datetime) -> str:
    """The licence of a post that states none and of which no edit is known."""
    return next((name for name, end in _VERSIONS if created < end), _NEWEST)


def hub_licenses(names: Iterable[str]) -> list[str]:
    """What hubs call the licences `names` of posts, each once; those that they have no name for are "other"."""
    known = {"CC BY-SA 4.0": "cc-by-sa-4.0", "CC BY-SA 3.0": "cc-by-sa-3.0"}
    return sorted({known.get(name, "other") for name in names}) or ["other"]
