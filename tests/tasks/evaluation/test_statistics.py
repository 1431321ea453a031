"""Intervals and tests, against closed forms, scipy and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from tasks.evaluation.statistics import Ratio, agreed, bootstrap, coin_range, exact, mcnemar, mean, resamples


def test_a_bootstrap_interval_of_independent_pairs_is_the_normal_one() -> None:
    right = np.array([1.0] * 1200 + [0.0] * 800)
    units = np.arange(2000)
    found = bootstrap({"accuracy": mean(right)}, units, times=2000, seed=1)["accuracy"]
    half = norm.ppf(0.975) * math.sqrt(0.6 * 0.4 / 2000)
    assert found.value == 0.6
    assert found.low == pytest.approx(0.6 - half, abs=0.003)
    assert found.high == pytest.approx(0.6 + half, abs=0.003)


def test_ten_copies_of_each_pair_in_one_question_make_nothing_surer() -> None:
    once = np.random.default_rng(0).integers(0, 2, 300).astype(float)
    alone = bootstrap({"a": mean(once)}, np.arange(300), times=500, seed=3)["a"]
    copied = bootstrap({"a": mean(np.repeat(once, 10))}, np.repeat(np.arange(300), 10), times=500, seed=3)["a"]
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    pretended = bootstrap({"a": mean(np.repeat(once, 10))}, np.arange(3000), times=500, seed=3)["a"]
    assert pretended.high - pretended.low < 0.5 * (alone.high - alone.low)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        skill = generator.normal(0.6, 0.15, 80).clip(0, 1)  # questions differ, their pairs agree
        right = (generator.random((80, 4)) < skill[:, None]).astype(float).ravel()
        found = bootstrap({"a": mean(right)}, np.repeat(np.arange(80), 4), times=300, seed=seed)["a"]
        covered += found.low <= 0.6 <= found.high
    assert 180 <= covered <= 198


def test_the_order_of_the_pairs_changes_no_interval() -> None:
    generator = np.random.default_rng(1)
    right, units = generator.integers(0, 2, 50).astype(float), generator.integers(0, 20, 50)
    units[:20] = np.arange(20)
    order = generator.permutation(50)
    first = bootstrap({"a": mean(right)}, units, times=100, seed=7)
    assert bootstrap({"a": mean(right[order])}, units[order], times=100, seed=7) == first
    assert bootstrap({"a": mean(right)}, units, times=100, seed=8) != first


def test_resamples_are_the_same_numbers_for_ever() -> None:
    assert [draw.tolist() for draw in resamples(5, 2, 42)] == [[1, 4, 4, 4, 1], [2, 4, 2, 0, 2]]


def test_a_quotient_of_sums_weighs_each_pair_by_its_length() -> None:
    ratio = Ratio(np.array([-10.0, -1.0]), np.array([100.0, 1.0]), share=False)
    assert bootstrap({"drift": ratio}, np.array([0, 1]), times=10, seed=0)["drift"].value == pytest.approx(-11 / 101)


@pytest.mark.parametrize(
    ("questions", "share", "beyond"),
    # low^questions = 0.025; a difference of 1 everywhere may be -1 in the 1 - low that are not seen: 2 low - 1
    [(4, 0.3976, -0.2047), (20, 0.8316, 0.6631), (100, 0.9638, 0.9276)],
)
def test_where_every_question_agrees_the_interval_is_the_exact_one_for_that_many_questions(
    questions: int, share: float, beyond: float
) -> None:
    right, units = np.ones(2 * questions), np.repeat(np.arange(questions), 2)  # two pairs each make nothing surer
    ratios = {"share": mean(right), "beyond": mean(right, difference=True), "wrong": mean(1 - right)}
    found = bootstrap(ratios, units, times=50, seed=0)
    assert (found["share"].value, found["share"].low, found["share"].high) == pytest.approx((1.0, share, 1.0), abs=1e-4)
    assert (found["beyond"].low, found["beyond"].high) == pytest.approx((beyond, 1.0), abs=1e-4)
    assert (found["wrong"].low, found["wrong"].high) == pytest.approx((0.0, 1 - share), abs=1e-4)


def test_five_questions_that_are_all_right_are_no_better_than_a_coin_and_six_are() -> None:
    assert exact(5, 5)[0] < 0.5 < exact(6, 6)[0]  # 0.5^5 = 3.1 % of coins, 0.5^6 = 1.6 %: more and less than 2.5 %
    assert agreed(1.0, 5)[0] < 0.0 < agreed(1.0, 6)[0]


def test_one_question_gives_no_interval_to_a_mean_that_is_no_share() -> None:
    found = bootstrap({"margin": mean(np.array([0.5, 1.5]), share=False)}, np.array([0, 0]), times=50, seed=0)["margin"]
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_a_mean_over_no_pairs_is_null() -> None:
    nowhere = mean(np.ones(3), where=np.zeros(3, dtype=bool))
    assert bootstrap({"a": nowhere}, np.arange(3), times=5, seed=0)["a"].value is None


@given(st.integers(1, 400), st.data())
def test_the_exact_interval_is_scipys(count: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, count))
    expected = binomtest(right, count).proportion_ci(method="exact")
    assert exact(right, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_mcnemar_counts_only_the_pairs_on_which_two_models_differ() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 8) == pytest.approx(2 * 0.5**8)  # both tails of eight heads
    assert mcnemar(3, 9) == pytest.approx(binomtest(3, 12).pvalue)


def test_coins_on_100_pairs_end_between_40_and_60_percent() -> None:
    assert coin_range(100) == (0.4, 0.6)


def test_a_difference_that_every_question_agrees_on_is_as_sure_as_there_are_questions() -> None:
    few = bootstrap({"gain": mean(np.ones(4), difference=True)}, np.array([0, 0, 1, 1]), times=50, seed=0)["gain"]
    unseen = binomtest(0, 2).proportion_ci(method="exact").high  # the share of questions that may be otherwise
    assert (few.value, few.low, few.high) == pytest.approx((1.0, 1 - 2 * unseen, 1.0))
    assert few.low < 0  # two questions show nothing
    assert agreed(0.0, 2) == pytest.approx((-unseen, unseen))
    assert agreed(-1.0, 2) == pytest.approx((-1.0, -1 + 2 * unseen))
    assert agreed(1.0, 1000)[0] == pytest.approx(1.0, abs=0.01)
    mixed = bootstrap({"gain": mean(np.array([1.0, 0.0] * 50), difference=True)}, np.arange(100), times=50, seed=0)
    plain = bootstrap({"gain": mean(np.array([1.0, 0.0] * 50), share=False)}, np.arange(100), times=50, seed=0)
    assert mixed == plain


def test_a_mean_without_bounds_that_every_question_agrees_on_has_an_interval_of_no_width() -> None:
    found = bootstrap({"margin": mean(np.full(4, 7.0), share=False)}, np.arange(4), times=50, seed=0)["margin"]
    assert (found.low, found.high) == (7.0, 7.0)
