"""A pipeline that comes back finds the training that it had started, on a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Completed, Crashed, Scheduled, State

from flows import handover
from flows.handover import Handover
from tasks.errors import Surroundings
from tests.flows.conftest import Server

STEP = 1.0  # seconds between two things that happen to a run
BROUGHT_BACK = (Scheduled(name="AwaitingRetry"), Completed())


@flow(name="trainer")
def trainer(recipe: str, overrides: list[str], force: list[str], until: str, resume: str, name: str) -> None:
    """Stands for the training: no worker ever starts it, the tests say what becomes of it."""


@pytest.fixture
def wanted(here: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Handover]:
    monkeypatch.setattr(handover, "POLL", 0.2)
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(trainer)
        made = client.create_deployment(flow_id, name="handed-over")
        deployment = client.read_deployment(made)
        yield Handover(deployment, "demo", [], [], "publish", "auto", "comes-back")
        client.delete_deployment(made)


def happens(run: UUID, *states: State) -> None:
    with get_client(sync_client=True) as client:
        for state in states:
            time.sleep(STEP)
            client.set_flow_run_state(run, state, force=True)


def come_back(wanted: Handover, work_dir: Path, then: Callable[[UUID], None]) -> tuple[str, list[str]]:
    """A pipeline whose training has just crashed looks for it; the training's name, and all that were started."""

    @flow(name="comes-back")
    def pipeline() -> tuple[str, list[str]]:
        first = handover._start(wanted, None)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(first.id, Crashed(message="no heartbeat for 90 seconds"), force=True)
        # Prefect's settings, and with them the server, are those of a context: a bare thread would have none.
        other = threading.Thread(target=copy_context().run, args=(then, first.id), daemon=True)
        other.start()
        name = handover.train_elsewhere(wanted, work_dir)
        other.join(30)
        return name, sorted(run.name for run in handover._children(wanted))

    return pipeline()


def test_a_training_that_has_crashed_with_its_pipeline_is_waited_for_and_not_doubled(
    wanted: Handover, tmp_path: Path
) -> None:
    name, started = come_back(wanted, tmp_path, lambda first: happens(first, *BROUGHT_BACK))
    assert name == "comes-back-training"
    assert started == ["comes-back-training"]


def test_a_training_that_nobody_brings_back_is_followed_by_another_attempt(
    wanted: Handover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "REVIVED_WITHIN", 2.0)
    begun = time.monotonic()

    def finish_the_second(first: UUID) -> None:
        with get_client(sync_client=True) as client:
            while time.monotonic() - begun < 30:
                found = [run for run in client.read_flow_runs() if run.name == "comes-back-training-2"]
                if found:
                    happens(found[0].id, Completed())
                    return
                time.sleep(0.2)

    name, started = come_back(wanted, tmp_path, finish_the_second)
    assert name == "comes-back-training-2"
    assert started == ["comes-back-training", "comes-back-training-2"]
    assert time.monotonic() - begun > 2.0


def test_a_server_that_is_away_for_a_moment_does_not_end_the_wait(
    wanted: Handover, monkeypatch: pytest.MonkeyPatch
) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(wanted.deployment.id)
        client.set_flow_run_state(run.id, Crashed(), force=True)
        crashed = client.read_flow_run(run.id)
        client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)
    real, asked = handover.api, []

    def away_at_first() -> object:
        asked.append("asked")
        if len(asked) == 1:
            raise Surroundings("the server does not answer")
        return real()

    monkeypatch.setattr(handover, "api", away_at_first)
    settled = handover._settled(crashed)
    assert settled.state is not None and settled.state.name == "AwaitingRetry"
    assert len(asked) == 2
