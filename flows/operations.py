"""What prefstack wants of a Prefect server: two pools, a limit for each training host, and the automations.

All of it is made by name and can be made again: what is there already and right is left alone.

    pools        cpu: pipelines and data; gpu: training
    limit        gpu:HOST, one slot: one training, scoring or evaluation at a time on that host
    automations  a run whose heartbeats stop is marked Crashed; a crashed run goes on; a run that no worker starts
                 is marked Crashed; a run that crashes again and again is left Failed
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flows.automations import automations
from flows.prefect_api import api
from tasks.errors import Surroundings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

POOLS: Final = {"cpu": 4, "gpu": 1}
"""Slots of each pool that is made here. `cpu` has more than one, since a pipeline that waits for its training holds
one. `gpu` has one a training host: with more hosts, set it to their number. What a host may do at once is said by the
limit of that host, whatever the pool allows."""


def host_limit(host: str | None = None) -> str:
    """Name of the concurrency limit of a training host."""
    return f"gpu:{host or socket.gethostname()}"


@dataclass(frozen=True)
class Change:
    """One thing that was made or mended, or that is missing when nothing may be changed."""

    kind: str
    name: str
    what: str


def prepare_server(*, limit: bool = True) -> list[Change]:
    """Make what is missing on the server that PREFECT_API_URL names; a second call changes nothing."""
    with api() as client:
        changes = [change for pool, slots in POOLS.items() if (change := _pool(client, pool, slots))]
        if limit and (change := ensure_limit(client, host_limit())):
            changes.append(change)
        changes += [change for automation in automations() if (change := _automation(client, automation))]
    return changes


def missing_on_server() -> list[Change]:
    """What `prepare_server` would make."""
    from prefect.exceptions import ObjectNotFound

    missing: list[Change] = []
    with api() as client:
        checks: list[tuple[str, str, Callable[[], Any]]] = [
            *(("work pool", pool, lambda pool=pool: client.read_work_pool(pool)) for pool in POOLS),
            ("limit", host_limit(), lambda: client.read_global_concurrency_limit_by_name(host_limit())),
        ]
        for kind, name, read in checks:
            try:
                read()
            except ObjectNotFound:
                missing.append(Change(kind, name, "is not there"))
        for wanted in automations():
            found = client.read_automations_by_name(wanted.name)
            if not found:
                missing.append(Change("automation", wanted.name, "is not there"))
            elif not found[0].enabled:
                missing.append(Change("automation", wanted.name, "is switched off"))
    return missing


def ensure_limit(client: "SyncPrefectClient", name: str) -> Change | None:
    """One slot under `name`, unless there is a limit of that name: an operator may have given it more."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    try:
        client.read_global_concurrency_limit_by_name(name)
        return None
    except ObjectNotFound:
        pass
    try:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    except ObjectAlreadyExists:
        return None  # another worker was faster
    return Change("limit", name, "made, one slot")


def _pool(client: "SyncPrefectClient", name: str, slots: int) -> Change | None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = WorkPoolCreate(name=name, type="process", base_job_template=template, concurrency_limit=slots)
        client.create_work_pool(pool)
        return Change("work pool", name, f"made, slots: {slots}")
    if found.type != "process":
        raise Surroundings(
            f"work pool {name!r} is of type {found.type!r}, and prefstack wants processes: rename or delete it"
        )
    return None


def _automation(client: "SyncPrefectClient", wanted: "AutomationCore") -> Change | None:
    found = client.read_automations_by_name(wanted.name)
    for double in found[1:]:
        client.delete_automation(double.id)
    if not found:
        client.create_automation(wanted)
        return Change("automation", wanted.name, "made")
    there = found[0]
    if _compared(there) == _compared(wanted):
        return None  # an operator who switched it off meant it
    client.update_automation(there.id, wanted.model_copy(update={"enabled": there.enabled}))
    return Change("automation", wanted.name, "brought up to date")


def _compared(automation: "AutomationCore") -> Any:
    return _in_order(automation.model_dump(mode="json", include={"trigger", "actions", "description"}))


def _in_order(value: Any) -> Any:
    """`value` with its lists sorted: the names of events are a set, and come in any order."""
    if isinstance(value, dict):
        return {key: _in_order(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_in_order(item) for item in value), key=repr)
    return value
