"""What prefstack wants of a real server: made once, mended, and left as an operator has set it."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from flows.automations import automations
from flows.deployments import DEPLOYMENTS, deploy_all, elsewhere
from flows.drain import drain, resume
from flows.operations import host_limit, missing_on_server, prepare_server
from flows.prefect_api import api
from flows.slot import Lease, host_slot
from tasks.errors import RecipeError, Surroundings
from tasks.store import Silent
from tests.flows.conftest import ROOT, Server
from tests.flows.test_real_server import ask


@pytest.fixture
def deployed(here: Server, tmp_path: Path) -> Server:
    """The deployments of prefect.yaml are there."""
    prepare_server()
    with api() as client:
        names = {deployment.name for deployment in client.read_deployments()}
    if names != {"pipeline", "data", "training", "sweep"}:
        deploy_all(ROOT, tmp_path / "deploy.log")
    return here


def request(server: Server, method: str, path: str, body: object) -> None:
    wanted = urllib.request.Request(
        f"{server.url}{path}", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"},
        method=method,
    )  # fmt: skip
    urllib.request.urlopen(wanted, timeout=10).close()


def test_what_is_wanted_is_made_once_mended_and_otherwise_left_as_it_is(here: Server) -> None:
    prepare_server()
    assert missing_on_server() == []
    assert prepare_server() == []
    pools = {pool["name"]: pool for pool in ask(here, "/work_pools/filter")}
    assert pools["cpu"]["type"] == pools["gpu"]["type"] == "process"

    # An operator's own settings are not undone.
    request(here, "PATCH", "/work_pools/cpu", {"concurrency_limit": 7})
    request(here, "PATCH", f"/v2/concurrency_limits/{host_limit()}", {"limit": 2})
    found = {automation["name"]: automation for automation in ask(here, "/automations/filter")}
    assert set(found) == {automation.name for automation in automations()}
    off = found["prefstack: crashed run goes on"]
    request(here, "PATCH", f"/automations/{off['id']}", {"enabled": False})
    assert prepare_server() == []
    assert [change.what for change in missing_on_server()] == ["is switched off"]
    with api() as client:
        assert client.read_work_pool("cpu").concurrency_limit == 7
        assert client.read_global_concurrency_limit_by_name(host_limit()).limit == 2

    # One that is missing or of another version is made again; a double goes.
    request(here, "PATCH", f"/automations/{off['id']}", {"enabled": True})
    with api() as client:
        zombies = client.read_automations_by_name("prefstack: silent run is crashed")
        client.delete_automation(zombies[0].id)
        client.create_automation(automations()[1])
    changes = prepare_server()
    assert [(change.name, change.what) for change in changes] == [("prefstack: silent run is crashed", "made")]
    assert len(ask(here, "/automations/filter")) == len(automations())
    request(here, "PATCH", f"/v2/concurrency_limits/{host_limit()}", {"limit": 1})


def test_a_pool_of_another_type_is_refused_by_name(here: Server) -> None:
    prepare_server()
    with api() as client:
        client.delete_work_pool("gpu")
    request(here, "POST", "/work_pools/", {"name": "gpu", "type": "docker", "base_job_template": {}})
    try:
        with pytest.raises(Surroundings, match="'gpu' is of type 'docker'"):
            prepare_server()
    finally:
        with api() as client:
            client.delete_work_pool("gpu")
        prepare_server()


def test_deploying_again_keeps_the_schedules_that_were_switched_on(deployed: Server, tmp_path: Path) -> None:
    with api() as client:
        nightly = client.read_deployment_by_name("data/data")
        client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=True)
    said = deploy_all(ROOT, tmp_path / "deploy.log")
    with api() as client:
        switched = {
            name: [schedule.active for schedule in client.read_deployment_by_name(name).schedules]
            for name in DEPLOYMENTS
        }
        client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=False)
    assert switched == {"pipeline/pipeline": [], "data/data": [True], "training/training": [False], "sweep/sweep": []}
    assert any("schedule on: nightly" in line for line in said)


def test_a_folder_of_its_own_gets_the_same_deployments_by_module(tmp_path: Path) -> None:
    settings = elsewhere(tmp_path)
    assert [entry["entrypoint"] for entry in settings["deployments"]] == [
        "flows.pipeline.pipeline", "flows.pipeline.data", "flows.pipeline.training",
        "flows.sweep.sweep",
    ]  # fmt: skip
    assert settings["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}]


def test_forms_have_at_most_six_fields_without_nesting(deployed: Server) -> None:
    ours = [entry for entry in ask(deployed, "/deployments/filter") if "prefstack" in entry["tags"]]
    assert len(ours) == len(DEPLOYMENTS)  # other tests have made deployments of their own on this server
    for deployment in ours:
        schema = deployment["parameter_openapi_schema"]
        assert 1 <= len(schema["properties"]) <= 6
        assert set(schema["properties"]) <= {"recipe", "vary", "overrides", "force", "until", "resume", "name"}
        assert not schema.get("definitions")
        for field in schema["properties"].values():
            assert field["description"] and "anyOf" not in field  # of a choice of types the form makes a riddle
        assert deployment["tags"] == ["prefstack", "auto-resume"]
        assert deployment["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_an_empty_pool_is_drained_at_once_and_resumed(here: Server) -> None:
    prepare_server()
    said: list[str] = []
    assert drain(["gpu"], 5, said.append)["running"] == []
    with api() as client:
        assert client.read_work_pool("gpu").is_paused and not client.read_work_pool("cpu").is_paused
    resume(["gpu"], said.append)
    with api() as client:
        assert not client.read_work_pool("gpu").is_paused
    with pytest.raises(RecipeError, match=r"no work pool 'gpus'; pools: .*gpu"):
        drain(["gpus"], 5, said.append)


def test_a_pool_with_a_run_at_work_is_waited_for_and_named(deployed: Server) -> None:
    with api() as client:
        training = client.read_deployment_by_name("training/training")
    made: Any = ask(deployed, f"/deployments/{training.id}/create_flow_run", {"name": "at-work"})
    ask(deployed, f"/flow_runs/{made['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    with pytest.raises(Surroundings, match=r"still at work: at-work \(Running\)"):
        drain(["gpu"], 0.5, lambda text: None)
    ended = threading.Timer(
        1.0, ask, (deployed, f"/flow_runs/{made['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    )
    ended.start()
    assert drain(["gpu"], 30, lambda text: None)["running"] == []
    resume(["gpu"], lambda text: None)


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, stage: str, text: str) -> None:
        self.said.append(text)


def slots_taken(server: Server) -> int:
    answer = urllib.request.urlopen(f"{server.url}/v2/concurrency_limits/{host_limit()}", timeout=10)
    taken: int = json.load(answer)["active_slots"]
    return taken


def test_the_second_training_of_a_host_waits_for_the_first(here: Server, tmp_path: Path) -> None:
    prepare_server()
    first, second = tmp_path / "first", tmp_path / "second"
    heard, got = Heard(), threading.Event()

    def wait_for_it() -> None:
        with host_slot("train", second, heard):
            got.set()

    with host_slot("train", first, Silent()):
        assert slots_taken(here) == 1 and first.exists()
        other = threading.Thread(target=copy_context().run, args=(wait_for_it,))
        other.start()
        assert not got.wait(2.5)
        assert heard.said == [f"waiting for {host_limit()}: another run uses the devices"]
    assert got.wait(10)
    other.join()
    assert slots_taken(here) == 0 and not first.exists() and not second.exists()


def test_the_slot_of_a_killed_attempt_is_given_back_by_the_next(here: Server, tmp_path: Path) -> None:
    # The killed one's lease would hold the slot for a minute.
    prepare_server()
    note = tmp_path / ".lease"
    hold = (
        "import time; from pathlib import Path; from flows.slot import host_slot; from tasks.store import Silent\n"
        f"with host_slot('train', Path({str(note)!r}), Silent()): time.sleep(120)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, env=os.environ | here.environment)
    end = time.monotonic() + 60
    while not note.exists() and time.monotonic() < end:
        time.sleep(0.1)
    holder.kill()
    holder.wait()
    assert slots_taken(here) == 1
    start = time.monotonic()
    with host_slot("train", note, Silent()):
        assert time.monotonic() - start < 10
        assert slots_taken(here) == 1
    assert slots_taken(here) == 0


def test_a_lease_that_the_server_has_lost_is_taken_again(here: Server) -> None:
    prepare_server()
    lease = Lease(host_limit(), None)
    assert lease.try_once() and not Lease(host_limit(), None).try_once()
    lost = lease.id
    lease.renew_once()
    assert lease.id == lost
    lease.release()
    assert slots_taken(here) == 0
    lease.renew_once()
    assert lease.id != lost and slots_taken(here) == 1
    lease.release()


def test_a_server_without_the_limit_makes_a_run_by_hand_wait_for_nobody(here: Server, tmp_path: Path) -> None:
    prepare_server()
    with api() as client:
        client.delete_global_concurrency_limit_by_name(host_limit())
    try:
        with host_slot("train", tmp_path / "note", Silent()):
            assert not (tmp_path / "note").exists()
    finally:
        prepare_server()
