"""Data summary: the training pairs in numbers, for the data card and the report.

in   train.parquet (sample), token lengths, the posts used (tasks/attribution.py)
out  Summary: tables and quantiles; the only texts are those of the few examples
"""

from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from tasks.attribution import licenses
from tasks.facts import FACTS_SCHEMA, fact_expressions

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
EXAMPLES: Final = 3

_GAPS: Final = {"below 0": (None, -1), "0": (0, 0), "1": (1, 1), "2": (2, 2), "3–4": (3, 4), "5–9": (5, 9),
                "10–19": (10, 19), "20–49": (20, 49), "50 and more": (50, None)}  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """The training pairs in numbers. Shares are of the pairs where the fact is known; None where it never is."""

    pairs: int
    questions: int
    sites: list[tuple[str, int]]
    """Site and pairs, the most first."""
    years: list[tuple[int, int]]
    """Year in which the question was asked, and pairs."""
    score_gaps: list[tuple[str, int]]
    """Votes of chosen minus rejected, binned, and pairs."""
    licenses: list[tuple[str, str, int]]
    """Licence, stated or worked out, and posts."""
    lengths: dict[str, list[float]]
    """QUANTILES of each length: characters of the whole texts, tokens as trained."""
    shares: dict[str, float | None]
    """Chosen longer (tokens, characters), accepted, earlier; code; cut at the length limit."""
    tokens: pl.DataFrame
    """`chosen_tokens, rejected_tokens` of every pair, for the plot."""
    examples: list[dict[str, Any]]
    """The first pairs of the sample, whole."""


def summarize(pairs: pl.LazyFrame, lengths: pl.DataFrame, posts: pl.DataFrame) -> Summary:
    """`pairs` (tasks/pairs.py) that were trained on, beside their token `lengths` (tasks/held_out.py)."""
    facts = pairs.select(
        *(expression for name, expression in fact_expressions().items() if name in FACTS_SCHEMA and name != "unit"),
        question_id="question_id",
        prompt_chars=pl.col("prompt").str.len_chars().cast(pl.Int64),
        prompt_hash=pl.when(pl.col("question_id").is_null()).then("prompt"),
    ).collect()  # fmt: skip
    known = facts.join(lengths, on="pair_id", how="inner", maintain_order="left")
    tokens = known.select("chosen_tokens", "rejected_tokens")
    measured = {
        "question, characters": known["prompt_chars"],
        "chosen answer, characters": known["chosen_chars"],
        "rejected answer, characters": known["rejected_chars"],
        "chosen answer, tokens": known["chosen_tokens"],
        "rejected answer, tokens": known["rejected_tokens"],
    }
    decided = pl.col("earlier") != 0.5
    shares = known.select(
        longer_tokens=(pl.col("chosen_tokens") > pl.col("rejected_tokens")).mean(),
        longer_characters=(pl.col("chosen_chars") > pl.col("rejected_chars")).mean(),
        accepted=(pl.col("accepted") == 1.0).mean(),
        earlier=pl.col("earlier").filter(decided).mean(),
        code=pl.col("code").mean(),
        chosen_cut=pl.col("chosen_cut").mean(),
        rejected_cut=pl.col("rejected_cut").mean(),
    ).row(0, named=True)
    return Summary(
        pairs=known.height,
        questions=known.select("site", "question_id", "prompt_hash").n_unique(),
        sites=_counted(known["site"].fill_null("unknown"), by_count=True),
        years=_counted(known["year"].drop_nulls(), by_count=False),
        score_gaps=_binned(known["score_gap"].drop_nulls()),
        licenses=licenses(posts).rows(),
        lengths={name: _quantiles(values) for name, values in measured.items()},
        shares=shares,
        tokens=tokens,
        examples=pairs.head(EXAMPLES).collect().to_dicts(),
    )


def _counted(values: pl.Series, *, by_count: bool) -> list[tuple[Any, int]]:
    counted = values.rename("value").value_counts(name="pairs").rows()
    return sorted(counted, key=(lambda row: (-row[1], row[0])) if by_count else (lambda row: row[0]))


def _binned(gaps: pl.Series) -> list[tuple[str, int]]:
    """How many values lie in each bin of _GAPS, ends included; bins that are empty at either end are left out."""
    least, most = gaps.min(), gaps.max()
    if least is None or most is None:
        return []
    counted = [
        (label, int(gaps.is_between(least if low is None else low, most if high is None else high).sum()))
        for label, (low, high) in _GAPS.items()
    ]
    filled = [number for number, (_, count) in enumerate(counted) if count]
    return counted[filled[0] : filled[-1] + 1]


def _quantiles(values: pl.Series) -> list[float]:
    return [float(values.quantile(level, interpolation="nearest") or 0) for level in QUANTILES]
