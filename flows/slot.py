"""One training at a time on a host: the slot that a stage holds while it uses the devices.

Prefect's own `concurrency()` gives up renewing its lease after three failures, some ten seconds without a server, and
hides the lease from whoever comes after a killed run. Here the lease is renewed for as long as the stage lasts, and
the next attempt of the same run gives back what a killed one has left.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from flows.device_time import counted
from flows.operations import ensure_limit, host_limit
from flows.prefect_api import api
from flows.preflight import preflight
from flows.report import run_log_line
from flows.trainer_log import trainer_log
from tasks.errors import Surroundings, Transient
from tasks.folders import write_text
from tasks.manifest import Manifest
from tasks.store import Report, Store
from tasks.train import TrainConfig

ON_DEVICES: Final = frozenset({"reference", "train", "evaluate", "generate", "benchmark", "outputs"})
LEASE: Final = 60.0  # seconds, Prefect's least: so long a slot stays taken after its holder was killed
ASK_EVERY: Final = 2.0
logger = logging.getLogger("prefstack")


@contextmanager
def devices_for(
    stage: str, build: Callable[..., Manifest], store: Store, given: tuple[Any, ...], report: Report
) -> Iterator[None]:
    """Hold this host's slot while `stage` is built, see that the devices are well, and follow what the ranks print.

    Nothing of that for a stage without ranks, or one that is reused.
    """
    planned = build(replace(store, plan=True), *given) if stage in ON_DEVICES else None
    if planned is None or not planned.planned:
        yield
        return
    run_folder = store.work_dir / "runs" / store.run
    with host_slot(stage, run_folder / ".lease", report):
        found = preflight()
        ranks = next(config.ranks for config in given if isinstance(config, TrainConfig))
        with (
            counted(stage, found[0].name if found else "CPU", ranks, run_folder),
            trainer_log(stage, planned.folder.name, store.work_dir, run_folder, run_log_line(), log_name(stage, given)),
        ):
            yield


def log_name(stage: str, given: tuple[Any, ...]) -> str:
    """What the log of a stage is called in the run's folder: in one run two models are examined, and two sets of token
    rows are scored where the evaluation has sources of its own, none of whose rows are trained on."""
    if stage in ("benchmark", "outputs"):
        return f"{stage}-{'start' if given[0].stage == 'model' else 'tuned'}"
    if stage == "reference" and given[0].counts.get("train") == 0:
        return "reference-evaluate"
    return stage


@contextmanager
def host_slot(stage: str, note: Path, report: Report) -> Iterator[None]:
    """The slot of this host, waited for. `note` holds the lease's id, so that it can be given back after a kill.

    A run that no deployment started, on a server without such a limit, has nobody to wait for.
    """
    from prefect import runtime

    if not _limit_exists(make=runtime.deployment.id is not None):
        yield
        return
    _give_back_left(note)
    lease = Lease(host_limit(), runtime.flow_run.id)
    lease.acquire(lambda: report.message(stage, f"waiting for {lease.name}: another run uses the devices"))
    write_text(note, str(lease.id))
    # Prefect's settings, and with them the server, are those of a context: a bare thread would have none.
    renewal = threading.Thread(
        target=copy_context().run, args=(lease.renew_until_stopped,), daemon=True, name=f"lease of {lease.name}"
    )
    renewal.start()
    try:
        yield
    finally:
        lease.stop.set()
        lease.release()
        note.unlink(missing_ok=True)


@dataclass
class Lease:
    """A slot of the limit `name`, held by the flow run `run`."""

    name: str
    run: str | None
    id: UUID | None = None

    def __post_init__(self) -> None:
        self.stop = threading.Event()

    def acquire(self, waiting: Callable[[], None]) -> None:
        """Return with a slot; `waiting` is called once if that takes time."""
        said = False
        while not self.try_once():
            if not said:
                waiting()
                said = True
            time.sleep(ASK_EVERY)

    def try_once(self) -> bool:
        """Whether there was a free slot. Transient where the server cannot say."""
        from httpx import HTTPStatusError, TransportError
        from prefect.client.schemas.objects import ConcurrencyLeaseHolder

        holder = ConcurrencyLeaseHolder(type="flow_run", id=UUID(self.run)) if self.run else None
        try:
            with _client() as client:
                answer = client.increment_concurrency_slots_with_lease([self.name], 1, "concurrency", LEASE, holder)
        except HTTPStatusError as error:
            if error.response.status_code == 423:
                return False
            raise Transient(f"{self.name}: the server refused a slot: {error.response.text[:200]}") from error
        except TransportError as error:
            raise Transient(f"{self.name}: the server does not answer: {error}") from error
        given = answer.json()
        if not given["limits"]:
            raise Surroundings(f"the limit {self.name} is not on the server any more: `prefstack up` makes it")
        self.id = UUID(given["lease_id"])
        return True

    def renew_until_stopped(self) -> None:
        """Renew at a quarter of the lease's time; where the server has lost the lease, take the slot again."""
        while not self.stop.wait(LEASE / 4):
            # A server that does not answer for a while must not end ten hours of training.
            with suppress(Exception):
                self.renew_once()

    def renew_once(self) -> None:
        """Hold the slot for LEASE seconds from now."""
        from httpx import HTTPStatusError
        from prefect.exceptions import ObjectNotFound

        assert self.id is not None
        try:
            with _client() as client:
                client.renew_concurrency_lease(self.id, LEASE)
        except (HTTPStatusError, ObjectNotFound):
            logger.warning("the server has lost the lease of %s: taking the slot again", self.name)
            self.try_once()

    def release(self) -> None:
        with suppress(Exception):  # it ends by itself after LEASE seconds
            assert self.id is not None
            with _client() as client:
                client.release_concurrency_slots_with_lease(self.id)


def _limit_exists(*, make: bool) -> bool:
    from prefect.exceptions import ObjectNotFound

    with api() as client:
        if make:
            ensure_limit(client, host_limit())
            return True
        try:
            client.read_global_concurrency_limit_by_name(host_limit())
        except ObjectNotFound:
            return False
        return True


def _give_back_left(note: Path) -> None:
    """Release what an earlier attempt of this run held when it was killed: the run's lock says that it is dead."""
    try:
        left = UUID(note.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return
    with suppress(Exception), _client() as client:
        client.release_concurrency_slots_with_lease(left)
    note.unlink(missing_ok=True)


def _client() -> Any:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)
