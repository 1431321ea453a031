"""A pair: one prompt, the answer that was preferred and the one that was not, and where all three came from.

This file is the one place that says which columns a pair has, what they mean, and what `pair_id` is.
"""

import re
from typing import Final

import polars as pl
from blake3 import blake3

UTC_MS: Final = pl.Datetime("ms", "UTC")

_COLUMNS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "pair_id": pl.String,  # SITE/QUESTION/CHOSEN/REJECTED, or SOURCE/<16 hex digits of the content>
    "site": pl.String,  # host name; ids are unique only within a site
    "question_id": pl.Int64,  # the three ids are null where the source has none
    "chosen_id": pl.Int64,
    "rejected_id": pl.Int64,
    "prompt": pl.String,  # Markdown, stripped
    "chosen": pl.String,
    "rejected": pl.String,
    "chosen_rank": pl.Int64,  # the value under the ranking rule; chosen > rejected always
    "rejected_rank": pl.Int64,
    "chosen_score": pl.Int64,  # net votes
    "rejected_score": pl.Int64,
    "question_score": pl.Int64,
    "chosen_accepted": pl.Boolean,  # accepted by the asker, and an answer to this very question
    "rejected_accepted": pl.Boolean,
    "created": UTC_MS,
    "chosen_created": UTC_MS,
    "rejected_created": UTC_MS,
    "tags": pl.List(pl.String),
    "question_author": pl.String,  # display name; null where unknown, never invented
    "chosen_author": pl.String,
    "rejected_author": pl.String,
    "question_author_id": pl.Int64,
    "chosen_author_id": pl.Int64,
    "rejected_author_id": pl.Int64,
    "question_license": pl.String,  # e.g. "CC BY-SA 4.0"
    "chosen_license": pl.String,
    "rejected_license": pl.String,
    "question_license_stated": pl.Boolean,  # false: worked out from the dates
    "chosen_license_stated": pl.Boolean,
    "rejected_license_stated": pl.Boolean,
}
PAIR_SCHEMA: Final = pl.Schema(_COLUMNS)

DEDUPED_SCHEMA: Final = pl.Schema({**_COLUMNS, "cluster": pl.String})

# `place` says where in the source a dropped row stands: a post's "line 12", a file's "row 7", a pair's ids.
DROPPED_SCHEMA: Final = pl.Schema({"pair_id": pl.String, "reason": pl.String, "place": pl.String})


def pair_id(site: str, question_id: int, chosen_id: int, rejected_id: int) -> str:
    """The name of a pair whose posts have ids, e.g. `beer.stackexchange.com/1/4/7`."""
    return f"{site}/{question_id}/{chosen_id}/{rejected_id}"


def pair_id_expr() -> pl.Expr:
    """`pair_id` over the columns `site`, `question_id`, `chosen_id`, `rejected_id`."""
    return pl.format("{}/{}/{}/{}", "site", "question_id", "chosen_id", "rejected_id")


def content_pair_id(source: str, prompt: str, chosen: str, rejected: str) -> str:
    """The name of a pair whose source has no ids: `SOURCE/<16 hex digits of the content>`."""
    digest = blake3()
    for text in (prompt, chosen, rejected):
        raw = text.encode("utf-8")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return f"{source}/{digest.hexdigest()[:16]}"


_HOST = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,}", re.IGNORECASE)


def is_host(name: str) -> bool:
    """Whether `name` is a host name such as `beer.stackexchange.com`."""
    return _HOST.fullmatch(name) is not None
