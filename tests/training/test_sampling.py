"""Drawn tokens: the right frequencies, and nothing of one prompt in the answer of another."""

import math

import pytest
import torch

from training.sampling import Finite, KeyedSampling
from training.status import TrainerError

IDS = torch.zeros(1, 1, dtype=torch.long)


def draws(logits: list[float], times: int, **settings: float) -> torch.Tensor:
    """How often each token is drawn, as shares."""
    keys = [f"prompt {number}" for number in range(times)]
    sampling = KeyedSampling(keys, seed=7, **{"temperature": 1.0, "top_p": 1.0, **settings})
    scores = sampling(IDS, torch.tensor([logits] * times))
    return torch.bincount(scores.argmax(dim=-1), minlength=len(logits)) / times


def test_tokens_are_drawn_as_often_as_the_softmax_says() -> None:
    shares = draws([math.log(0.5), math.log(0.3), math.log(0.2)], 4000)
    # Three standard errors of a share of one half: 0.024.
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.024, rtol=0)


def test_temperature_and_top_p_are_those_of_the_words() -> None:
    # At temperature 1/2 the odds 2 : 1 become 4 : 1.
    shares = draws([math.log(2.0), 0.0], 4000, temperature=0.5)
    torch.testing.assert_close(shares, torch.tensor([0.8, 0.2]), atol=0.02, rtol=0)
    # The likeliest tokens that have 0.7 together are the first two of 0.5, 0.3, 0.2: 5 to 3 is left of them.
    shares = draws([math.log(0.5), math.log(0.3), math.log(0.2)], 4000, top_p=0.7)
    torch.testing.assert_close(shares, torch.tensor([0.625, 0.375, 0.0]), atol=0.024, rtol=0)


def test_a_draw_depends_on_seed_and_key_alone() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))

    def drawn(keys: list[str], rows: list[int], seed: int = 1) -> list[list[int]]:
        sampling = KeyedSampling(keys, seed=seed, temperature=1.0, top_p=1.0)
        return torch.stack([sampling(IDS, logits[rows]).argmax(-1) for _ in range(20)]).T.tolist()

    together = drawn(["a", "b", "c"], [0, 1, 2])
    assert drawn(["c", "a"], [2, 0]) == [together[2], together[0]]
    assert drawn(["a"], [0], seed=2)[0] != together[0]
    assert drawn(["b"], [0])[0] != together[0]
    assert len(set(together[0])) > 3  # each step draws anew


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_named_by_their_prompt(value: float) -> None:
    scores = torch.zeros(2, 5)
    scores[0, 0] = float("-inf")  # a forbidden token is no fault
    assert Finite(["a", "b"])(IDS, scores) is scores
    scores[1, 3] = value
    with pytest.raises(TrainerError, match="after the prompt of pair b are no numbers"):
        Finite(["a", "b"])(IDS, scores)
