"""A gate that fails: the run stops before any device is used, and says what failed, where a person looks for it."""

import json
import time
from pathlib import Path

import pytest

from data_checks import sampled
from flows.pipeline import training
from tasks.errors import GateFailed
from tests.flows.conftest import Server
from tests.flows.test_real_server import ask


def test_it_stops_the_run_names_what_failed_and_uses_no_device(
    here: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sample that has a pair less than it should, as a mistake in that stage would make it.
    check = sampled.check
    monkeypatch.setattr(sampled, "check", lambda size, held_out: check(size + 1, held_out))
    work = tmp_path / "work"
    with pytest.raises(GateFailed, match="the gate after sample") as failed:
        training.with_options(name="gated")(recipe="demo", overrides=[f"work_dir={work}", "price=2"], name="gated")
    assert "expect_table_row_count_to_equal" in str(failed.value) and "96" in str(failed.value)
    folder = work / "runs" / "gated"
    error = json.loads((folder / "summary.json").read_text())["error"]
    assert (error["status"], error["kind"], error["stage"]) == (4, "gate", "sample")

    (run,) = ask(here, "/flow_runs/filter", {"flows": {"name": {"any_": ["gated"]}}})
    assert run["state_type"] == "FAILED" and "expect_table_row_count_to_equal" in run["state"]["message"]
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    end = time.monotonic() + 60  # task runs are written down a while after they end
    while len(tasks := ask(here, "/task_runs/filter", of_run)) < 8 and time.monotonic() < end:
        time.sleep(0.3)
    names = sorted(task["name"].rpartition("-")[0] for task in tasks)
    assert names == [
        "dedupe", "gate-deduped", "gate-ingested", "gate-paired", "gate-sampled", "ingest", "pair", "sample",
    ]  # fmt: skip
    assert all(task["run_count"] == 1 for task in tasks)  # tried once: it would fail the same way
    found = {artifact["key"]: artifact for artifact in ask(here, "/artifacts/filter", of_run | {"limit": 50})}
    first = json.loads(found["gate-sampled"]["data"])[0]  # what failed comes first
    assert (first["held"], first["severity"], first["seen"]) == ("NO", "critical", "96")
    assert "no (critical)" in (folder / "gates" / "sampled.html").read_text()
    assert "run-cost" not in found and not (folder / "device_time.json").exists()
