"""Switches of `pair` that are decided on ids, dates and flags, before the cap and the draw of candidates.

So a question still fills its cap and the candidates their number: what is dropped here takes nobody's place. Of the
reasons that hold for a pair the first of NUMBER_REASONS is counted.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.pairing.excluded import PAIR_KEYS, Excluded

NUMBER_REASONS: Final = ("excluded", "min_gap", "closed", "community", "later_wins")
NONE: Final = np.uint8(255)  # no reason: above every other, so that the least of two is the first that holds
_CODE: Final = {reason: np.uint8(code) for code, reason in enumerate(NUMBER_REASONS)}

Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Switches:
    """Which of them are on; the keys of `pair` in a recipe."""

    min_gap: int = 0
    later_wins: bool = False
    drop_closed: bool = False
    drop_community: bool = False
    excluded: Excluded = field(default_factory=Excluded)

    def on(self) -> list[str]:
        """The reasons that may occur, in the order in which they are asked."""
        state = (bool(self.excluded.names), self.min_gap > 0, self.drop_closed, self.drop_community, self.later_wins)
        return [reason for reason, on in zip(NUMBER_REASONS, state, strict=True) if on]

    def answer_columns(self, site: str) -> list[pl.Expr]:
        """What must be read of each answer beside its numbers: nothing where all is off."""
        columns = []
        if self.drop_community or self.excluded.of_site(site):
            columns.append(self._fault(site, closed=False).alias("fault"))
        if self.later_wins:
            columns.append(pl.col("created").dt.timestamp("ms").alias("created"))
        return columns

    def question_columns(self, site: str) -> list[pl.Expr]:
        """The same of each question."""
        if self.drop_community or self.drop_closed or self.excluded.of_site(site):
            return [self._fault(site, closed=self.drop_closed).alias("question_fault")]
        return []

    def _fault(self, site: str, *, closed: bool) -> pl.Expr:
        """The code of the first reason to leave out whatever a post is in; null = none."""
        never = pl.lit(value=False)
        return (
            pl.when(self.excluded.post(site, "id", "owner_id")).then(pl.lit(_CODE["excluded"], pl.UInt8))
            .when(pl.col("closed").is_not_null() if closed else never).then(pl.lit(_CODE["closed"], pl.UInt8))
            .when(pl.col("community_owned").is_not_null() if self.drop_community else never)
            .then(pl.lit(_CODE["community"], pl.UInt8))
        )  # fmt: skip

    def verdicts(
        self, answers: pl.DataFrame, better: NDArray[np.int64], worse: NDArray[np.int64], gap: pl.Series
    ) -> Codes:
        """For each pair the code of its first reason, or NONE; `better` and `worse` are rows of `answers`."""
        why = np.where((gap < self.min_gap).to_numpy(), _CODE["min_gap"], NONE)
        for column in ("fault", "question_fault"):
            if column in answers.columns:
                fault = answers[column].fill_null(int(NONE)).to_numpy()
                why = np.minimum(why, np.minimum(fault[better], fault[worse]))
        if self.later_wins:
            # A date that is not known shows nothing: the earliest there is for the chosen, the latest for the rejected.
            bounds = np.iinfo(np.int64)
            chosen = answers["created"].fill_null(int(bounds.min)).to_numpy()[better]
            rejected = answers["created"].fill_null(int(bounds.max)).to_numpy()[worse]
            why = np.minimum(why, np.where(chosen > rejected, NONE, _CODE["later_wins"]))
        return why

    def given_columns(self) -> list[str]:
        """What must be read of pairs that come ready-made."""
        dates = ("chosen_created", "rejected_created") if self.later_wins else ()
        keys = PAIR_KEYS if self.excluded.names else ("pair_id", "site", "question_id")
        return [*keys, "chosen_rank", "rejected_rank", *dates]

    def given_verdicts(self, pairs: pl.DataFrame) -> pl.Series:
        """The first reason of each of `pairs` (`given_columns`); null = none.

        Of these no source tells whether the question was closed or a post given to the community.
        """
        excluded: pl.Expr = pl.lit(value=False)
        if self.excluded.names:
            excluded = pl.lit(self.excluded.of_pairs(pairs))
        # Wider, since the difference of two ranks may not fit where the ranks do.
        gap = pl.col("chosen_rank").cast(pl.Int128) - pl.col("rejected_rank").cast(pl.Int128)
        near = (gap < self.min_gap).fill_null(value=False)
        earlier: pl.Expr = pl.lit(value=False)
        if self.later_wins:
            earlier = (pl.col("chosen_created") <= pl.col("rejected_created")).fill_null(value=True)
        judged = pairs.lazy().select(
            pl.col("pair_id"),
            reason=pl.when(excluded).then(pl.lit("excluded")).when(near).then(pl.lit("min_gap"))
            .when(earlier).then(pl.lit("later_wins")),
        )  # fmt: skip
        return judged.select("reason").collect()["reason"]


def reason_names(codes: Codes) -> pl.Series:
    """The names of the reasons of `codes`, none of which is NONE."""
    return pl.Series("reason", NUMBER_REASONS, dtype=pl.String).gather(pl.Series(codes))
