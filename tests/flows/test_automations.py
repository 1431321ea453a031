"""The automations on a real server, with runs whose states a test sets: no worker has to be alive for them to act."""

import time
from typing import Any

from flows.automations import RESUMED, SETTLED
from flows.operations import prepare_server
from flows.prefect_api import api
from flows.resumes import automatic_resumes
from tests.flows.conftest import Server


def made(name: str, *tags: str) -> str:
    """A run of a deployment that no worker serves (without one Prefect lets nothing leave its end); its id."""
    with api() as client:
        flow = client.request("POST", "/flows/", json={"name": "settled"}).json()["id"]
        deployment = client.request("POST", "/deployments/", json={"flow_id": flow, "name": "settled"}).json()["id"]
        path, run = f"/deployments/{deployment}/create_flow_run", {"name": name, "tags": tags}
        return str(client.request("POST", path, json=run).json()["id"])


def put(run: str, state: str) -> None:
    with api() as client:
        wanted = {"state": {"type": state}, "force": True}
        client.request("POST", "/flow_runs/{id}/set_state", path_params={"id": run}, json=wanted)


def states(run: str) -> list[Any]:
    with api() as client:
        return sorted(client.read_flow_run_states(run), key=lambda state: state.timestamp)


def resumed(run: str) -> list[Any]:
    return [state for state in states(run) if state.message == RESUMED]


def test_a_crashed_run_goes_on_once_it_has_settled_and_one_that_somebody_moved_is_left(here: Server) -> None:
    prepare_server()
    tags = ("prefstack", "auto-resume")
    once, twice, by_hand = (made(name, *tags) for name in ("once", "twice", "by-hand"))
    asked, foreign = made("asked", "prefstack"), made("foreign", "auto-resumed")
    runs = (once, twice, by_hand, asked, foreign)
    for run in runs:
        put(run, "RUNNING")
    # One after the other: what follows a crash has to follow it at once, also where the server is slow.
    for state in ("CRASHED", "CRASHED"):  # as a worker does that reports the same end once more
        put(twice, state)
    for state in ("CRASHED", "SCHEDULED"):
        put(by_hand, state)
    for run in (once, asked, foreign):
        put(run, "CRASHED")
    end = time.monotonic() + 120
    while not (resumed(once) and resumed(twice)):
        assert time.monotonic() < end, [[state.name for state in states(run)] for run in runs]
        time.sleep(0.5)
    for run in (once, twice):
        crashed = [state for state in states(run) if state.type.value == "CRASHED"]
        back = resumed(run)[0]  # a busy server may fire twice at once, which changes nothing
        assert back.type.value == "SCHEDULED" and back.name == "AwaitingRetry"
        assert (back.timestamp - crashed[-1].timestamp).total_seconds() > SETTLED - 1
        assert automatic_resumes(states(run)) == 1
    assert not any(resumed(run) for run in (by_hand, asked, foreign))

    # It crashes again, and goes on again.
    put(once, "RUNNING")
    put(once, "CRASHED")
    end = time.monotonic() + 120
    while automatic_resumes(states(once)) < 2:
        assert time.monotonic() < end, [state.name for state in states(once)]
        time.sleep(0.5)
