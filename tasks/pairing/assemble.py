"""Candidates and the Markdown of their posts -> pairs with all their columns.

in   candidates of one site, the texts of its posts, the names of its users
out  pairs (tasks/pairs.py), and those dropped because a side has no text
"""

from typing import Final, NamedTuple

import polars as pl

from tasks.pairing.licences import licence
from tasks.pairs import DROPPED_SCHEMA, PAIR_SCHEMA, pair_id_expr

TEXT_FAULTS: Final = (
    "unconvertible_prompt", "unconvertible_chosen", "unconvertible_rejected",
    "empty_prompt", "empty_chosen", "empty_rejected",
)  # fmt: skip
"""unconvertible: HTML nested deeper than the converter goes, or that it cannot make sense of."""


class Assembled(NamedTuple):
    """Every candidate is in one of the two."""

    pairs: pl.DataFrame
    dropped: pl.DataFrame


def assemble(candidates: pl.DataFrame, texts: pl.DataFrame, names: pl.DataFrame, *, include_title: bool) -> Assembled:
    """Pairs in the order of `candidates` (CANDIDATE_SCHEMA).

    `texts`: TEXT_SCHEMA, one row a post; `names`: `user_id`, `name`, one row a user.
    """
    posts = texts.join(names, left_on="owner_id", right_on="user_id", how="left").select(
        "id", "text", "complete", "title", "tags", "score", "created",
        author=pl.coalesce("name", "owner_name"),  # the profile's, which is what a link to it leads to
        author_id="owner_id",
        license=licence(pl.col("license"), pl.col("created"), pl.col("edited")),
        license_stated=pl.col("license").is_not_null(),
    )  # fmt: skip
    joined = candidates
    for side in ("question", "chosen", "rejected"):
        prefixed = posts.select(pl.all().name.prefix(f"{side}_"))
        joined = joined.join(prefixed, on=f"{side}_id", how="left", maintain_order="left")
    prompt = pl.col("question_text")
    if include_title:
        prompt = pl.concat_str(pl.col("question_title").str.strip_chars(), prompt, separator="\n\n", ignore_nulls=True)
    stated = [
        pl.when(pl.col(f"{side}_license").is_not_null()).then(f"{side}_license_stated").alias(f"{side}_license_stated")
        for side in ("question", "chosen", "rejected")
    ]
    full = joined.with_columns(
        *stated,
        pair_id=pair_id_expr(),
        prompt=prompt.str.strip_chars(),
        chosen="chosen_text",
        rejected="rejected_text",
        created="question_created",
        tags="question_tags",
    )
    reason = pl.coalesce(
        *(
            pl.when(~pl.col(f"{side}_complete")).then(pl.lit(f"unconvertible_{name}"))
            for side, name in (("question", "prompt"), ("chosen", "chosen"), ("rejected", "rejected"))
        ),
        *(pl.when(pl.col(name) == "").then(pl.lit(f"empty_{name}")) for name in ("prompt", "chosen", "rejected")),
    )
    judged = full.with_columns(reason=reason)
    return Assembled(
        judged.filter(pl.col("reason").is_null()).select(PAIR_SCHEMA.names()).cast(PAIR_SCHEMA),
        dropped_pairs(judged.filter(pl.col("reason").is_not_null()), pl.col("reason")),
    )


def dropped_pairs(pairs: pl.DataFrame, reason: pl.Expr) -> pl.DataFrame:
    """The rows of dropped.parquet for `pairs`, which have the ids of CANDIDATE_SCHEMA."""
    return pairs.select(pair_id=pair_id_expr(), reason=reason, place=pair_place()).cast(DROPPED_SCHEMA)


def pair_place() -> pl.Expr:
    """Where in its site a pair stands, over the ids of CANDIDATE_SCHEMA."""
    return pl.format("question {}, answers {} and {}", "question_id", "chosen_id", "rejected_id")
