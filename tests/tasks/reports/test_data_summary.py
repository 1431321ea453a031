"""The training pairs in numbers, worked by hand; figures as a reader wants them."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from tasks.pairs import PAIR_SCHEMA
from tasks.publication.attribution import posts_used
from tasks.reports.data_summary import summarize
from tasks.reports.figures import interval, number, percent, setting, words


def pair(number: int, **changes: Any) -> dict[str, Any]:
    known = {
        "pair_id": f"s.example.com/1/{number}/9", "site": "s.example.com", "question_id": 1, "chosen_id": number,
        "rejected_id": 9, "prompt": "Why?", "chosen": "abcd", "rejected": "ab", "chosen_score": 3, "rejected_score": 1,
        "chosen_accepted": False, "rejected_accepted": False, "created": datetime(2015, 1, 1, tzinfo=UTC),
        "chosen_created": datetime(2015, 1, 2, tzinfo=UTC), "rejected_created": datetime(2015, 1, 3, tzinfo=UTC),
        "chosen_license": "CC BY-SA 4.0", "chosen_license_stated": True,
    }  # fmt: skip
    return dict.fromkeys(PAIR_SCHEMA.names()) | known | changes


def test_three_pairs_by_hand() -> None:
    pairs = pl.LazyFrame(
        [
            pair(2, chosen_accepted=True),
            pair(3, chosen="a", chosen_score=12, chosen_created=datetime(2015, 1, 4, tzinfo=UTC)),
            pair(4, question_id=2, created=datetime(2016, 1, 1, tzinfo=UTC), chosen="```\nx\n```"),
        ],
        schema=PAIR_SCHEMA,
    )
    lengths = pl.DataFrame(
        {
            "pair_id": pairs.select("pair_id").collect().to_series(),
            "chosen_tokens": [5, 2, 4],
            "rejected_tokens": [3, 3, 4],
            "chosen_cut": [True, False, False],
            "rejected_cut": [False, False, False],
        }
    )
    found = summarize(pairs, lengths, posts_used(pairs))
    assert (found.pairs, found.questions) == (3, 2)
    assert found.sites == [("s.example.com", 3)]
    assert found.years == [(2015, 2), (2016, 1)]
    assert found.score_gaps == [("2", 2), ("3–4", 0), ("5–9", 0), ("10–19", 1)]
    assert found.shares == pytest.approx(
        {"longer_tokens": 1 / 3, "longer_characters": 2 / 3, "accepted": 1 / 3, "earlier": 2 / 3, "code": 1 / 3,
         "chosen_cut": 1 / 3, "rejected_cut": 0.0}
    )  # fmt: skip
    assert found.lengths["chosen answer, tokens"] == [2, 4, 4, 5, 5, 5]
    assert ("CC BY-SA 4.0", "stated", 3) in found.licenses


def test_facts_that_a_source_lacks_are_left_out_not_invented() -> None:
    unknown = dict.fromkeys(
        ("site", "question_id", "chosen_id", "rejected_id", "chosen_score", "rejected_score", "chosen_accepted",
         "created", "chosen_created", "rejected_created", "chosen_license")
    )  # fmt: skip
    pairs = pl.LazyFrame([pair(1, **unknown), pair(2, **unknown, prompt="Other?")], schema=PAIR_SCHEMA)
    lengths = pl.DataFrame(
        {"pair_id": ["s.example.com/1/1/9", "s.example.com/1/2/9"], "chosen_tokens": [2, 2], "rejected_tokens": [1, 1],
         "chosen_cut": [None, None], "rejected_cut": [None, None]},
        schema_overrides={"chosen_cut": pl.Boolean, "rejected_cut": pl.Boolean},
    )  # fmt: skip
    found = summarize(pairs, lengths, posts_used(pairs))
    assert found.questions == 2  # told apart by their prompts
    assert found.sites == [("unknown", 2)]
    assert (found.years, found.score_gaps) == ([], [])
    assert found.shares["accepted"] is None and found.shares["earlier"] is None and found.shares["chosen_cut"] is None


def test_figures_read_well() -> None:
    assert percent(0.66512) == "66.5 %"
    assert percent(None) == interval(None, None) == number(None) == "–"
    assert interval(0.645, 0.685) == "64.5 to 68.5 %"
    assert number(60908) == "60,908"
    assert number(12.0) == "12"
    assert number(0.123456) == "0.1235"
    assert [setting(value) for value in (5e-7, [0.9, 0.999], None, 3, "linear", 1.0)] == [
        "5e-07", "(0.9, 0.999)", "none", "3", "linear", "1",
    ]  # fmt: skip
    assert [words(name) for name in ("dropped.same_text", "not_candidate")] == ["same text", "not candidate"]
