"""What only all posts together can tell: numbers that two posts bear, and answers whose question is not there.

Posts are looked at a share of their numbers at a time, so that the memory does not grow with the dump.
"""

from typing import Final

import polars as pl

SHARE: Final = 8_000_000  # posts at a time: about 300 MB
_QUESTION: Final = 1
_ANSWER: Final = 2


def repeated_and_orphans(posts: pl.LazyFrame, rows: int, *, share: int = SHARE) -> tuple[pl.Series, pl.Series]:
    """The ids that more than one of the `rows` posts bears, each once, and the ids of answers without a question."""
    shares = max(1, -(-rows // share))
    found = [_of_share(posts, number, shares) for number in range(shares)]
    repeated, orphans = (pl.concat(part).sort() for part in zip(*found, strict=True))
    return repeated, orphans


def _of_share(posts: pl.LazyFrame, number: int, shares: int) -> tuple[pl.Series, pl.Series]:
    mine = pl.col("id") % shares == number
    ids = posts.filter(mine).select("id", "post_type").collect(engine="streaming")
    repeated = ids["id"].clear()
    if ids["id"].n_unique() < ids.height:
        repeated = ids["id"].filter(ids["id"].is_duplicated()).unique()
    questions = ids.filter(pl.col("post_type") == _QUESTION).select(parent_id="id")
    answers = posts.filter((pl.col("post_type") == _ANSWER) & (pl.col("parent_id") % shares == number))
    asked = answers.select("id", "parent_id").collect(engine="streaming")
    return repeated, asked.join(questions, on="parent_id", how="anti")["id"]
