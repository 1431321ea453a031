"""Several runs on the same pairs."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest

from tasks.errors import RecipeError
from tasks.evaluation.comparison import compare, holm, unit_of
from tasks.evaluation.statistics import agreed


def rows(margins: list[float], first: int = 0) -> pl.DataFrame:
    """Two pairs a question."""
    names = [f"beer.stackexchange.com/{number // 2}/{2 * number}/{2 * number + 1}" for number in range(len(margins))]
    return pl.DataFrame({"pair_id": names, "margin": margins}).slice(first)


def test_a_run_is_no_better_than_itself() -> None:
    margins = np.random.default_rng(0).normal(0.1, 1, 200).tolist()
    found = compare({"a": rows(margins), "b": rows(margins)}, times=50)
    assert (found.pairs, found.questions) == (200, 100)
    (only,) = found.versus
    assert (only.accuracy.value, only.accuracy.low, only.accuracy.high) == (0.0, *agreed(0.0, 100))
    assert (only.only_this, only.only_other, only.p) == (0, 0, 1.0)


def test_a_difference_is_paired_and_counted_by_hand() -> None:
    found = compare({"start": rows([1, 1, -1, -1, 0, -1]), "tuned": rows([1, 1, 1, 1, 1, -1])}, times=50)
    (only,) = found.versus
    assert only.against == "start"
    assert only.accuracy.value == pytest.approx(3 / 6)
    assert (only.only_this, only.only_other) == (3, 0)
    assert only.p == pytest.approx(binomtest(3, 3).pvalue)
    assert [contender.ties for contender in found.contenders] == [1, 0]


def test_a_small_steady_gain_shows_where_intervals_overlap() -> None:
    generator = np.random.default_rng(1)
    first = generator.normal(0.0, 1.0, 1000)
    found = compare({"first": rows(first.tolist()), "second": rows((first + 0.08).tolist())}, times=300)
    accuracies = [contender.accuracy for contender in found.contenders]
    assert accuracies[0].high is not None and accuracies[1].low is not None
    assert accuracies[0].high > accuracies[1].low  # each alone says nothing
    assert found.versus[0].accuracy.low is not None and found.versus[0].accuracy.low > 0  # paired they do
    assert found.versus[0].p < 0.001


def test_only_shared_pairs_count_and_the_order_of_rows_does_not() -> None:
    first, second = rows([1, -1, 1, -1, 1]), rows([1, 1, 1, 1, 1], first=2)
    found = compare({"first": first, "second": second.reverse()}, times=20)
    assert found.pairs == 3
    assert [contender.pairs for contender in found.contenders] == [5, 3]
    assert found.contenders[0].accuracy.value == pytest.approx(2 / 3)


def test_pairs_of_one_question_stand_together_though_their_ids_do_not_say_so() -> None:
    generator = np.random.default_rng(3)
    skill = np.repeat(generator.choice([-1.0, 1.0], 40), 10)  # ten pairs a question, right or wrong together
    names = [f"published/{number:016x}" for number in range(400)]
    units = [f"prompt/{number // 10}" for number in range(400)]
    alone = pl.DataFrame({"pair_id": names, "margin": skill})
    known = alone.with_columns(unit=pl.Series(units))
    widths = []
    for judged in (alone, known):
        found = compare({"first": judged, "second": judged}, times=200)
        accuracy = found.contenders[0].accuracy
        assert accuracy.low is not None and accuracy.high is not None
        widths.append(accuracy.high - accuracy.low)
    assert found.questions == 40
    assert widths[1] == pytest.approx(widths[0] * 10**0.5, rel=0.2)


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_unit_of_a_pair_is_its_question() -> None:
    assert unit_of("beer.stackexchange.com/1/4/7") == "beer.stackexchange.com/1"
    assert unit_of("paired/00ff00ff00ff00ff") == "paired/00ff00ff00ff00ff"


def test_runs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(RecipeError, match="two runs or more"):
        compare({"a": rows([1.0])})
    with pytest.raises(RecipeError, match="share no held-out pair"):
        compare({"a": rows([1.0]), "b": rows([1.0, 1.0], first=1)})
    with pytest.raises(RecipeError, match=r"names pair .* twice"):
        compare({"a": rows([1.0]), "b": pl.concat([rows([1.0]), rows([1.0])])})
