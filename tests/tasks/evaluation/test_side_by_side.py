"""Runs side by side: differing settings, honest notes, and a page that needs nothing beside it."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from lxml import html

from tasks.errors import RecipeError
from tasks.evaluation.metrics import ROWS_SCHEMA, metrics, no_metrics
from tasks.evaluation.side_by_side import MISSING, Judged, differing, side_by_side
from tasks.reports.comparison_page import ANSWER, PAGE, PICTURE, markdown, write_comparison
from tests.tasks.evaluation.test_metrics import made_rows


def judged(name: str, *, beta: float = 0.1, keep: slice = slice(None), **made: Any) -> Judged:
    rows = made_rows(240, **made)[keep]
    settings = {"model": "tiny", "work_dir": name, "train": {"beta": beta, "loss": "sigmoid"}, "seed": 42}
    found = metrics(rows, beta=beta, times=40, seed=42)
    return Judged(name, settings, found, rows.select(ROWS_SCHEMA.names()))


def test_only_settings_that_differ_are_listed_and_places_are_no_settings() -> None:
    found = differing(
        [
            {"work_dir": "a", "train": {"beta": 0.1, "loss": "sigmoid"}, "ingest": {"sources": [1]}},
            {"work_dir": "b", "train": {"beta": 0.5, "loss": "sigmoid", "ld_alpha": 0.3}, "ingest": {"sources": [2]}},
        ]
    )
    assert found == {"train.beta": [0.1, 0.5], "ingest.sources": [[1], [2]], "train.ld_alpha": [MISSING, 0.3]}


def test_a_better_run_is_better_on_the_same_pairs() -> None:
    found = side_by_side([judged("weak", skill=0.55), judged("strong", skill=0.9)], times=60)
    assert found.differing == {} and found.notes == []
    assert found.paired is not None and found.paired.pairs == 240
    gain = found.paired.versus[0].accuracy
    accuracies = [line["accuracy"] for line in found.headlines]
    assert isinstance(accuracies[0], float) and isinstance(accuracies[1], float)
    assert gain.value == pytest.approx(accuracies[1] - accuracies[0])
    assert gain.low is not None and gain.low > 0
    assert "| better |" in markdown(found)


def test_a_run_that_only_draws_other_luck_is_not_called_better() -> None:
    found = side_by_side([judged("one"), judged("two")], times=40)
    assert "| no difference shown |" in markdown(found)


def test_runs_without_a_shared_pair_stand_side_by_side_and_are_not_tested() -> None:
    found = side_by_side([judged("first", keep=slice(0, 120)), judged("second", keep=slice(120, 240))])
    assert found.paired is None
    assert found.as_json()["paired"] is None
    (note,) = found.notes
    assert "share no held-out pair (first 120, second 120)" in note


def test_partly_shared_pairs_other_cuts_and_other_units_are_said() -> None:
    first, second = judged("first"), judged("second", beta=0.5, keep=slice(40, 240))
    cut = second.rows.with_columns(
        chosen_tokens=pl.when(pl.int_range(pl.len()) < 7).then(pl.lit(5)).otherwise("chosen_tokens")
    )
    third = Judged("third", second.settings, second.metrics, cut)
    found = side_by_side([first, second, third], times=20)
    assert found.paired is not None and found.paired.pairs == 200
    said = " ".join(found.notes)
    assert "200 are shared (first 240, second 200, third 200)" in said
    assert "7 of the 200 shared pairs have other lengths" in said
    assert "units of beta" in said
    assert "2 runs are measured against first" in said


def test_a_run_judged_on_nothing_is_refused_by_name() -> None:
    empty = Judged("empty", {}, no_metrics("sample.held_out is 0"), pl.DataFrame(schema=ROWS_SCHEMA))
    with pytest.raises(RecipeError, match=r"run empty was judged on no held-out pair: sample\.held_out is 0"):
        side_by_side([judged("one"), empty])
    with pytest.raises(RecipeError, match="two runs or more"):
        side_by_side([judged("one")])


def test_the_page_holds_all_it_needs_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    found = side_by_side([judged("weak|<b>", skill=0.55), judged("strong", beta=0.5, skill=0.9)], times=30)
    for folder in ("once", "again"):
        write_comparison(found, tmp_path / folder)
    for name in (PAGE, PICTURE, ANSWER):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    page = html.fromstring((tmp_path / "once" / PAGE).read_text(encoding="utf-8"))
    assert page.xpath("//script | //link | //iframe | //main//b") == []
    assert all(source.startswith("data:image/png;base64,") for source in page.xpath("//@src"))
    assert len(page.xpath("//table")) == 3
    assert "weak|<b>" in page.text_content()
    answer = json.loads((tmp_path / "once" / ANSWER).read_text(encoding="utf-8"))
    assert [run["settings"] for run in answer["runs"]] == [{"train.beta": 0.1}, {"train.beta": 0.5}]
    assert answer["paired"]["versus"][0]["only_this"] > answer["paired"]["versus"][0]["only_other"]
