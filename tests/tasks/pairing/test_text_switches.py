"""Switches of `pair` that texts decide. Lengths are characters of the Markdown that is trained on."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.errors import RecipeError
from tasks.ingest import SourceConfig, ingest_source
from tasks.pair import PairConfig, pair
from tasks.pairing import text_switches
from tasks.pairing.text_switches import KNOWN_LANGUAGES, Limits, languages
from tasks.store import Store
from tests.tasks.test_pair import answer, outcome, question, write_dump

ENGLISH = "I have tried to brew a lager at home, and it did not become clear. What should I do about it?"
GERMAN = "Ich habe versucht, zu Hause ein Lager zu brauen, und es ist nicht klar geworden. Was soll ich tun?"
CODE = "Like this:\n\n```python\nfor yeast in cellar:\n    yeast.feed()\n```\n\nThen wait."


def check(limits: Limits, reason: str | None, **texts: str) -> None:
    """A pair of ten characters a side, but for `texts`, is dropped for `reason`; so it is whichever answer it is."""
    usual = {"prompt": "p" * 10, "chosen": "c" * 10, "rejected": "r" * 10} | texts
    swapped = {**usual, "chosen": usual["rejected"], "rejected": usual["chosen"]}
    assert limits.reasons(pl.DataFrame([usual, swapped])).to_list() == [reason, reason]


@pytest.mark.parametrize(
    ("key", "limit", "text", "at_limit", "beyond", "reason"),
    [
        ("min_prompt_chars", 5, "prompt", "é" * 5, "é" * 4, "prompt_too_short"),
        ("max_prompt_chars", 15, "prompt", "é" * 15, "é" * 16, "prompt_too_long"),
        ("min_answer_chars", 5, "chosen", "é" * 5, "é" * 4, "answer_too_short"),
        ("max_answer_chars", 15, "chosen", "é" * 15, "é" * 16, "answer_too_long"),
        ("max_length_ratio", 1.5, "chosen", "é" * 15, "é" * 16, "length_ratio"),
    ],
)
def test_a_text_at_the_limit_stays_and_one_beyond_goes(
    key: str, limit: float, text: str, at_limit: str, beyond: str, reason: str
) -> None:
    limits = Limits(**{key: limit})  # type: ignore[arg-type]
    assert limits.on() == [reason]
    check(limits, None, **{text: at_limit})
    check(limits, reason, **{text: beyond})


def test_a_text_with_more_code_than_the_share_asked_for_goes() -> None:
    block = "```python\nfor yeast in cellar:\n    yeast.feed()\n```\n"
    share = len(block) / len(CODE)  # 0.67
    check(Limits(max_code_share=share - 0.01), "code_share", chosen=CODE)
    check(Limits(max_code_share=share), None, chosen=CODE)
    check(Limits(max_code_share=0.0), "code_share", chosen="Like this:\n\n    yeast.feed()")


def test_a_text_that_is_surely_in_another_language_goes_and_one_too_short_to_tell_stays() -> None:
    english = Limits(languages=("en",))
    check(english, None, prompt=ENGLISH)
    check(english, "language", prompt=GERMAN)
    check(english, "language", chosen=GERMAN)
    check(Limits(languages=("en", "de")), None, prompt=ENGLISH, chosen=GERMAN)
    check(english, None, chosen="Ja.")
    check(english, None, chosen=f"```\n{GERMAN}\n```\n`{GERMAN}`\n\n    {GERMAN}")  # code is in no language
    likely = languages(GERMAN)
    assert max(likely, key=likely.__getitem__) == "de"


def test_of_several_reasons_the_first_in_order_is_counted() -> None:
    every = Limits(20, 5, 20, 5, 1.0, 0.0, ("en",))
    check(every, "prompt_too_short")
    check(every, "prompt_too_long", prompt=GERMAN)
    check(Limits(min_answer_chars=20, languages=("en",)), "answer_too_short", prompt=GERMAN)


def test_what_texts_decide_is_counted_and_stands_among_the_dropped(tmp_path: Path) -> None:
    site = "bread.stackexchange.com"
    rows: list[dict[str, Any]] = [question(1, Body=f"<p>{ENGLISH}</p>")]
    rows += [
        answer(2, 1, 27, Body=f"<p>{ENGLISH}</p>"), answer(3, 1, 9, Body="<p>No.</p>"),
        answer(4, 1, 0, Body=f"<p>{ENGLISH} {ENGLISH}</p>"),
    ]  # fmt: skip
    source = ingest_source(Store(tmp_path), SourceConfig(path=str(write_dump(tmp_path / "dumps" / site, rows))))
    done, pairs, dropped = outcome(pair(Store(tmp_path), [source], PairConfig(min_answer_chars=20), 42))
    assert pairs["pair_id"].to_list() == [f"{site}/1/2/4"]
    assert done.counts["dropped.answer_too_short"] == 2
    assert dropped["place"].to_list() == ["question 1, answers 2 and 3", "question 1, answers 3 and 4"]
    assert "dropped.language" not in done.counts
    with pytest.raises(RecipeError, match="'xx' is no language that can be told"):
        pair(Store(tmp_path), [source], PairConfig(languages=["xx"]), 42)


def test_limits_that_no_text_meets_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_answer_chars is 9 and max_answer_chars is 3: no text is both"):
        PairConfig(min_answer_chars=9, max_answer_chars=3)
    with pytest.raises(ValidationError, match="max_length_ratio"):
        PairConfig(max_length_ratio=0.5)


def test_the_languages_that_a_recipe_may_name_are_those_that_can_be_told() -> None:
    assert text_switches._identifier().labels
    assert set(text_switches._identifier().labels) == KNOWN_LANGUAGES


def test_only_texts_that_are_judged_load_the_model_of_languages(tmp_path: Path) -> None:
    dump = write_dump(tmp_path / "bread.stackexchange.com", [question(1), answer(2, 1, 9), answer(3, 1, 1)])
    program = f"""
import sys
from dataclasses import replace
from pathlib import Path
from tasks.ingest import SourceConfig, ingest_source
from tasks.pair import PairConfig, pair
from tasks.store import Store
store = Store(Path({str(tmp_path / "work")!r}))
source = ingest_source(store, SourceConfig(path={str(dump)!r}))
for store in (replace(store, plan=True), store):
    made = pair(store, [source], PairConfig(languages=["en"]), 1)
    print(made.planned, made.reused, "py3langid" in sys.modules)
"""
    said = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split("\n")
        for _ in range(2)
    ]
    assert said[0][:2] == ["True False False", "False False True"]
    assert said[1][:2] == ["False True False", "False True False"]
