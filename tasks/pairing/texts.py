"""The posts that candidates are made of: found in the parts of posts.parquet, each turned into Markdown once.

in   one part of posts.parquet, the ids that are wanted
out  the wanted posts of that part with `text` in place of `body`, by question, so that those of a range of questions
     are found without reading the others

It runs in a worker; a part that is there is not made again.
"""

from pathlib import Path
from typing import Final, TypedDict

import polars as pl

from tasks.digests import sync_file
from tasks.pairing.markdown import to_markdown
from tasks.pairs import UTC_MS
from tasks.sources.posts import QUESTION

TEXT_SCHEMA: Final = pl.Schema(
    {
        "id": pl.Int64(), "question_id": pl.Int64(), "text": pl.String(), "complete": pl.Boolean(),
        "title": pl.String(), "tags": pl.List(pl.String()), "score": pl.Int64(), "created": UTC_MS, "edited": UTC_MS,
        "owner_id": pl.Int64(), "owner_name": pl.String(), "license": pl.String(),
    }
)  # fmt: skip

ROW_GROUP: Final = 1_000  # posts: what is read at least when those of a few questions are wanted


class TextJob(TypedDict):
    """One part to look through."""

    posts: str
    wanted: str
    """A parquet file with the column `id`."""
    site: str
    out: str


def convert_part(job: TextJob) -> int:
    """Write the wanted posts of one part (TEXT_SCHEMA); how many there are."""
    out = Path(job["out"])
    if out.is_file():
        return 0
    wanted = pl.read_parquet(job["wanted"])
    here = pl.read_parquet(job["posts"], columns=["id"]).join(wanted, on="id", how="semi")
    if here.is_empty():
        texts = pl.DataFrame(schema=TEXT_SCHEMA)
    else:
        posts = pl.read_parquet(job["posts"]).join(here, on="id", how="semi", maintain_order="left")
        converted = [to_markdown(body, job["site"]) for body in posts["body"]]
        answered = pl.when(pl.col("post_type") == QUESTION).then("id").otherwise("parent_id")
        texts = (
            posts.with_columns(
                question_id=answered,
                text=pl.Series([post.text for post in converted], dtype=pl.String),
                complete=pl.Series([post.complete for post in converted], dtype=pl.Boolean),
            )
            .select(TEXT_SCHEMA.names())
            .sort("question_id", "id")
        )
    scratch = out.with_suffix(".tmp")
    texts.write_parquet(scratch, compression="lz4", row_group_size=ROW_GROUP)
    sync_file(scratch)
    scratch.rename(out)
    return texts.height
