"""Gates on the path: a good stage passes, a bad one stops, and a stored answer costs no Great Expectations."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pytest

from data_checks import evaluated
from tasks.errors import GateFailed
from tasks.gate import gate, stored_result
from tasks.manifest import Manifest
from tasks.store import External, Store, Workspace


@dataclass
class Heard:
    """A report that keeps what it is told."""

    messages: list[str] = field(default_factory=list)

    def message(self, stage: str, text: str) -> None:
        self.messages.append(f"{stage}: {text}")

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
        pass


def judged(store: Store, *, margin: float = 0.15, accuracy_low: float = 0.7, rows: int = 3) -> Manifest:
    """An `evaluate` folder with the given margin in its second row."""

    def build(work: Workspace) -> dict[str, int]:
        made = [
            {
                "pair_id": f"a/{number}", "chosen_logps": -10.0, "rejected_logps": -12.0, "ref_chosen_logps": -11.0,
                "ref_rejected_logps": -11.5, "chosen_tokens": 5, "rejected_tokens": 4,
                "margin": margin if number == 1 else 0.15,
            }
            for number in range(rows)
        ]  # fmt: skip
        pl.DataFrame(made).write_parquet(work.folder / "rows.parquet")
        found = {
            "accuracy": 0.8, "accuracy_low": accuracy_low, "accuracy_high": 0.9, "margin": 0.15, "loss": 0.6,
            "length_baseline_accuracy": 0.5,
        }  # fmt: skip
        (work.folder / "metrics.json").write_text(json.dumps(found))
        return {"rows": rows}

    config = {"margin": repr(margin), "accuracy_low": accuracy_low, "rows": rows}
    return store.stage("evaluate", 1, config, {"source": External("0" * 64)}, build)


def test_a_good_stage_passes_and_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    found = gate(store, judged(store), evaluated.check())
    assert found.stage == "gate-evaluated"
    assert found.counts["failed_critical"] == 0
    assert found.counts["failed_warning"] == 0
    assert found.counts["expectations"] == len(stored_result(store, judged(store), evaluated.check())["expectations"])
    assert sorted(found.files) == ["validation.json"]
    assert gate(store, judged(store), evaluated.check()).reused


def test_the_same_rows_give_the_same_validation_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        store = Store(tmp_path / name)
        digests.add(gate(store, judged(store), evaluated.check()).files["validation.json"].sha256)
    assert len(digests) == 1


def test_a_failure_names_expectation_column_what_was_seen_and_the_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(GateFailed) as failed:
        gate(store, judged(store, margin=float("nan")), evaluated.check())
    said = str(failed.value)
    for part in ("after evaluate", "expect_column_values_to_be_between", "(not_finite)", "saw 1", "for instance a/1"):
        assert part in said
    assert failed.value.status == 4


def test_a_stored_failure_stops_again_without_great_expectations(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(GateFailed) as first:
        gate(store, judged(store, margin=float("nan")), evaluated.check())
    program = f"""
import sys
from pathlib import Path
from data_checks import evaluated
from tasks.errors import GateFailed
from tasks.gate import gate
from tasks.manifest import Manifest
from tasks.store import Store
subject = Manifest.read(Path({str(judged(store, margin=float("nan")).folder)!r}))
try:
    gate(Store(Path({str(tmp_path)!r})), subject, evaluated.check())
except GateFailed as error:
    print(error)
print(sorted({{"great_expectations", "pandas"}} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [str(first.value), "[]"]


def test_a_warning_marks_and_lets_pass(tmp_path: Path) -> None:
    heard = Heard()
    store = Store(tmp_path, report=heard)
    subject = judged(store, accuracy_low=0.4)
    found = gate(store, subject, evaluated.check())
    assert (found.counts["failed_critical"], found.counts["failed_warning"]) == (0, 1)
    [message] = heard.messages
    assert "accuracy_low" in message and "0.4" in message


def test_a_waived_check_lets_pass_says_why_and_changes_no_file(tmp_path: Path) -> None:
    heard = Heard()
    store = Store(tmp_path, report=heard)
    subject = judged(store, margin=float("nan"))
    check = evaluated.check()
    with pytest.raises(GateFailed, match=r"gates\.waive would let it pass \(evaluated\.not_finite\)"):
        gate(store, subject, check)
    waiving = replace(check, waived={"not_finite": "a known fault", "loss": "of no matter"})
    found = gate(store, subject, waiving)
    assert found.reused  # the result that stopped the run before
    assert [message for message in heard.messages if "evaluated.not_finite is waived (a known fault)" in message]
    assert "waived" not in found.path("validation.json").read_text()
    marked = [entry for entry in stored_result(store, subject, waiving)["expectations"] if "waived" in entry]
    assert [(entry["column"], entry["waived"]) for entry in marked] == [("not_finite", "a known fault")]


def test_a_waiver_of_one_check_is_none_of_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(GateFailed, match="not_finite"):
        gate(store, judged(store, margin=float("nan")), replace(evaluated.check(), waived={"above_zero": "known"}))


def test_a_plan_judges_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    subject = judged(store, margin=float("nan"))
    assert gate(replace(store, plan=True), subject, evaluated.check()).planned
    planned = judged(replace(store, plan=True), rows=7)
    assert planned.planned and gate(replace(store, plan=True), planned, evaluated.check()).planned


def test_another_version_of_a_check_is_asked_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = gate(store, judged(store), evaluated.check())
    second = gate(store, judged(store), replace(evaluated.check(), version=evaluated.check().version + 1))
    assert first.fingerprint != second.fingerprint and not second.reused
