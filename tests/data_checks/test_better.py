"""Better than the start, or not shown to be: what a sceptic asks of numbers whose truth is known."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from data_checks import evaluated, publishable
from data_checks.better import hurt_benchmarks, numbers, unknown, unmet
from data_checks.run import run_check
from tasks.evaluation.metrics import metrics, no_metrics
from tasks.evaluation.verdict import findings
from tests.tasks.evaluation.test_metrics import made_rows

HURT = {"task": "gsm8k", "metric": "exact_match", "before": 0.5, "after": 0.4, "difference": -0.1, "low": -0.15,
        "high": -0.05}  # fmt: skip


def judged(**made: Any) -> dict[str, Any]:
    return metrics(made_rows(600, **made), beta=0.1, times=100, seed=42)


def missed(found: dict[str, Any]) -> list[str]:
    return [demand.column for demand, _ in unmet(found)]


@pytest.fixture(scope="module")
def skilled() -> dict[str, Any]:
    return judged(skill=0.85)


@pytest.fixture(scope="module")
def length_only() -> dict[str, Any]:
    return judged(length_only=True)


def test_a_policy_that_learned_what_people_want_meets_every_demand(skilled: dict[str, Any]) -> None:
    assert missed(skilled) == [] and unknown(skilled) == []
    assert skilled["length_controlled_accuracy"] == pytest.approx(0.85, abs=0.05)


def test_a_policy_that_only_learned_length_looks_good_and_is_unmasked(length_only: dict[str, Any]) -> None:
    assert length_only["accuracy_low"] > 0.5  # better than a coin, at first sight
    assert length_only["accuracy"] == pytest.approx(length_only["length_baseline_accuracy"], abs=0.01)
    assert length_only["length_controlled_accuracy"] == pytest.approx(0.5, abs=0.1)
    assert {"at_equal_length_low", "beyond_length_low"} <= set(missed(length_only))


def test_a_policy_equal_to_its_start_meets_nothing_that_shows_learning() -> None:
    found = judged(trained=False)
    assert found["accuracy"] == 0.0
    assert missed(found) == ["over_start_low", "at_equal_length_low", "beyond_length_low"]
    # By log-probs no better, and no worse: what 300 questions without a difference leave open.
    assert numbers(found)["start_gain_high"] == pytest.approx(0.0122, abs=1e-4)


def test_three_questions_show_nothing_however_right_the_model_is() -> None:
    rows = made_rows(6).with_columns(margin=pl.lit(1.0), chosen_tokens=pl.lit(50), rejected_tokens=pl.lit(100))
    found = metrics(rows, beta=0.1, times=100, seed=42)
    assert found["questions"] == 3 and found["accuracy"] == 1.0 and found["length_baseline_accuracy"] == 0.0
    assert missed(found) == ["questions", "over_start_low", "at_equal_length_low", "beyond_length_low"]


def test_a_model_that_ranks_worse_than_its_start_by_log_probs_is_seen(skilled: dict[str, Any]) -> None:
    gain = {"difference": -0.1, "low": -0.15, "high": -0.05}
    assert missed(skilled | {"policy_only": {"gain": gain}}) == ["start_gain_high"]


def test_a_start_that_knew_as_much_without_a_reference_is_not_outdone() -> None:
    """Under a reward without a reference the start model has an accuracy of its own."""
    rows = made_rows(600, skill=0.85)
    known = rows.with_columns(
        ref_chosen_logps="chosen_logps", ref_rejected_logps="rejected_logps",
        margin=pl.col("chosen_logps") / pl.col("chosen_tokens") - pl.col("rejected_logps") / pl.col("rejected_tokens"),
    )  # fmt: skip
    found = metrics(known, beta=1.0, times=50, seed=42, reward="averaged log-prob")
    assert found["accuracy"] > 0.5 and found["over_start"]["difference"] == 0.0
    assert "over_start_low" in missed(found)
    plain = metrics(rows, beta=0.1, times=50, seed=42)
    assert plain["over_start"]["difference"] == plain["accuracy"]


def test_all_right_is_judged_by_the_interval_of_the_accuracy_itself() -> None:
    rows = made_rows(600).with_columns(margin=pl.lit(0.3))
    found = metrics(rows, beta=0.1, times=100, seed=42)
    assert found["accuracy"] == 1.0 and found["length_controlled_accuracy"] is None
    assert numbers(found)["at_equal_length_low"] == found["accuracy_low"] and missed(found) == []


def test_no_held_out_pair_shows_nothing() -> None:
    assert missed(no_metrics("none")) == []
    assert len(unknown(no_metrics("none"))) == 5 == numbers(no_metrics("none"))["unknown"]


def test_a_benchmark_is_hurt_where_its_paired_interval_says_so() -> None:
    within = HURT | {"task": "mmlu", "low": -0.02, "high": 0.01}
    toxic = HURT | {"task": "toxigen", "before": 0.1, "after": 0.2, "low": 0.05, "high": 0.15}
    better = HURT | {"task": "ifeval", "low": 0.01, "high": 0.03}
    open_end = HURT | {"task": "xstest", "low": None, "high": None}
    found = hurt_benchmarks({"benchmarks": [HURT, within, toxic | {"higher_is_better": False}, better, open_end]})
    assert found == [
        "gsm8k exact_match: 0.5 to 0.4 (-0.1500 to -0.0500)", "toxigen exact_match: 0.1 to 0.2 (+0.0500 to +0.1500)",
    ]  # fmt: skip
    assert hurt_benchmarks({}) == hurt_benchmarks({"benchmarks": None}) == []


@pytest.mark.parametrize(("severity", "check"), [("warning", evaluated.check()), ("critical", publishable.check())])
def test_the_gate_marks_what_publishing_refuses(
    severity: str, check: Any, length_only: dict[str, Any], tmp_path: Path
) -> None:
    made_rows(600, length_only=True).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "metrics.json").write_text(json.dumps(length_only | {"benchmarks": [HURT]}))
    result = run_check(check.frame(tmp_path), check)
    failed = {entry.column for entry in result.failed(severity)}
    assert failed >= {"at_equal_length_low", "beyond_length_low", "hurt_benchmarks"}
    assert check.examples is not None and "gsm8k" in check.examples(tmp_path, "hurt_benchmarks")[0]
    other = "critical" if severity == "warning" else "warning"
    assert not {entry.column for entry in result.failed(other)} & failed


def test_a_good_model_passes_both_and_one_without_evidence_only_the_first(
    skilled: dict[str, Any], tmp_path: Path
) -> None:
    rows = made_rows(600, skill=0.85)
    rows.write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "metrics.json").write_text(json.dumps(skilled))
    assert run_check(publishable.check().frame(tmp_path), publishable.check()).failed("critical") == []
    assert run_check(evaluated.check().frame(tmp_path), evaluated.check()).failed("warning") == []
    rows.clear().write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "metrics.json").write_text(json.dumps(no_metrics("none")))
    assert run_check(evaluated.check().frame(tmp_path), evaluated.check()).failed("critical") == []
    (only,) = run_check(publishable.check().frame(tmp_path), publishable.check()).failed("critical")
    assert (only.column, only.seen) == ("unknown", "5")


def all_right(questions: int) -> dict[str, Any]:
    """Two pairs a question, all right, the chosen answer always the shorter one."""
    rows = made_rows(2 * questions).with_columns(
        margin=pl.lit(1.0), chosen_tokens=pl.lit(50), rejected_tokens=pl.lit(100)
    )
    return metrics(rows, beta=0.1, times=100, seed=42)


@pytest.mark.parametrize(
    ("questions", "short"),
    [
        (4, ["questions", "over_start_low", "at_equal_length_low", "beyond_length_low"]),
        (19, ["questions"]),
        (20, []),
        (100, []),
    ],
)
def test_few_questions_are_too_few_to_tell_however_right_the_model_is(questions: int, short: list[str]) -> None:
    found = all_right(questions)
    assert found["accuracy"] == 1.0 and found["questions"] == questions
    assert missed(found) == short
    assert [sentence.startswith("Too few to tell") for sentence in findings(found)[:1]] == [True] * bool(short)


def test_a_run_on_too_few_questions_is_marked_and_not_publishable_as_better(tmp_path: Path) -> None:
    for questions, expected in ((19, ["questions"]), (20, [])):
        (tmp_path / "metrics.json").write_text(json.dumps(all_right(questions)))
        failed = run_check(publishable.view(tmp_path), publishable.check()).failed("critical")
        assert [(one.column, one.seen) for one in failed] == [(name, str(questions)) for name in expected]
