"""What `prefstack show` prints of what else the models were asked."""

from pathlib import Path
from typing import Any

from flows.runs import brief
from flows.show import run_text
from flows.trace import trace_text
from tasks.evaluation.answers import no_answers

JUDGED: dict[str, Any] = {
    "reason": None, "model": "[red]judge[/]", "questions": 9, "win_rate": 0.75, "win_rate_low": 0.5,
    "win_rate_high": 0.9, "length_controlled_win_rate": None, "length_controlled_win_rate_low": None,
    "length_controlled_win_rate_high": None, "wins": 6, "losses": 2, "ties": 0, "inconsistent": 1, "unread": 0,
    "first_named": 0.5, "tuned_longer": 0.25, "warnings": ["[b]Doubt it."],
}  # fmt: skip


def test_the_other_evaluations_stand_below_and_no_text_of_them_is_markup() -> None:
    metrics = {"judge": JUDGED, "generation": no_answers("[bold]no moon")}
    run = {"run": "r", "stages": {}, "metrics": metrics, "model": None, "error": None}
    said = run_text(run, None)
    assert "Nothing was generated: [bold]no moon." in said
    assert "note: [b]Doubt it." in said
    (line,) = (line for line in said.splitlines() if "win rate of the tuned model" in line)
    assert "75.0 %" in line and "50.0 to 90.0 %" in line


def test_rows_that_were_skipped_and_dropped_stand_beside_those_that_are_there() -> None:
    assert brief({"rows": 1_010, "pairs": 1_000, "skipped.bad_id": 4, "skipped.orphan": 6, "dropped.empty": 0}) == (
        "1,010 rows, 1,000 pairs, 10 skipped"
    )


def test_a_run_says_where_it_stopped_and_one_that_was_interrupted_what_was_done() -> None:
    run: dict[str, Any] = {"run": "r", "stages": {}, "metrics": None, "model": None}
    error = {"status": 130, "stage": None, "kind": "interrupted", "message": "cancelled"}
    assert run_text(run | {"error": error}, None).endswith("stopped: cancelled")
    done = {"reused": False, "seconds": 1.0, "counts": {}, "folder": "/w/store/pair-1"}
    assert run_text(run | {"error": error, "stages": {"pair": done}}, None).endswith("stopped after pair: cancelled")
    damaged = error | {"stage": "ingest", "message": "a.7z is damaged"}
    assert run_text(run | {"error": damaged}, None).endswith("stopped at ingest: a.7z is damaged")


def test_a_model_that_is_no_longer_in_the_store_is_not_shown_as_if_it_were(tmp_path: Path) -> None:
    run = {"run": "r", "stages": {}, "metrics": None, "model": str(tmp_path / "model"), "error": None}
    assert "is no longer there: run its recipe again" in " ".join(run_text(run, None).split())
    (tmp_path / "model").mkdir()
    assert "no longer" not in run_text(run, None) and "report.html" in run_text(run, None)


def test_no_name_of_an_author_or_a_file_is_markup() -> None:
    # An author called [/b] was a traceback, and one called [b] was nobody.
    post = dict.fromkeys(("url", "author_url", "license", "license_stated", "score", "accepted", "created"))
    trace = {
        "pair_id": "mine/[/x]", "run": "r", "posts": [post | {"role": "chosen", "author": "[/b] [b] :beer:"}],
        "source": {"path": "[/dumps]/a.7z", "sha256": "0"}, "stages": {"pair": {"outcome": "kept", "place": "[/i]"}},
    }  # fmt: skip
    said = trace_text(trace)
    for text in ("mine/[/x]", "[/b] [b] :beer:", "[/dumps]/a.7z", "place [/i]"):
        assert text in said


def test_links_and_dates_of_a_trace_are_whole_however_long_the_names_are() -> None:
    post = {
        "role": "question", "url": "https://cooking-robots.example.com/q/395", "author": "a cook with many names",
        "author_url": "https://cooking-robots.example.com/users/129", "license": "CC BY-SA 4.0", "license_stated": True,
        "accepted": False, "score": 4, "created": "2021-03-05T09:00:00.000Z",
    }  # fmt: skip
    trace = {"pair_id": "p", "run": "r", "posts": [post], "source": None, "stages": {"pair": {"outcome": "kept"}}}
    words = trace_text(trace).split()
    assert {post["url"], post["author_url"], "2021-03-05"} <= set(words)
