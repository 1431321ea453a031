"""Measures of answers, by hand."""

import polars as pl
import pytest

from tasks.evaluation.answers import ANSWERS_SCHEMA, answer_measures, measured, no_answers, repeated_share
from tasks.evaluation.statistics import agreed


def answers(rows: list[tuple[str, str, str, str, list[int], bool]]) -> pl.DataFrame:
    """pair_id, model, mode, text, ids, stopped."""
    full = [(key, model, mode, text, len(ids), stopped, ids) for key, model, mode, text, ids, stopped in rows]
    return pl.DataFrame(full, schema=ANSWERS_SCHEMA, orient="row")


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([1, 2, 3], None),  # no 4-gram
        ([1, 2, 3, 4, 5], 0.0),
        ([1, 1, 1, 1, 1, 1], 2 / 3),  # three of one kind
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),  # 1234 2341 3412 4123 1234
    ],
)
def test_repetition_counts_what_has_been_said_before(ids: list[int], share: float | None) -> None:
    assert repeated_share(ids) == share


@pytest.mark.parametrize(
    ("text", "fences", "lists"),
    [
        ("Use `ls`.", 0, 0),
        ("Try:\n```bash\nls\n```", 1, 0),
        ("~~~\nls\n~~~", 1, 0),
        ("Inline ``` is no fence", 0, 0),
        ("First:\n- one\n- two", 0, 1),
        ("1. one\n2) two", 0, 1),
        ("3.14 is no list, nor is -1\n-2", 0, 0),
    ],
)
def test_fences_and_lists_are_those_of_markdown(text: str, fences: int, lists: int) -> None:
    frame = measured(answers([("p", "start", "greedy", text, [1, 2], True)]))
    assert (frame["fences"][0], frame["lists"][0]) == (fences, lists)


def test_differences_are_those_of_the_same_prompt() -> None:
    rows = []
    for number in range(40):
        plain = list(range(10 + number))
        rows += [
            (f"p{number}", "start", "greedy", "a text", plain, True),
            # Always ten tokens more, all the same; half of them do not end.
            (f"p{number}", "tuned", "greedy", "a text", [*plain, *[7] * 10], number % 2 == 0),
        ]
    found = answer_measures(answers(rows), times=200, seed=1)
    greedy = found["modes"]["greedy"]
    assert greedy["tokens"]["start"]["value"] == 29.5
    assert greedy["tokens"]["tuned"]["value"] == 39.5
    # Lengths differ from prompt to prompt, their difference never does.
    assert greedy["tokens"]["difference"] == {"value": 10.0, "low": 10.0, "high": 10.0}
    assert greedy["tokens"]["start"]["low"] < 29.5 < greedy["tokens"]["start"]["high"]
    assert greedy["stopped"]["tuned"]["value"] == 0.5
    assert greedy["stopped"]["difference"]["high"] < 0
    assert greedy["repeated"]["start"]["value"] == 0.0
    assert greedy["same_text"] == 1.0
    assert [warning.split(" greedy ")[1] for warning in found["warnings"]] == [
        "answer is the same, letter by letter, as the start model's.",
        "answers repeat themselves more than the start model's.",
        "answers end by themselves less often than the start model's.",
        "answers are longer than the start model's, by 34%.",
    ]


def test_a_model_compared_with_itself_differs_in_nothing() -> None:
    rows = [
        (f"p{number}", model, "sampled", f"text {number}", [1, 2, 3, 4, number], number % 3 > 0)
        for number in range(9)
        for model in ("start", "tuned")
    ]
    found = answer_measures(answers(rows), times=50, seed=1)
    modes = found["modes"]["sampled"]
    assert modes["tokens"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    low, high = agreed(0.0, 9)  # of a share: what nine prompts leave open
    for measure in ("stopped", "repeated", "fences"):
        assert modes[measure]["difference"] == {"value": 0.0, "low": low, "high": high}
    assert found["warnings"] == ["Every sampled answer is the same, letter by letter, as the start model's."]


def test_answers_too_short_for_a_gram_say_nothing_of_repetition() -> None:
    rows = [("p", model, "greedy", "", [2], True) for model in ("start", "tuned")]
    greedy = answer_measures(answers(rows), times=20, seed=1)["modes"]["greedy"]
    assert greedy["repeated"]["tuned"] == {"value": None, "low": None, "high": None}
    assert greedy["empty"]["tuned"]["value"] == 1.0
    assert no_answers("why")["reason"] == "why"
