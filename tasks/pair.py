"""Pair: posts -> pairs of answers to one question, the better one first.

in   posts.parquet     questions and answers of each source (or pairs.parquet, taken over as it is)
out  pairs.parquet     one row a pair, the columns of tasks/pairs.py
     dropped.parquet   pair_id, reason, place
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from tasks.config import StageConfig
from tasks.manifest import Manifest
from tasks.store import Store

VERSION = 1  # bump when the bytes this stage writes would change


class PairConfig(StageConfig):
    """Which answers make a pair."""

    rule: Literal["pm", "votes"] = "pm"
    """pm: round(log2(1 + votes)), +1 if accepted, below zero votes -1 (Askell et al. 2021); votes: the raw score."""
    max_pairs_per_question: PositiveInt | None = 10
    """Keeps one busy question from filling the sample; null = no cap."""
    include_title: bool = False
    """Put the question's title before its body in the prompt; the recipe uses the body alone."""
    min_gap: NonNegativeInt = 0
    """Least difference of rank between chosen and rejected, in the rule's units; a tie is never a pair."""
    candidates: PositiveInt | None = None
    """Pairs drawn by keyed rank before any text is converted; null = every pair is a candidate."""


def pair(store: Store, sources: Sequence[Manifest], config: PairConfig, seed: int) -> Manifest:
    """The pairs of all sources."""
    raise NotImplementedError
