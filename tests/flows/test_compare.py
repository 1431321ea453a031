"""`prefstack compare` on runs as they lie in a work folder, and what it says of runs that have no result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.compare import compare_runs, compare_text
from flows.recipe import load_recipe
from flows.runs import Run, open_run
from tasks.errors import InputError, RecipeError
from tasks.evaluation.metrics import ROWS_SCHEMA, metrics, no_metrics
from tasks.store import External, Store, Workspace
from tests.tasks.evaluation.test_metrics import made_rows

Make = Callable[..., Run]


@pytest.fixture
def finished(tmp_path: Path) -> Make:
    """Makes a run with an evaluation: `make(name, "train.beta=0.5", skill=0.9)`."""

    def make(name: str, *overrides: str, rows: int = 120, **made: Any) -> Run:
        recipe = load_recipe("demo", [f"work_dir={tmp_path}", *overrides])

        def build(work: Workspace) -> dict[str, int]:
            held_out = made_rows(120, **made).head(rows)
            found = metrics(held_out, beta=0.1, times=30, seed=42) if rows else no_metrics("sample.held_out is 0")
            (work.folder / "metrics.json").write_text(json.dumps(found))
            held_out.select(ROWS_SCHEMA.names()).write_parquet(work.folder / "rows.parquet")
            return {"pairs": rows}

        run = open_run(name, recipe)
        store = Store(tmp_path)
        run.finish("evaluate", [store.stage("evaluate", 1, {"name": name}, {"x": External("0" * 64)}, build)], 0.0)
        return run

    return make


def test_two_runs_give_a_table_a_page_and_one_object(finished: Make, tmp_path: Path) -> None:
    finished("weak", skill=0.55)
    finished("strong", "train.beta=0.5", "seed=7", skill=0.95)
    answer = compare_runs(["weak", "strong"], tmp_path)
    assert json.loads(json.dumps(answer)) == answer
    assert answer["error"] is None
    assert [run["settings"] for run in answer["runs"]] == [
        {"seed": 42, "train.beta": 0.1}, {"seed": 7, "train.beta": 0.5},
    ]  # fmt: skip
    assert answer["paired"]["pairs"] == 120
    assert answer["paired"]["versus"][0]["accuracy"]["low"] > 0
    assert Path(answer["page"]).is_file() and Path(answer["plot"]).read_bytes().startswith(b"\x89PNG")
    said = compare_text(answer)
    assert "train.beta" in said and "against weak, on 120 shared pairs" in said and answer["page"] in said
    again = compare_runs(["weak", "strong"], tmp_path)
    assert again["page"] == answer["page"]
    assert compare_runs(["strong", "weak"], tmp_path)["page"] != answer["page"]


def test_a_run_that_failed_after_its_evaluation_is_compared(finished: Make, tmp_path: Path) -> None:
    finished("good")
    finished("refused").fail(RecipeError("not published"), "publish")
    assert compare_runs(["good", "refused"], tmp_path)["paired"]["pairs"] == 120


def test_runs_that_cannot_be_compared_are_named(finished: Make, tmp_path: Path) -> None:
    finished("good")
    with pytest.raises(RecipeError, match="there is no run 'bad'"):
        compare_runs(["good", "bad"], tmp_path)
    with pytest.raises(RecipeError, match="run good is named twice"):
        compare_runs(["good", "good"], tmp_path)
    with pytest.raises(RecipeError, match="two runs or more"):
        compare_runs(["good"], tmp_path)
    recipe = load_recipe("demo", [f"work_dir={tmp_path}"])
    open_run("stopped", recipe).fail(InputError("a.7z is damaged"), "ingest")
    with pytest.raises(RecipeError, match=r"run stopped has no evaluation: it stopped at ingest: a\.7z is damaged"):
        compare_runs(["good", "stopped"], tmp_path)
    open_run("young", recipe).write()
    with pytest.raises(RecipeError, match="run young has no evaluation: it has come to nothing"):
        compare_runs(["good", "young"], tmp_path)
    finished("blind", rows=0)
    with pytest.raises(RecipeError, match=r"run blind was judged on no held-out pair: sample\.held_out is 0"):
        compare_runs(["good", "blind"], tmp_path)
    (tmp_path / "store").rename(tmp_path / "gone")
    with pytest.raises(RecipeError, match="no longer in the store"):
        compare_runs(["good", "blind"], tmp_path)


def test_other_held_out_pairs_are_said_and_not_tested(finished: Make, tmp_path: Path) -> None:
    finished("first")
    other = finished("second")
    path = Path(other.summary["stages"]["evaluate"]["folder"]) / "rows.parquet"
    pl.read_parquet(path).with_columns(pair_id="x" + pl.col("pair_id")).write_parquet(path)
    answer = compare_runs(["first", "second"], tmp_path)
    assert answer["paired"] is None
    assert "share no held-out pair" in compare_text(answer)
