"""Attribution: train pairs -> one row a post that training used, as CC BY-SA asks.

in   train.parquet (sample)
out  attribution.csv   ATTRIBUTION columns; UTF-8, LF, sorted by site and post

A year later this file answers which post a training pair came from, who wrote it and under what licence.
"""

from pathlib import Path
from typing import Final

import polars as pl

from tasks.pairs import is_host
from tasks.reports.escaping import csv_cell

ATTRIBUTION: Final = (
    "site",  # host name; empty where the source does not tell
    "post_id",  # id of the post on its site; empty where the source has none
    "kind",  # question or answer
    "url",  # link to the post
    "author",  # display name as it was in the dump; empty where unknown
    "author_url",  # link to the author's profile; empty for deleted users
    "license",  # with its version, e.g. CC BY-SA 4.0
    "license_url",
    "license_basis",  # stated: on the post's row; worked out: from its dates; unknown
    "pair_id",  # the first pair, by name, that uses the post
)

# `is_host` of tasks/pairs.py in the language of polars, which has no look-ahead.
_HOST: Final = r"(?i)^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,}$"


def posts_used(pairs: pl.LazyFrame) -> pl.DataFrame:
    """One row a post of `pairs` (tasks/pairs.py) with the columns of ATTRIBUTION, sorted.

    A post is known by site and id; where the source has none, by its text, so that a prompt of three pairs counts once.
    """
    sides = [_side(pairs, kind, text, post_id, who) for kind, text, post_id, who in (
        ("question", "prompt", "question_id", "question"),
        ("answer", "chosen", "chosen_id", "chosen"),
        ("answer", "rejected", "rejected_id", "rejected"),
    )]  # fmt: skip
    posts = pl.concat(sides).group_by("site", "post_id", "kind", "text").agg(
        pl.col("author", "author_id", "license", "stated", "pair_id").sort_by("pair_id").first()
    )  # fmt: skip
    host = pl.col("site").str.contains(_HOST)
    letter = pl.when(pl.col("kind") == "question").then(pl.lit("q")).otherwise(pl.lit("a"))
    version = pl.col("license").str.extract(r"^CC BY-SA (\d\.\d)$")
    found = posts.with_columns(
        url=pl.when(host).then(pl.format("https://{}/{}/{}", "site", letter, "post_id")),
        author_url=pl.when(host).then(pl.format("https://{}/users/{}", "site", "author_id")),
        license_url=pl.format("https://creativecommons.org/licenses/by-sa/{}/", version),
        license_basis=pl.when(pl.col("license").is_null()).then(pl.lit("unknown"))
        .when(pl.col("stated")).then(pl.lit("stated")).otherwise(pl.lit("worked out")),
    )  # fmt: skip
    return found.sort("site", "post_id", "kind", "pair_id", nulls_last=True).select(ATTRIBUTION).collect()


def _side(pairs: pl.LazyFrame, kind: str, text: str, post_id: str, who: str) -> pl.LazyFrame:
    return pairs.select(
        "pair_id",
        "site",
        kind=pl.lit(kind),
        post_id=pl.col(post_id),
        # Texts are compared only where there is no id to go by.
        text=pl.when(pl.col(post_id).is_null() | pl.col("site").is_null()).then(pl.col(text)),
        author=pl.col(f"{who}_author"),
        author_id=pl.col(f"{who}_author_id"),
        license=pl.col(f"{who}_license"),
        stated=pl.col(f"{who}_license_stated"),
    )


def post_url(site: str | None, who: str, post_id: int | None) -> str | None:
    """Link to a question (`who` is "question") or to an answer; None where site or id is unknown."""
    if site is None or post_id is None or not is_host(site):
        return None
    return f"https://{site}/{'q' if who == 'question' else 'a'}/{post_id}"


def author_url(site: str | None, author_id: int | None) -> str | None:
    """Link to an author's profile; None where site or id is unknown."""
    if site is None or author_id is None or not is_host(site):
        return None
    return f"https://{site}/users/{author_id}"


def write_attribution(posts: pl.DataFrame, path: Path) -> None:
    """`posts` as CSV in which no cell is a formula or a second line."""
    texts = [name for name, kind in posts.schema.items() if kind == pl.String]
    posts.with_columns(csv_cell(name) for name in texts).write_csv(path, line_terminator="\n", quote_style="necessary")


def licenses(posts: pl.DataFrame) -> pl.DataFrame:
    """`license, license_basis, posts`: how many posts are under which licence, the most first."""
    counted = posts.group_by(pl.col("license").fill_null("unknown"), "license_basis").len("posts")
    return counted.sort("posts", "license", "license_basis", descending=[True, False, False])
