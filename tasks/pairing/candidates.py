"""Which pairs of answers become candidates, decided on numbers alone, before any text is touched.

in   the ids, votes (or ranks, where the source tells those) and dates of questions and answers
out  candidate pairs, and counts that add up:
     considered = ties + dropped.* (tasks/pairing/number_switches.py) + capped + not_candidate + candidates

Questions are taken a share at a time, and within a share pairs a block at a time, so the memory is bounded by `SHARE`,
`BLOCK` and the number of candidates, whatever the number of posts or of answers to one question.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from tasks.errors import InputError
from tasks.keyed import Purpose, keyed_ranks
from tasks.pairing.number_switches import NONE, Switches, reason_names
from tasks.pairing.ranking import Rule, ranks
from tasks.pairs import pair_id_expr

SHARE: Final = 2_000_000  # answers held at once
BLOCK: Final = 1_000_000  # pairs held at once
MAX_ANSWERS: Final = 10_000  # to one question; the most on any site is about 1,500, and pairs grow with the square

_QUESTION: Final = 1
_ANSWER: Final = 2


CANDIDATE_SCHEMA: Final = pl.Schema(
    {
        "site": pl.String(), "question_id": pl.Int64(), "chosen_id": pl.Int64(), "rejected_id": pl.Int64(),
        "chosen_rank": pl.Int64(), "rejected_rank": pl.Int64(),
        "chosen_accepted": pl.Boolean(), "rejected_accepted": pl.Boolean(),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """What makes a candidate; the keys of `pair` in a recipe."""

    rule: Rule
    max_pairs_per_question: int | None
    candidates: int | None
    seed: int
    switches: Switches


@dataclass
class Chosen:
    """Candidates so far."""

    pairs: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CANDIDATE_SCHEMA))
    """CANDIDATE_SCHEMA; not more than `candidates`, those of the lowest keyed rank."""
    counts: Counter[str] = field(default_factory=Counter)


def choose(posts: Path, site: str, rules: Rules, chosen: Chosen, drop: Callable[[pl.DataFrame], None]) -> None:
    """Add the candidates of one site's posts to `chosen`; `drop` gets what a switch leaves out, with its `reason`."""
    for answers in _shares(posts, site, rules.switches):
        found = [_capped(block, rules) for block in _blocks(answers, site, rules, chosen.counts, drop)]
        if not found:
            continue
        eligible = sum(block[1] for block in found)
        kept, _ = _capped(pl.concat([block[0] for block in found]), rules)
        chosen.counts["capped"] += eligible - kept.height
        chosen.counts["candidates"] += kept.height
        chosen.pairs = lowest(pl.concat([chosen.pairs, kept]), rules.candidates, rules.seed, "sample")


def lowest(pairs: pl.DataFrame, number: int | None, seed: int, purpose: Purpose) -> pl.DataFrame:
    """The `number` of `pairs` with the lowest keyed rank of their names; all where there are no more."""
    if number is None or pairs.height <= number:
        return pairs
    return _ranked(pairs, seed, purpose).head(number).select(pairs.columns)


def _ranked(pairs: pl.DataFrame, seed: int, purpose: Purpose) -> pl.DataFrame:
    """`pairs` by the keyed rank of their names; names break the tie that is never seen."""
    names = pairs.select(pair_id_expr().alias("name"))["name"]
    return pairs.with_columns(name=names, key=keyed_ranks(seed, purpose, names)).sort("key", "name")


def _shares(posts: Path, site: str, switches: Switches) -> Iterator[pl.DataFrame]:
    """The answers to questions that have two or more, with `accepted`, sorted by question and id.

    `rank` is there where the source tells it; what the switches judge by, where they are on.
    """
    scan = pl.scan_parquet(posts / "*.parquet")
    told = [name for name in ("rank",) if name in scan.collect_schema()]
    parents = scan.filter(pl.col("post_type") == _ANSWER).select("parent_id").collect()["parent_id"].sort()
    bounds = [int(parents[at]) for at in range(SHARE, len(parents), SHARE)]
    ends: list[int | None] = [*sorted(set(bounds)), None]
    start = None
    del parents
    for end in ends:
        answers = _within(scan.filter(pl.col("post_type") == _ANSWER), "parent_id", start, end)
        questions = _within(scan.filter(pl.col("post_type") == _QUESTION), "id", start, end)
        start = end
        judged = switches.answer_columns(site), switches.question_columns(site)
        joined = answers.select(*told, *judged[0], question_id="parent_id", id="id", score="score").collect().join(
            questions.select(*judged[1], question_id="id", accepted_id="accepted_id").collect(), on="question_id"
        )  # fmt: skip
        several = joined.filter(pl.len().over("question_id") > 1)
        yield several.select(
            pl.exclude("accepted_id"), accepted=(pl.col("id") == pl.col("accepted_id")).fill_null(False)
        ).sort("question_id", "id")


def _within(posts: pl.LazyFrame, column: str, start: int | None, end: int | None) -> pl.LazyFrame:
    if start is not None:
        posts = posts.filter(pl.col(column) >= start)
    return posts if end is None else posts.filter(pl.col(column) < end)


def _blocks(
    answers: pl.DataFrame, site: str, rules: Rules, counts: Counter[str], drop: Callable[[pl.DataFrame], None]
) -> Iterator[pl.DataFrame]:
    """The pairs of `answers` that are preferences, a block at a time; ties and what switches leave out are counted."""
    if answers.is_empty():
        return
    question = answers["question_id"].to_numpy()
    last = np.flatnonzero(np.append(question[1:] != question[:-1], True))  # of each question
    most = int(np.diff(last, prepend=-1).max())
    if most > MAX_ANSWERS:
        worst = int(question[last[np.argmax(np.diff(last, prepend=-1))]])
        raise InputError(
            f"{site}: question {worst} has {most} answers, more than the {MAX_ANSWERS} that any true one could have"
        )
    later = last[np.searchsorted(last, np.arange(len(question)))] - np.arange(len(question))  # answers after this one
    before = np.append(0, np.cumsum(later))
    told = answers["rank"] if "rank" in answers.columns else ranks(rules.rule, answers["score"], answers["accepted"])
    rank = told.to_numpy()
    identity = answers["id"].to_numpy()
    accepted = answers["accepted"].to_numpy()
    at = 0
    while at < len(question):
        end = max(at + 1, int(np.searchsorted(before, before[at] + BLOCK, side="right")) - 1)
        left = np.repeat(np.arange(at, end), later[at:end])
        right = left + 1 + np.arange(len(left)) - np.repeat(before[at:end] - before[at], later[at:end])
        at = end
        counts["considered"] += len(left)
        untied = rank[left] != rank[right]
        counts["ties"] += len(left) - int(untied.sum())
        left, right = left[untied], right[untied]
        better = np.where(rank[left] > rank[right], left, right)
        worse = left + right - better
        pairs = pl.DataFrame(
            {
                "site": pl.repeat(site, len(better), dtype=pl.String, eager=True),
                "question_id": question[better], "chosen_id": identity[better], "rejected_id": identity[worse],
                "chosen_rank": rank[better], "rejected_rank": rank[worse],
                "chosen_accepted": accepted[better], "rejected_accepted": accepted[worse],
            },
            schema=CANDIDATE_SCHEMA,
        )  # fmt: skip
        # Unsigned, since the difference of two votes may not fit where the votes do.
        gap = pl.Series(rank[better].view(np.uint64) - rank[worse].view(np.uint64))
        why = rules.switches.verdicts(answers, better, worse, gap)
        gone = why != NONE
        if gone.any():
            reasons = reason_names(why[gone])
            drop(pairs.filter(pl.Series(gone)).with_columns(reasons))
            counts.update({f"dropped.{reason}": number for reason, number in reasons.value_counts().iter_rows()})
            pairs = pairs.filter(pl.Series(~gone))
        yield pairs


def _capped(pairs: pl.DataFrame, rules: Rules) -> tuple[pl.DataFrame, int]:
    """`pairs` with not more than the cap of each question, those of the lowest keyed rank; and how many came."""
    cap = rules.max_pairs_per_question
    if cap is None:
        return pairs, pairs.height
    over = pl.len().over("question_id") > cap
    many = pairs.filter(over)
    if many.is_empty():
        return pairs, pairs.height
    few = _ranked(many, rules.seed, "cap").filter(pl.int_range(pl.len()).over("question_id") < cap)
    return pl.concat([pairs.filter(~over), few.select(pairs.columns)]), pairs.height
