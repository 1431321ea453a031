"""Which pairs go because a pair that stays says nearly the same, at three levels.

    near_pair      prompt, chosen and rejected are each near duplicates of those of the other pair
    near_question  the question is a near duplicate of another one, which keeps its pairs
    near_answer    chosen is a near duplicate of the chosen answer of a pair of another question, or rejected of its
                   rejected one

Questions take their turn in the order of their keyed rank, and the pairs of each in that of theirs; a pair goes when
one that has stayed before it says the same. So every pair that goes names one that stays and is near that very one,
not merely near something that is near it.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from tasks.duplicates.jaccard import Int
from tasks.duplicates.near_duplicates import NearTexts
from tasks.duplicates.shingles import WORDS
from tasks.keyed import keyed_ranks

NEAR_REASONS: Final = ("near_pair", "near_question", "near_answer")
# Ten words. "Yes, you can." says the same as another answer without being taken from it.
FEWEST: Final = 10 - (WORDS - 1)  # shingles

Near = dict[int, set[int]]  # the near duplicates of each text that has any


class Levels(NamedTuple):
    """Which levels drop pairs."""

    pairs: bool
    questions: bool
    answers: bool


class Turn(NamedTuple):
    """A pair in its turn; texts and questions as numbers."""

    turn: int
    row: int
    question: int
    prompt: int
    chosen: int
    rejected: int


def in_turn(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The rows with `question`, the number of the question they belong to, in the order of `turn`.

    Where a source has no ids, what has one prompt is one question. A question has the rank of its smallest pair_id.
    """
    anonymous = pl.when(pl.col("question_id").is_null()).then("prompt")
    named = rows.with_columns(_name=pl.col("pair_id").min().over("site", "question_id", anonymous))
    named = named.with_columns(
        question=pl.col("_name").rank("dense").cast(pl.Int64),
        _before=keyed_ranks(seed, "keeper", named["_name"]),
        _rank=keyed_ranks(seed, "keeper", named["pair_id"]),
    )
    ordered = named.sort("_before", "_name", "_rank", "pair_id").with_row_index("turn")
    return ordered.drop("_name", "_before", "_rank")


def near_reasons(rows: pl.DataFrame, prompts: NearTexts, answers: NearTexts, levels: Levels) -> pl.DataFrame:
    """`row`, `reason` and `keeper` of the rows to drop.

    rows  what is left after the exact duplicates, `in_turn`
    """
    near_prompts, near_answers = _near(prompts), _near(answers)
    asked = _Stayed(prompts, near_prompts)
    liked, disliked = _Stayed(answers, near_answers), _Stayed(answers, near_answers)
    pairs = _StayedPairs(prompts, answers, near_prompts, near_answers)
    found = []
    for pair in _involved(rows, prompts, answers):
        keeper = pairs.like(pair) if levels.pairs else None
        reason = "near_pair"
        if keeper is None and levels.questions:
            keeper, reason = asked.of_another(pair.prompt, pair.question), "near_question"
        if keeper is None and levels.answers:
            keeper, reason = liked.of_another(pair.chosen, pair.question), "near_answer"
            if keeper is None:
                keeper = disliked.of_another(pair.rejected, pair.question)
        if keeper is not None:
            found.append((pair.row, reason, keeper))
            continue
        pairs.add(pair)
        asked.add(pair.prompt, pair)
        liked.add(pair.chosen, pair)
        disliked.add(pair.rejected, pair)
    schema = {"row": pl.UInt32, "reason": pl.String, "keeper": pl.UInt32}
    return pl.DataFrame(found, schema=schema, orient="row").sort("row")


def hubs(rows: pl.DataFrame, prompts: NearTexts, answers: NearTexts) -> list[Int]:
    """What joins pairs into clusters, as for `components`: near prompts, and near answers whichever their side."""
    parts, groups = prompts.components(), answers.components()
    groups += parts.size  # numbers of their own
    groups[answers.shingles < FEWEST] = -1
    sides = [groups[answers.numbers(rows[side])] for side in ("chosen", "rejected")]
    return [parts[prompts.numbers(rows["prompt"])], *sides]


class _Stayed:
    """The pairs that stay, by their text in one role: of each text the first, and the first of another question."""

    def __init__(self, texts: NearTexts, near: Near) -> None:
        self._long = texts.shingles >= FEWEST
        self._near = near
        self._by_text: dict[int, list[Turn]] = {}

    def of_another(self, text: int, question: int) -> int | None:
        """The first row of another question whose text is the same or nearly."""
        if not self._long[text]:
            return None
        alike = (text, *self._near.get(text, ()))
        others = [pair for other in alike for pair in self._by_text.get(other, ()) if pair.question != question]
        return min(others).row if others else None

    def add(self, text: int, pair: Turn) -> None:
        known = self._by_text.setdefault(text, [])
        if len(known) < 2 and all(other.question != pair.question for other in known):
            known.append(pair)


class _StayedPairs:
    """The pairs that stay, by the components of their three texts: outside those nothing can be near."""

    def __init__(self, prompts: NearTexts, answers: NearTexts, near_prompts: Near, near_answers: Near) -> None:
        self._parts, self._groups = prompts.components(), answers.components()
        self._near_prompts, self._near_answers = near_prompts, near_answers
        self._families: dict[tuple[int, int, int], list[Turn]] = defaultdict(list)

    def like(self, pair: Turn) -> int | None:
        """The first row of which all three texts are the same or nearly."""
        for other in self._family(pair):
            if (
                _alike(self._near_prompts, pair.prompt, other.prompt)
                and _alike(self._near_answers, pair.chosen, other.chosen)
                and _alike(self._near_answers, pair.rejected, other.rejected)
            ):
                return other.row
        return None

    def add(self, pair: Turn) -> None:
        self._family(pair).append(pair)

    def _family(self, pair: Turn) -> list[Turn]:
        groups = self._groups
        return self._families[int(self._parts[pair.prompt]), int(groups[pair.chosen]), int(groups[pair.rejected])]


def _near(texts: NearTexts) -> Near:
    near: Near = defaultdict(set)
    for left, right in zip(texts.left.tolist(), texts.right.tolist(), strict=True):
        near[left].add(right)
        near[right].add(left)
    return dict(near)


def _alike(near: Near, one: int, other: int) -> bool:
    return one == other or other in near.get(one, ())


def _involved(rows: pl.DataFrame, prompts: NearTexts, answers: NearTexts) -> Iterator[Turn]:
    """The pairs that have a text, or nearly, in common with a pair of another question or all three with any pair."""
    texts = {"prompt": prompts, "chosen": answers, "rejected": answers}
    numbers = {name: pl.Series(kind.numbers(rows[name])) for name, kind in texts.items()}
    numbered = rows.select("turn", "row", "question", **numbers)
    involved = numbered.select(pl.struct(*texts).is_duplicated()).to_series().to_numpy().copy()
    for name, kind in texts.items():
        paired = np.zeros(kind.shingles.size, dtype=bool)
        paired[kind.left] = paired[kind.right] = True
        involved |= paired[numbered[name].to_numpy()]
        involved |= numbered.select(pl.col("question").n_unique().over(name) > 1).to_series().to_numpy()
    return (Turn(*values) for values in numbered.filter(pl.Series(involved)).sort("turn").iter_rows())
