"""After `ingest`: what the posts or the pairs of one source must be. One row of counts, one form for both kinds."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from data_checks.check import Check
from data_checks.faults import EXAMPLES, Fault, critical, examples, expectations, some_rows, tally
from data_checks.pair_faults import COLUMNS, FAULTS, duplicate_id
from data_checks.post_ids import repeated_and_orphans

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

_QUESTION: Final = 1
_ANSWER: Final = 2
_FIRST_POST: Final = pl.datetime(2008, 7, 31, time_unit="ms", time_zone="UTC")  # Stack Overflow's question 4

# Bodies are not looked at: that would read the whole dump once more. `pair` drops and counts those that say nothing.
POST_FAULTS: Final = (
    Fault("no_id", pl.col("id").is_null(), "A post is found again by its id."),
    Fault("no_site", pl.col("site").is_null(), "Ids are unique only within a site."),
    Fault(
        "other_type",
        ~pl.col("post_type").is_in([_QUESTION, _ANSWER]) | pl.col("post_type").is_null(),
        "Only questions and answers make pairs.",
    ),
    Fault(
        "answers_nothing",
        (pl.col("post_type") == _ANSWER) & pl.col("parent_id").is_null(),
        "An answer says which question it is to.",
    ),
    Fault("no_score", pl.col("score").is_null(), "Without votes there is no rank."),
    Fault("no_date", pl.col("created").is_null(), "Licence and order follow from the date."),
    Fault(
        "too_old",
        pl.col("created") < _FIRST_POST,
        "The network's first question is of 2008-07-31.",
        severity="warning",
    ),
)
# Posts of a set that tells ranks in place of votes, and no dates of answers; they lie in a folder a site.
RANKED_FAULTS: Final = (
    *(fault for fault in POST_FAULTS if fault.name not in ("no_score", "no_date")),
    Fault("no_rank", (pl.col("post_type") == _ANSWER) & pl.col("rank").is_null(), "Ranks are what pairs are made by."),
)
PAIR_FAULTS: Final = (*FAULTS, duplicate_id("critical"))
# Of all posts together (data_checks/post_ids.py); `duplicate_id` is asked of posts and pairs alike.
_ORPHAN: Final = Fault("orphan", pl.lit(value=False), "An answer's question is in the same dump.")


def check() -> Check:
    """Posts have what pairs are made of; pairs from elsewhere are whole. Counts of the other kind are null."""
    every = {fault.name: fault for fault in (*POST_FAULTS, *RANKED_FAULTS, _ORPHAN, *PAIR_FAULTS)}

    def suite() -> "ExpectationSuite":
        import great_expectations as gx

        return gx.ExpectationSuite(
            name="ingested", expectations=[some_rows("posts or pairs"), *expectations(list(every.values()))]
        )

    def frame(folder: Path) -> pl.DataFrame:
        found = tally(_pairs(folder), PAIR_FAULTS) if _has_pairs(folder) else _posts_tally(folder)
        return found.with_columns(pl.lit(None, pl.Int64).alias(name) for name in every if name not in found.columns)

    return Check(
        name="ingested", version=1, frame=frame, suite=suite, examples=_failing, critical=critical(every.values())
    )


def _posts_tally(folder: Path) -> pl.DataFrame:
    found = tally(_posts(folder), _post_faults(folder))
    repeated, orphans = _strays(folder)
    return found.with_columns(duplicate_id=pl.lit(len(repeated), pl.Int64), orphan=pl.lit(len(orphans), pl.Int64))


def _failing(folder: Path, column: str) -> list[str]:
    """The ids of some rows with the fault `column`."""
    if _has_pairs(folder):
        return examples(_pairs(folder), PAIR_FAULTS, column, pl.col("pair_id"))
    posts = _posts(folder)
    if column in ("duplicate_id", "orphan"):
        repeated, orphans = _strays(folder)
        return [str(post) for post in (repeated if column == "duplicate_id" else orphans).head(EXAMPLES)]
    return examples(
        posts,
        _post_faults(folder),
        column,
        pl.format("{}/{}", pl.col("site").fill_null("?"), pl.col("id").fill_null(-1)),
    )


def _has_pairs(folder: Path) -> bool:
    return (folder / "pairs.parquet").exists()


def _pairs(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / "pairs.parquet").select(COLUMNS)


def _posts(folder: Path) -> pl.LazyFrame:
    columns = ["site", "id", "post_type", "parent_id", "score", "created", *(["rank"] if _site_folders(folder) else [])]
    table = folder / "posts.parquet"
    return pl.scan_parquet(sorted(table.rglob("*.parquet")) if table.is_dir() else table).select(columns)


def _post_faults(folder: Path) -> tuple[Fault, ...]:
    return RANKED_FAULTS if _site_folders(folder) else POST_FAULTS


def _site_folders(folder: Path) -> list[Path]:
    """A folder a site where the source has several; none where the posts are one site's."""
    table = folder / "posts.parquet"
    return sorted(entry for entry in table.iterdir() if entry.is_dir()) if table.is_dir() else []


def _strays(folder: Path) -> tuple[pl.Series, pl.Series]:
    """Ids that two posts of one site bear, and ids of answers without a question on their site."""
    tables = [pl.scan_parquet(site / "*.parquet") for site in _site_folders(folder)] or [_posts(folder)]
    found = [repeated_and_orphans(posts, posts.select(pl.len()).collect().item()) for posts in tables]
    repeated, orphans = (pl.concat(part).sort() for part in zip(*found, strict=True))
    return repeated, orphans
