"""`prefstack drain`: let the workers of a pool come to rest, so that they can be restarted without ending a run.

A worker that is stopped ends the runs that it has started. So: pause the pool, wait until nothing of it runs, restart
the worker, and `prefstack drain --resume`.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from flows.operations import POOLS
from flows.prefect_api import api
from tasks.errors import RecipeError, Surroundings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, WorkPool

POLL: Final = 2.0  # seconds
TELL_EVERY: Final = 30.0


def drain(pools: Sequence[str], wait: float | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Pause `pools` and wait until no run of theirs is at work, at most `wait` seconds (None: however long).

    Raises Surroundings when runs are still at work after that; the pools stay paused.
    """
    with api() as client:
        for name in _known(client, pools):
            _set_paused(client, name, paused=True)
            say(f"pool {name} is paused: runs that are due wait, and runs that are at work go on")
    end = None if wait is None else time.monotonic() + wait
    told = 0.0
    while True:
        with api() as client:
            busy = {name: running_in(client, name) for name in pools}
        runs = [run for found in busy.values() for run in found]
        if not runs:
            return _answer(pools, paused=True, runs=[])
        names = ", ".join(f"{run.name} ({run.state_name})" for run in runs)
        if end is not None and time.monotonic() >= end:
            raise Surroundings(
                f"after {wait:.0f} s there is still at work: {names}. The pools stay paused; wait on with the same "
                "command, or cancel the runs"
            )
        if time.monotonic() - told >= TELL_EVERY:
            told = time.monotonic()
            say(f"waiting for {names}")
        time.sleep(POLL)


def resume(pools: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Let the pools hand out runs again."""
    with api() as client:
        for name in _known(client, pools):
            _set_paused(client, name, paused=False)
            say(f"pool {name} hands out runs again")
        runs = [run for name in pools for run in running_in(client, name)]
    return _answer(pools, paused=False, runs=runs)


def drain_text(answer: dict[str, Any]) -> str:
    """What a person reads of it."""
    names = ", ".join(answer["pools"])
    if not answer["paused"]:
        return f"resumed: {names}"
    return f"empty: {names}. Restart the workers, then `prefstack drain --resume`"


def running_in(client: "SyncPrefectClient", pool: str) -> "list[FlowRun]":
    """Runs of the pool that a worker has taken and not ended. (A pipeline that waits for its training is one.)"""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    at_work = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=at_work))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )


def _known(client: "SyncPrefectClient", pools: Sequence[str]) -> list[str]:
    there = [pool.name for pool in client.read_work_pools()]
    for name in pools:
        if name not in there:
            raise RecipeError(f"there is no work pool {name!r}; pools: {', '.join(there) or ', '.join(POOLS)}")
    return list(pools)


def _set_paused(client: "SyncPrefectClient", name: str, *, paused: bool) -> None:
    from prefect.client.schemas.actions import WorkPoolUpdate

    found: WorkPool = client.read_work_pool(name)
    if found.is_paused != paused:
        client.update_work_pool(name, WorkPoolUpdate(is_paused=paused))


def _answer(pools: Sequence[str], *, paused: bool, runs: "Sequence[FlowRun]") -> dict[str, Any]:
    return {
        "pools": list(pools),
        "paused": paused,
        "running": [{"name": run.name, "state": run.state_name} for run in runs],
        "error": None,
    }
