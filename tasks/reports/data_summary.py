"""Data summary: the training pairs in numbers, for the data card and the report.

in   train.parquet (sample), token lengths where there are any, the posts used (tasks/publication/attribution.py)
out  Summary: tables and quantiles; the only texts are those of the few examples
"""

from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from tasks.evaluation.facts import FACTS_SCHEMA, fact_expressions
from tasks.publication.attribution import licenses

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
    """Chosen longer (characters, tokens), accepted, earlier; code; cut at the length limit. Tokens only where known."""
    tokens: pl.DataFrame | None
    """`chosen, rejected` of every pair, tokens as trained; None where nothing is tokenized yet."""
    characters: pl.DataFrame
    """The same in characters of the whole texts; both are for the plot."""
    examples: list[dict[str, Any]]
    """The first pairs of the sample, whole."""


def summarize(pairs: pl.LazyFrame, lengths: pl.DataFrame | None, posts: pl.DataFrame) -> Summary:
    """`pairs` (tasks/pairs.py) beside their token `lengths` (held_out.py), where they are tokenized."""
    facts = pairs.select(
        *(expression for name, expression in fact_expressions().items() if name in FACTS_SCHEMA and name != "unit"),
        question_id="question_id",
        prompt_chars=pl.col("prompt").str.len_chars().cast(pl.Int64),
        prompt_hash=pl.when(pl.col("question_id").is_null()).then("prompt"),
    ).collect()  # fmt: skip
    known = facts if lengths is None else facts.join(lengths, on="pair_id", how="inner", maintain_order="left")
    measured = {
        "question, characters": known["prompt_chars"],
        "chosen answer, characters": known["chosen_chars"],
        "rejected answer, characters": known["rejected_chars"],
    }
    in_tokens = {}
    if lengths is not None:
        measured |= {f"{side} answer, tokens": known[f"{side}_tokens"] for side in ("chosen", "rejected")}
        in_tokens = {
            "longer_tokens": (pl.col("chosen_tokens") > pl.col("rejected_tokens")).mean(),
            "chosen_cut": pl.col("chosen_cut").mean(),
            "rejected_cut": pl.col("rejected_cut").mean(),
        }
    decided = pl.col("earlier") != 0.5
    shares = known.select(
        longer_characters=(pl.col("chosen_chars") > pl.col("rejected_chars")).mean(),
        accepted=(pl.col("accepted") == 1.0).mean(),
        earlier=pl.col("earlier").filter(decided).mean(),
        code=(pl.col("code_share") > 0).mean(),
        **in_tokens,
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
        tokens=None if lengths is None else known.select(chosen="chosen_tokens", rejected="rejected_tokens"),
        characters=known.select(chosen="chosen_chars", rejected="rejected_chars"),
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
