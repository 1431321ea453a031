"""The posts that candidates are made of: found in the parts of posts.parquet, each turned into Markdown once.

in   one part of posts.parquet, the ids that are wanted
out  the wanted posts of that part with `text` in place of `body`, by question, so that those of a range of questions
     are found without reading the others

It runs in a worker; a part that is there is not made again. Which post it is at stands beside the part, so that one
which ends the worker can be told, and be left out the next time (tasks/pairing/conversion.py).
"""

import json
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypedDict

import polars as pl

from tasks.digests import sync_file
from tasks.pairing.markdown import Converted, to_markdown
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
        converted = list(_converted(posts, job))
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


def at_path(job: TextJob) -> Path:
    """The file with the id of the post that is being converted: eight bytes, 0 before the first and after the last."""
    return Path(job["out"]).with_suffix(".at")


def refused_path(job: TextJob) -> Path:
    """The file with the ids of posts that are not to be tried: a JSON list."""
    return Path(job["out"]).with_suffix(".refused")


def _converted(posts: pl.DataFrame, job: TextJob) -> Iterator[Converted]:
    """What became of each of `posts`, in their order."""
    refused = set(json.loads(refused_path(job).read_text())) if refused_path(job).is_file() else set()
    with open(at_path(job), "w+b") as handle:
        handle.truncate(8)
        with mmap.mmap(handle.fileno(), 8) as at:  # survives the process, and costs no call of the system
            for number, body in zip(posts["id"], posts["body"], strict=True):
                at[:] = struct.pack("<q", number)
                yield Converted("", False) if number in refused else to_markdown(body, job["site"])
            at[:] = bytes(8)
