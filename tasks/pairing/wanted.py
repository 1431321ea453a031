"""The posts that candidates are made of: taken out of the parts of posts.parquet, and put together with their Markdown.

in   one part of posts.parquet, the ids that are wanted; what a worker made of their HTML (tasks/pairing/texts.py)
out  the wanted posts of that part with `text` in place of `body`, by question, so that those of a range of questions
     are found without reading the others

A part whose file is there is not made again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from tasks.digests import sync_file
from tasks.pairing.exchange import read_texts, write_texts
from tasks.pairing.texts import TextJob
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
_TOLD: Final = [*TEXT_SCHEMA.names()[4:], "id", "post_type", "parent_id"]


@dataclass(frozen=True)
class Part:
    """One part of a site's posts on its way."""

    posts: Path
    wanted: pl.DataFrame
    """`id`, of all parts."""
    site: str
    out: Path
    """TEXT_SCHEMA, when it is done."""

    @property
    def job(self) -> TextJob:
        """What a worker is asked."""
        bodies, texts = (str(self.out.with_suffix(suffix)) for suffix in (".bodies", ".texts"))
        return TextJob(bodies=bodies, site=self.site, out=texts)

    def lay_out(self) -> None:
        """Write the HTML of the wanted posts for the worker."""
        here = self._here(["id"])
        if here.height:  # the bodies are nearly all there is to read
            here = self._here(["id", "body"])
        bodies = here["body"].cast(pl.Binary).to_list() if here.height else []
        write_texts(Path(self.job["bodies"]), here["id"].to_list(), bodies)

    def put_together(self) -> None:
        """Write what the worker made of the wanted posts."""
        job = self.job
        complete, texts = read_texts(Path(job["out"]))
        found = self._here(_TOLD).with_columns(
            question_id=pl.when(pl.col("post_type") == QUESTION).then("id").otherwise("parent_id"),
            text=pl.Series(texts, dtype=pl.Binary).cast(pl.String),
            complete=pl.Series(complete, dtype=pl.Int64) == 1,
        )
        scratch = self.out.with_suffix(".tmp")
        # Not compressed: that would take longer than all else here, for a file that does not stay.
        found.select(TEXT_SCHEMA.names()).sort("question_id", "id").write_parquet(
            scratch, compression="uncompressed", row_group_size=ROW_GROUP
        )
        sync_file(scratch)
        scratch.rename(self.out)
        for path in (job["bodies"], job["out"]):
            Path(path).unlink()

    def _here(self, columns: list[str]) -> pl.DataFrame:
        """The wanted posts of the part, in its order."""
        posts = pl.read_parquet(self.posts, columns=columns)
        return posts.join(self.wanted, on="id", how="semi", maintain_order="left")
