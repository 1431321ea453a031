"""What only the whole file can tell: posts whose number another has, and answers without a question.

in   the parts of a file's posts
out  which rows of which part are not to stay, and why

Of posts with one number the same one stays whatever their order. Numbers are looked at a share at a time, so that the
memory does not grow with the file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl
from blake3 import blake3

from tasks.sources.posts import ANSWER, QUESTION

SHARE: Final = 8_000_000  # posts looked at at once: about 300 MB
_NARROW: Final = ("id", "post_type", "parent_id", "offset")
REMOVAL_SCHEMA: Final = pl.Schema(
    {"part": pl.Int64, "row": pl.UInt32, "post_id": pl.Int64, "offset": pl.Int64, "reason": pl.String}
)


def removals(parts: Sequence[Path], posts: int, *, share: int = SHARE) -> pl.DataFrame:
    """The rows to remove (REMOVAL_SCHEMA), sorted by part and row; `row` counts within the part."""
    shares = max(1, -(-posts // share))
    repeated = _repeated(parts, shares)
    twice = _losers(parts, repeated)
    gone = twice.select("part", "row")
    orphans = [_orphans(parts, number, shares, gone) for number in range(shares)]
    return pl.concat([twice, *orphans]).sort("part", "row")


def _repeated(parts: Sequence[Path], shares: int) -> pl.Series:
    found = []
    for number in range(shares):
        ids = pl.concat(
            pl.read_parquet(part, columns=["id"]).filter(pl.col("id") % shares == number)["id"] for part in parts
        )
        if ids.n_unique() < len(ids):
            found.append(ids.filter(ids.is_duplicated()).unique())
    return pl.concat(found) if found else pl.Series("id", [], dtype=pl.Int64)


def _losers(parts: Sequence[Path], repeated: pl.Series) -> pl.DataFrame:
    """The rows with repeated numbers but one each: the one whose content has the lowest digest."""
    if repeated.is_empty():
        return pl.DataFrame(schema=REMOVAL_SCHEMA)
    rows = []
    for number, part in enumerate(parts):
        held = pl.read_parquet(part).with_row_index("row").filter(pl.col("id").is_in(repeated.implode()))
        content = held.select(pl.exclude("row", "offset", "place")).iter_rows()
        rows.append(
            held.select("row", "id", "offset").with_columns(
                part=pl.lit(number, pl.Int64),
                digest=pl.Series([blake3(repr(row).encode()).hexdigest() for row in content], dtype=pl.String),
            )
        )
    ranked = pl.concat(rows).sort("id", "digest", "part", "row")
    return ranked.filter(~pl.col("id").is_first_distinct()).select(
        "part", "row", "offset", post_id="id", reason=pl.lit("duplicate_id")
    ).select(REMOVAL_SCHEMA.names())  # fmt: skip


def _orphans(parts: Sequence[Path], number: int, shares: int, gone: pl.DataFrame) -> pl.DataFrame:
    narrow = []
    for index, part in enumerate(parts):
        question = pl.when(pl.col("post_type") == QUESTION).then("id").otherwise("parent_id")
        narrow.append(
            pl.read_parquet(part, columns=list(_NARROW))
            .with_row_index("row")
            .with_columns(question=question, part=pl.lit(index, pl.Int64))
            .filter(pl.col("question") % shares == number)
        )
    posts = pl.concat(narrow).join(gone, on=["part", "row"], how="anti")
    questions = posts.filter(pl.col("post_type") == QUESTION).select(question="id")
    answers = posts.filter(pl.col("post_type") == ANSWER)
    return answers.join(questions, on="question", how="anti").select(
        "part", "row", "offset", post_id="id", reason=pl.lit("orphan")
    ).select(REMOVAL_SCHEMA.names())  # fmt: skip
