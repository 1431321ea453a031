"""The rank of an answer under each rule."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.pairing.ranking import ranks


def rank(rule: str, votes: int, accepted: bool = False) -> int:
    found = ranks(rule, pl.Series([votes], dtype=pl.Int64), pl.Series([accepted]))  # type: ignore[arg-type]
    return int(found[0])


@pytest.mark.parametrize(
    ("votes", "expected"),
    [(0, 0), (1, 1), (2, 2), (4, 2), (5, 3), (10, 3), (11, 4), (21, 4), (22, 5), (44, 5), (45, 6), (89, 6), (90, 7),
     (180, 7), (181, 8), (-1, -1), (-500, -1), (2**63 - 1, 63), (-(2**63), -1)],
)  # fmt: skip
def test_pm_rounds_the_logarithm_of_the_votes(votes: int, expected: int) -> None:
    assert rank("pm", votes) == expected


def test_acceptance_is_worth_one_but_not_below_zero_votes() -> None:
    assert rank("pm", 4, accepted=True) == 3
    assert rank("pm", 0, accepted=True) == 1
    assert rank("pm", -1, accepted=True) == -1


@given(st.integers(0, 2**40))
def test_pm_is_the_rounded_logarithm_wherever_floats_are_exact_enough(votes: int) -> None:
    assert rank("pm", votes) == round(math.log2(1 + votes))


@given(st.integers(-(2**63), 2**63 - 1), st.booleans())
def test_the_rule_votes_is_the_score_itself(votes: int, accepted: bool) -> None:
    assert rank("votes", votes, accepted) == votes
