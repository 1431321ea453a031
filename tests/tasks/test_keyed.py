"""Keyed ranks: the same for ever, and one purpose tells nothing about another."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.keyed import Purpose, keyed_rank, keyed_ranks

NAMES = [f"beer.stackexchange.com/{number}/1/2" for number in range(20_000)]


def test_ranks_are_frozen() -> None:
    """These numbers may never change: every sample that was ever drawn hangs on them."""
    assert keyed_rank(42, "sample", "beer.stackexchange.com/1/4/7") == 6620337381353675212
    assert keyed_rank(42, "held_out", "beer.stackexchange.com/1/4/7") == 17257577656382419751


@given(st.integers(-(2**63), 2**64 - 1), st.sampled_from(["cap", "sample"]), st.lists(st.text(), max_size=5))
def test_one_by_one_or_all_together_is_the_same(seed: int, purpose: Purpose, names: list[str]) -> None:
    ranks = keyed_ranks(seed, purpose, names)
    assert ranks.dtype == pl.UInt64
    assert ranks.to_list() == [keyed_rank(seed, purpose, name) for name in names]


def test_another_process_with_another_hash_seed_agrees() -> None:
    program = "from tasks.keyed import keyed_rank; print(keyed_rank(42, 'cap', 'x'))"
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert said == {f"{keyed_rank(42, 'cap', 'x')}\n"}


@pytest.mark.parametrize("other", [(42, "held_out"), (42, "cap"), (43, "sample")])
def test_another_purpose_or_seed_draws_independently(other: tuple[int, Purpose]) -> None:
    """Of the lower half under one key, half is in the lower half under another: 10,000 ± 5 standard deviations."""
    half = 2**63
    first = keyed_ranks(42, "sample", NAMES).to_numpy() < half
    second = keyed_ranks(*other, NAMES).to_numpy() < half
    deviation = np.sqrt(len(NAMES)) / 4
    assert abs(int((first & second).sum()) - len(NAMES) / 4) < 5 * deviation * np.sqrt(3)


def test_ranks_are_spread_evenly() -> None:
    """Sixteen bins of 1,250 on average: chi-squared with 15 degrees of freedom is below 45 but once in 10,000 times."""
    bins = np.bincount((keyed_ranks(42, "sample", NAMES).to_numpy() >> np.uint64(60)).astype(np.int64), minlength=16)
    assert ((bins - 1250) ** 2 / 1250).sum() < 45
