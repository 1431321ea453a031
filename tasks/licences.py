"""Under which licence a post is: as it says, or worked out from its dates.

What was contributed to Stack Exchange before 2011-04-08 is under CC BY-SA 2.5, from then to 2018-05-01 under 3.0 and
from 2018-05-02 on under 4.0 (https://stackoverflow.com/help/licensing). Dumps since 2020 say so on each row; the date
that counts is that of the last edit, or of the creation of a post never edited.
"""

from datetime import UTC, datetime

import polars as pl


def licence(stated: pl.Expr, created: pl.Expr, edited: pl.Expr) -> pl.Expr:
    """The licence of each post, e.g. "CC BY-SA 4.0"; `stated` is null where the row says nothing."""
    when = pl.coalesce(edited, created)
    worked_out = (
        pl.when(when < datetime(2011, 4, 8, tzinfo=UTC))
        .then(pl.lit("CC BY-SA 2.5"))
        .when(when < datetime(2018, 5, 2, tzinfo=UTC))
        .then(pl.lit("CC BY-SA 3.0"))
        .otherwise(pl.lit("CC BY-SA 4.0"))
    )
    return pl.coalesce(stated, worked_out)
