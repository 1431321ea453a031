"""Length-controlled accuracy, against scikit-learn and against policies whose skill is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tasks.evaluation.length_control import RIDGE, fit, length_controlled, length_feature


def test_the_fit_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    gap = generator.normal(30, 120, 900)
    feature = length_feature(gap)
    right = (generator.random(900) < 1 / (1 + np.exp(-(0.4 + 1.3 * feature)))).astype(float)
    ours = fit(feature, right, np.ones(900))
    theirs = LogisticRegression(C=1 / RIDGE, tol=1e-10, max_iter=1000).fit(feature[:, None], right)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=1e-5)
    assert ours.slope == pytest.approx(theirs.coef_[0, 0], abs=1e-5)


def test_weights_count_rows_as_often_as_they_say() -> None:
    feature, right = np.array([-0.5, 0.1, 0.9, 0.3]), np.array([0.0, 1.0, 1.0, 0.0])
    weighted = fit(feature, right, np.array([1.0, 3.0, 0.0, 2.0]))
    repeated = fit(np.repeat(feature, [1, 3, 0, 2]), np.repeat(right, [1, 3, 0, 2]), np.ones(6))
    assert weighted == pytest.approx(repeated, abs=1e-8)


def test_a_policy_that_learned_only_length_is_a_coin_at_equal_length() -> None:
    values, lows, longer = [], [], []
    for seed in range(1, 21):  # one draw alone is off by 0.023 (standard deviation)
        gap = np.random.default_rng(seed).normal(60, 200, 2000)  # the chosen answer is longer in 62 % of pairs
        found = length_controlled(gap > 0, gap, np.arange(2000), times=20, seed=0)
        assert found.accuracy.value == pytest.approx(0.5, abs=0.06)
        assert found.slope is not None and found.slope > 5
        assert found.accuracy.low is not None
        values.append(found.accuracy.value)
        lows.append(found.accuracy.low)
        longer.append((gap > 0).mean())
    assert np.mean(longer) > 0.6
    assert np.mean(np.array(lows) > 0.5) <= 0.1
    assert np.mean(values) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize("pairs", [64, 500])
def test_lengths_with_a_long_tail_do_not_pass_for_skill(pairs: int) -> None:
    """As on Stack Exchange: log-normal lengths, the chosen answer the longer one in two pairs of three."""
    generator = np.random.default_rng(4)
    values, above = [], 0
    for seed in range(40):
        lengths = np.exp(generator.normal([5.6, 5.1], 0.9, (pairs, 2)))
        gap = (lengths[:, 0] - lengths[:, 1]).round()
        found = length_controlled(gap > 0, gap, np.arange(pairs), times=60, seed=seed).accuracy
        assert found.value is not None and found.low is not None
        values.append(found.value)
        above += found.low > 0.5
    assert np.mean(values) == pytest.approx(0.5, abs=0.04)
    assert above <= 6  # of 40


def test_a_policy_with_real_skill_keeps_it() -> None:
    generator = np.random.default_rng(2)
    gap = generator.normal(60, 200, 4000)
    found = length_controlled(generator.random(4000) < 0.8, gap, np.arange(4000), times=100, seed=0)
    assert found.accuracy.value == pytest.approx(0.8, abs=0.03)
    assert found.accuracy.low is not None and found.accuracy.low > 0.75
    assert found.slope == pytest.approx(0.0, abs=0.25)


def test_a_gap_of_0_stays_0_though_the_gaps_have_another_mean() -> None:
    assert length_feature(np.array([0.0, 100.0, 200.0]))[0] == 0.0
    assert length_feature(np.array([7.0, 7.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("outcome", "word"), [(True, "right"), (False, "wrong")])
def test_one_class_alone_is_null_with_a_reason(outcome: bool, word: str) -> None:
    found = length_controlled(np.full(5, outcome), np.arange(5.0), np.arange(5), times=10, seed=0)
    assert found.accuracy.value is None
    assert found.reason is not None and f"all pairs are {word}" in found.reason
