"""The evaluate stage on a small run, with the model scored for real."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from datasets import Dataset

from tasks.errors import StageFailed
from tasks.evaluate import EvaluateConfig, evaluate, read_metrics
from tasks.evaluation.held_out import token_lengths
from tasks.evaluation.metrics import HEADLINE, STORED_SCHEMA
from tasks.manifest import Manifest
from tasks.scores.scoring import score
from tasks.store import Workspace

Make = Callable[..., Any]


def judged(run: Any, *, bootstrap: int = 50, **changes: Any) -> Manifest:
    stages = run.stages | changes
    return evaluate(
        run.store, stages["train"], stages["tokenize"], stages["reference"], stages["sample"],
        EvaluateConfig(bootstrap=bootstrap), run.train, 42,
    )  # fmt: skip


@pytest.fixture
def run(finished: Any) -> Any:
    return finished


@pytest.fixture
def evaluated(finished: Any) -> Manifest:
    found: Manifest = finished.stages["evaluate"]
    return found


def test_rows_have_the_margin_of_every_held_out_pair(evaluated: Manifest, run: Any) -> None:
    rows = pl.read_parquet(evaluated.path("rows.parquet"))
    assert rows.schema == STORED_SCHEMA
    assert rows["unit"][0] == rows["pair_id"][0].rsplit("/", 2)[0]
    assert rows["pair_id"].to_list() == run.held_out()["pair_id"].to_list()
    for row in rows.to_dicts():
        chosen, rejected = (
            row["chosen_logps"] - row["ref_chosen_logps"],
            row["rejected_logps"] - row["ref_rejected_logps"],
        )
        assert row["margin"] == pytest.approx(run.train.beta * (chosen - rejected))


def test_the_four_plots_that_always_have_something_to_show_are_there(evaluated: Manifest) -> None:
    wanted = {"plots/accuracy.png", "plots/margins.png", "plots/calibration.png", "plots/drift.png"}
    assert wanted < set(evaluated.files)


def test_metrics_are_those_of_the_rows(evaluated: Manifest) -> None:
    margin = pl.read_parquet(evaluated.path("rows.parquet"))["margin"]
    found = read_metrics(evaluated)
    assert found["accuracy"] == (margin > 0).mean()
    assert found["margin"] == pytest.approx(margin.mean())
    assert found["loss"] == pytest.approx(sum(math.log1p(math.exp(-value)) for value in margin) / len(margin))
    assert evaluated.counts == {
        "pairs": 30, "questions": 10, "right": (margin > 0).sum(), "ties": 0, "wrong": (margin < 0).sum(),
    }  # fmt: skip


def test_a_second_evaluation_is_reused_and_a_plan_starts_nothing(evaluated: Manifest, run: Any) -> None:
    assert judged(run).reused
    planned = evaluate(
        replace(run.store, plan=True), run.stages["train"].model_copy(update={"planned": True}), run.stages["tokenize"],
        run.stages["reference"], run.stages["sample"], EvaluateConfig(bootstrap=51), run.train, 42,
    )  # fmt: skip
    assert planned.planned


def test_another_analysis_of_the_same_weights_costs_no_forward_pass(
    evaluated: Manifest, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a rank was started")

    monkeypatch.setattr("tasks.scores.scoring.run_ranks", refuse)
    again = judged(run, bootstrap=70)
    assert not again.reused
    assert again.files["rows.parquet"].sha256 == evaluated.files["rows.parquet"].sha256
    assert read_metrics(again)["margin_low"] != read_metrics(evaluated)["margin_low"]


def test_where_held_out_pairs_come_from_is_no_setting_of_the_evaluation(evaluated: Manifest) -> None:
    config = EvaluateConfig.model_validate({"sources": ["beer.stackexchange.com.7z"], "held_out": 7})
    assert config.sources[0].kind == "dump"
    assert config.identity() == {"bootstrap": 1000}
    assert set(evaluated.config).isdisjoint({"sources", "held_out"})


@pytest.mark.slow
def test_a_model_that_learned_nothing_ties_on_every_pair(run_until_train: Make, tmp_path: Path) -> None:
    run = run_until_train(tmp_path, learn=0.0, held_out=9)
    found = read_metrics(judged(run, reference=_own_reference(run)))
    assert found["accuracy"] == 0.0
    assert found["ties"] == found["pairs"] == 9
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-12)


def _own_reference(run: Any) -> Manifest:
    """A reference scored by the very path that scores the policy: values must agree to the last bit for a tie."""
    stages = run.stages

    def build(work: Workspace) -> dict[str, int]:
        score(
            work, stages["model"].path("model"), stages["tokenize"].path("held_out"), work.partial / "scored.parquet",
            precision="fp32", ranks=1, tokens_per_pack=None,
        )  # fmt: skip
        scored = pl.read_parquet(work.partial / "scored.parquet")
        scored = scored.select("pair_id", ref_chosen_logps="chosen_logps", ref_rejected_logps="rejected_logps")
        scored.write_parquet(work.folder / "held_out.parquet")
        return {}

    inputs = {"tokenize": stages["tokenize"], "model": stages["model"]}
    manifest: Manifest = run.store.stage("reference", 1, {"own": True}, inputs, build)
    return manifest


def test_without_held_out_pairs_every_number_is_null_and_says_why(run_until_train: Make, tmp_path: Path) -> None:
    folder = judged(run_until_train(tmp_path, held_out=0))
    found = read_metrics(folder)
    assert [found[name] for name in HEADLINE] == [None] * 6
    assert found["reason"] == "sample.held_out is 0: no pair to judge by"
    assert pl.read_parquet(folder.path("rows.parquet")).height == 0
    assert folder.counts["pairs"] == 0


def test_a_reference_that_lacks_a_pair_is_named(run: Any) -> None:
    short = run.stages["reference"].path("held_out.parquet")

    def build(work: Any) -> dict[str, int]:
        pl.read_parquet(short).slice(1).write_parquet(work.folder / "held_out.parquet")
        return {}

    reference = run.store.stage("reference", 1, {"short": True}, {"whole": run.stages["reference"]}, build)
    first = run.held_out()["pair_id"][0]
    with pytest.raises(StageFailed, match=f"1 of 30 held-out pairs have no log-probs of the reference.*{first}"):
        judged(run, reference=reference)


def test_a_cut_answer_fills_the_limit_and_has_lost_its_end(tmp_path: Path) -> None:
    rows = {
        "pair_id": ["whole", "full to the brim", "cut"],
        "prompt_ids": [[5, 6], [5, 6], [5, 6]],
        "chosen_ids": [[7, 1], [7, 8, 9, 1], [7, 8, 9, 9]],
        "rejected_ids": [[8, 1], [8, 1], [8, 1]],
    }
    Dataset.from_dict(rows).save_to_disk(tmp_path / "rows")
    lengths = token_lengths(tmp_path / "rows", 6)
    assert lengths["chosen_cut"].to_list() == [False, False, True]
    assert lengths["rejected_cut"].to_list() == [False, False, False]
    assert lengths["chosen_tokens"].to_list() == [2, 4, 4]
    assert token_lengths(tmp_path / "rows", None)["chosen_cut"].to_list() == [None, None, None]
