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
from numpy.typing import NDArray

from tasks.errors import InputError
from tasks.keyed import Purpose, keyed_ranks
from tasks.pairing.number_switches import NONE, Switches, reason_names
from tasks.pairing.ranking import Rule, ranks
from tasks.pairs import pair_id_expr

SHARE: Final = 2_000_000  # answers held at once
BLOCK: Final = 1_000_000  # pairs held at once
MAX_ANSWERS: Final = 10_000  # to one question; the most on any site is about 1,500, and pairs grow with the square
# Pairs of one share: so many, and so many for each answer more. Two million are looked at in a second; Code Golf, whose
# questions have the most answers of all sites, has some seven million.
MAX_PAIRS: Final = 20_000_000
MAX_PAIRS_PER_ANSWER: Final = 20

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
        blocks = _blocks(answers, site, rules, chosen.counts, drop)
        chosen.counts["capped"] += 0
        if rules.max_pairs_per_question is None:
            for pairs in blocks:
                _add(chosen, pairs, rules)
            continue
        found = [_capped(block, rules) for block in blocks]
        if not found:
            continue
        eligible = sum(block[1] for block in found)
        kept, _ = _capped(pl.concat([block[0] for block in found]), rules)
        chosen.counts["capped"] += eligible - kept.height
        _add(chosen, kept, rules)


def _add(chosen: Chosen, pairs: pl.DataFrame, rules: Rules) -> None:
    chosen.counts["candidates"] += pairs.height
    chosen.pairs = lowest(pl.concat([chosen.pairs, pairs]), rules.candidates, rules.seed, "sample")


def lowest(pairs: pl.DataFrame, number: int | None, seed: int, purpose: Purpose) -> pl.DataFrame:
    """The `number` of `pairs` with the lowest keyed rank of their names; all where there are no more."""
    if number is None or pairs.height <= number:
        return pairs
    keyed = _keyed(pairs, seed, purpose).filter(pl.col("key") <= pl.col("key").bottom_k(number).max())
    return keyed.sort("key", "name").head(number).select(pairs.columns)


def _keyed(pairs: pl.DataFrame, seed: int, purpose: Purpose) -> pl.DataFrame:
    """`pairs` with the keyed rank of their names as `key`, and `name`, which breaks the tie that is never seen."""
    names = pairs.select(pair_id_expr().alias("name"))["name"]
    return pairs.with_columns(name=names, key=keyed_ranks(seed, purpose, names))


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
    _refuse_too_many(np.diff(last, prepend=-1), question[last], site)
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


def _refuse_too_many(answers: NDArray[np.int64], question: NDArray[np.int64], site: str) -> None:
    """InputError where questions have more answers, `answers` each, than those of any true site."""
    worst = int(np.argmax(answers))
    most = int(answers[worst])
    if most > MAX_ANSWERS:
        raise InputError(
            f"{site}: question {question[worst]} has {most} answers, more than the {MAX_ANSWERS} that any true one"
            " could have"
        )
    pairs = int((answers * (answers - 1) // 2).sum())
    bound = MAX_PAIRS + MAX_PAIRS_PER_ANSWER * int(answers.sum())
    if pairs > bound:
        raise InputError(
            f"{site}: the answers to its questions make {pairs} pairs, more than the {bound} that a true site could"
            f" have; question {question[worst]} has the most answers, {most}"
        )


def _capped(pairs: pl.DataFrame, rules: Rules) -> tuple[pl.DataFrame, int]:
    """`pairs` with not more than the cap of each question, those of the lowest keyed rank; and how many came."""
    cap = rules.max_pairs_per_question
    if cap is None:
        return pairs, pairs.height
    over = pl.len().over("question_id") > cap
    many = pairs.filter(over)
    if many.is_empty():
        return pairs, pairs.height
    # Sorted are only those that can be among the lowest: of a question with thousands of answers few of millions.
    keyed = _keyed(many, rules.seed, "cap").filter(
        pl.col("key") <= pl.col("key").bottom_k(cap).max().over("question_id")
    )
    few = keyed.sort("key", "name").filter(pl.int_range(pl.len()).over("question_id") < cap)
    return pl.concat([pairs.filter(~over), few.select(pairs.columns)]), pairs.height
