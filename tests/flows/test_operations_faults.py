"""Deployed runs on real workers: handed over, cancelled, retried, and killed in every way (`make test-faults`)."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.flows.conftest import PREFSTACK, clean_environment
from tests.flows.installation import Installation, clear_away, start, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

TRAINING = """\
model: {model}
work_dir: work
ingest: {{sources: [demo-site]}}
pair: {{rule: pm, max_pairs_per_question: 2}}
sample: {{size: {size}, held_out: 8}}
tokenize: {{max_length: 256}}
train:
  {{learning_rate: 1.0e-6, batch_size: 4, epochs: {epochs}, precision: fp32, zero_stage: 2, ranks: 1, save_every: 5}}
evaluate: {{bootstrap: 100}}
publish: {{name: tiny}}
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = start(tmp_path_factory.mktemp("up"))
    try:
        yield installation
    finally:
        clear_away(installation)


@pytest.fixture
def short(up: Installation, tiny_model: Path) -> str:
    """A recipe of four steps."""
    path = up.folder / "short.yaml"
    path.write_text(TRAINING.format(model=tiny_model, size=16, epochs=1))
    return str(path)


@pytest.fixture
def long(up: Installation, tiny_model: Path) -> str:
    """A recipe that trains for longer than any test."""
    path = up.folder / "long.yaml"
    path.write_text(TRAINING.format(model=tiny_model, size=96, epochs=2000))
    return str(path)


def slots_taken(up: Installation) -> int:
    (limit,) = up.ask("/v2/concurrency_limits/filter")
    taken: int = limit["active_slots"]
    return taken


def test_one_command_makes_an_installation_that_the_doctor_finds_whole(up: Installation) -> None:
    done = up.prefstack("doctor", "--work-dir", "work", "--json")
    checks = {check["check"]: check["holds"] for check in json.loads(done.out)["checks"]}
    assert done.status == 0
    for check in ("pools, limits and automations", "deployments", "workers of pool cpu", "workers of pool gpu"):
        assert checks[check], done.out
    second = up.prefstack("up", "--port", str(up.port), "--work-dir", "work")
    assert second.status == 1 and "already runs" in second.err and "Traceback" not in second.err


def test_a_wrong_recipe_fails_the_run_at_once_with_its_message(up: Installation, short: str) -> None:
    run = up.run("wrong", recipe=short, overrides=["train.beta=-1"])
    up.await_state("wrong", "Failed", 120)
    message = up.ask(f"/flow_runs/{run}", method="GET")["state"]["message"]
    assert "train.beta" in message and "greater than 0" in message
    assert up.task_states(run, 1) == {}


def test_a_pipeline_hands_its_training_over_and_finds_it_again(up: Installation, short: str) -> None:
    run = up.run("whole", recipe=short)
    up.await_state("whole", "Completed", 600)
    child = up.find("whole-training")
    assert child["work_pool_name"] == "gpu" and child["state_name"] == "Completed"
    states = up.task_states(run, 1)
    assert states["sample"][0] == "Completed" and states["training-run"][0] == "Completed"
    assert {states[stage][0] for stage in ("model", "tokenize", "reference", "train", "evaluate", "publish")} == {
        "Reused"
    }
    assert states["train"][1].startswith(str(up.folder / "work" / "store" / "train-"))
    log = (up.folder / "work" / "runs" / "whole" / "run.log").read_text()
    assert "whole-training runs on pool gpu" in log and "publish   reused" in log

    # What is finished needs no run on the other pool.
    again = up.run("again", recipe=short)
    up.await_state("again", "Completed", 300)
    assert up.find("again-training") is None
    assert "training-run" not in up.task_states(again, 1)
    print(f"fully reused pipeline on a worker: {up.find('again')['total_run_time']:.1f} s")


def test_a_cancelled_pipeline_leaves_no_process_and_a_retry_goes_on_from_the_checkpoint(
    up: Installation, long: str
) -> None:
    run = up.run("stopped", recipe=long)
    up.await_state("stopped-training", "Running", 240)
    up.await_steps(12)
    assert slots_taken(up) == 1
    up.set_state(run, type="CANCELLING", name="Cancelling")
    gone = until(lambda: not up.processes("PREFECT__FLOW_RUN_ID="), 35, "the end of every process of the run")
    up.await_state("stopped-training", "Cancelled", 60)
    up.await_state("stopped", "Cancelled", 60)
    print(f"cancel: processes gone after {gone:.1f} s")
    assert slots_taken(up) == 0
    for name in ("stopped", "stopped-training"):
        summary = json.loads((up.folder / "work" / "runs" / name / "summary.json").read_text())
        assert summary["error"]["status"] == 130
    done = up.steps()

    begun = time.monotonic()
    up.set_state(run, type="SCHEDULED", name="AwaitingRetry")
    up.await_state("stopped", "Running", 60, attempt=2)
    up.await_state("stopped-training-2", "Running", 60)
    child = up.find("stopped-training-2")["id"]
    until(lambda: up.task_states(child, 1).get("train", ("",))[0] == "Running", 60, "the train task")
    print(f"retry: the failed stage runs again after {time.monotonic() - begun:.1f} s")
    up.await_steps(1)
    assert up.steps() >= done - 5  # goes on from the last checkpoint, five steps back at most
    states = up.task_states(run, 2)
    assert {states[stage][0] for stage in ("ingest", "pair", "dedupe", "sample")} == {"Reused"}
    up.set_state(run, type="CANCELLING", name="Cancelling")
    up.await_state("stopped", "Cancelled", 60)
    up.await_state("stopped-training-2", "Cancelled", 90)


def test_a_run_that_is_cancelled_as_its_process_starts_does_not_stay_so(up: Installation, long: str) -> None:
    run = up.run("early", recipe=long)
    until(lambda: up.find("early")["state_name"] not in ("Scheduled", "Late"), 60, "a worker that takes the run")
    up.set_state(run, type="CANCELLING", name="Cancelling")
    took = up.await_state("early", "Cancelled", 90)
    print(f"cancelled at its start: {took:.1f} s")
    assert not up.processes("PREFECT__FLOW_RUN_ID=")


def test_a_run_that_is_killed_goes_on_by_itself_and_is_left_failed_in_the_end(up: Installation, long: str) -> None:
    up.run("killed", deployment="training/training", recipe=long)
    up.await_state("killed", "Running", 120)
    for attempt, victim in enumerate(("engine", "worker", "engine"), start=1):
        before = up.await_steps(6)
        assert up.find("killed")["run_count"] == attempt  # one crash costs one attempt
        (up.engine("training") if victim == "engine" else up.worker("gpu")).kill()
        took = up.await_state("killed", "Running", 120, attempt + 1)
        print(f"kill -9 of {victim}: running again after {took:.1f} s")
        up.await_steps(1)
        assert up.steps() >= before - 5
    up.engine("training").kill()
    up.await_state("killed", "Failed", 120, attempt=5)
    message = up.find("killed")["state"]["message"]
    assert "crashed 4 times and was resumed 3 times" in message


def test_a_pipeline_and_the_training_that_it_waits_for_outlive_the_workers_of_both(up: Installation, long: str) -> None:
    run = up.run("parent", recipe=long)
    up.await_state("parent-training", "Running", 240)
    before = up.await_steps(6)
    # One worker is told to stop, as by a restart of its service, and takes its run along; the other dies with its run.
    up.worker("gpu").send_signal(signal.SIGTERM)
    up.worker("cpu").kill()
    up.engine("pipeline").kill()
    took = up.await_state("parent", "Running", 150, attempt=2)
    print(f"kill -9 of the pipeline and its worker: running again after {took:.1f} s")
    took += up.await_state("parent-training", "Running", 90, attempt=2)
    print(f"SIGTERM of the training's worker: running again after {took:.1f} s")
    until(lambda: up.task_states(run, 2).get("training-run", ("",))[0] == "Running", 60, "the task that waits")
    up.await_steps(1)
    assert up.steps() >= before - 5
    assert up.find("parent-training")["run_count"] == 2 and up.find("parent-training-2") is None
    up.set_state(run, type="CANCELLING", name="Cancelling")
    up.await_state("parent-training", "Cancelled", 90)
    up.await_state("parent", "Cancelled", 60)


def test_a_server_that_dies_is_started_again_and_a_training_does_not_notice(up: Installation, long: str) -> None:
    run = up.run("served", deployment="training/training", recipe=long)
    up.await_state("served", "Running", 120)
    before = up.await_steps(3)
    for process in up.processes("flows.prefect_server"):
        process.kill()
    until(lambda: up.answers(), 120, "the server, once more")
    up.await_steps(5)
    assert up.steps() > before
    assert up.find("served")["run_count"] == 1 and slots_taken(up) == 1
    up.set_state(run, type="CANCELLING", name="Cancelling")
    up.await_state("served", "Cancelled", 90)
    until(lambda: slots_taken(up) == 0, 30, "the slot of the cancelled run")


def test_up_stops_in_order_keeps_its_schedules_and_leaves_nothing_even_when_it_is_killed(tmp_path: Path) -> None:
    first = start(tmp_path)
    try:
        took = first.stop()
        print(f"Ctrl-C: stopped after {took:.1f} s")
        assert first.process.returncode == 0
        assert first.processes() == []
        again = start(tmp_path, first.port, first.files_port)
        assert ": made" not in again.log  # nothing had to be made a second time
        assert "deployed again" in again.log
        os.kill(again.process.pid, signal.SIGKILL)
        again.process.wait()
        until(lambda: not again.processes(), 60, "the end of server and workers")
    finally:
        for process in first.processes():
            process.kill()


def test_a_port_that_is_taken_is_named(up: Installation, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [PREFSTACK, "up", "--files-port", str(up.files_port), "--port", "9", "--work-dir", "work"],
        cwd=tmp_path, env=clean_environment(tmp_path / "home"), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and f"port {up.files_port}" in done.stderr and "Traceback" not in done.stderr


def test_a_database_and_a_password_of_the_operators_own_are_respected(tmp_path: Path) -> None:
    password = {"PREFECT_SERVER_API_AUTH_STRING": "admin:a-secret", "PREFECT_API_AUTH_STRING": "admin:a-secret"}
    database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path}/elsewhere.db"}
    first = start(tmp_path, more=password | database)
    try:
        assert (tmp_path / "elsewhere.db").stat().st_size > 0
        assert not (tmp_path / "home" / "prefect.db").exists()
        with pytest.raises(HTTPError, match="401"):
            first.ask("/work_pools/filter")
        done = first.prefstack("doctor", "--work-dir", "work", "--json")
        checks = {check["check"]: check["holds"] for check in json.loads(done.out)["checks"]}
        assert checks["deployments"] and checks["workers of pool cpu"] and checks["workers of pool gpu"], done.out
        first.stop()
        assert first.process.returncode == 0 and first.processes() == []
    finally:
        clear_away(first)
