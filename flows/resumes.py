"""What a run does differently when it is not the first attempt: it counts its resumptions, and waits for its past."""

import ctypes
import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flows.automations import MAX_RESUMES, RESUMED
from flows.prefect_api import api
from flows.report import current_report
from tasks.errors import StageFailed

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def refuse_endless_resumes() -> None:
    """StageFailed where the automation has resumed this run MAX_RESUMES times and it crashed once more."""
    from prefect import runtime

    if runtime.flow_run.id is None or (runtime.flow_run.run_count or 0) <= MAX_RESUMES:
        return
    with api() as client:
        states = client.read_flow_run_states(runtime.flow_run.id)
    resumes = automatic_resumes(states)
    if resumes > MAX_RESUMES:
        raise StageFailed(
            f"the run has crashed {resumes} times and was resumed {MAX_RESUMES} times: look at its log for what ends "
            "it (memory?), then retry it by hand, which goes on from what is finished"
        )


def automatic_resumes(states: "Sequence[State]") -> int:
    """How often the automation has resumed the run, after it had run, since somebody last scheduled it by hand.

    A resumption of an attempt that never ran answers to the worker's second report of the crash before.
    """
    count, ran = 0, False
    for state in sorted(states, key=lambda state: state.timestamp):
        if state.type.value == "RUNNING":
            ran = True
        if state.type.value != "SCHEDULED" or state.name == "Late":  # the server says Late of the same waiting run
            continue
        count = count + ran if state.message == RESUMED else 0
        ran = False
    return count


@contextmanager
def only_attempt(folder: Path) -> Iterator[None]:
    """Wait while an earlier attempt of the run in `folder` is still at work: one that was only thought dead."""
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            current_report().message("run", f"another process works at the run {folder.name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel if the holder dies
        yield


def end_with_worker() -> None:
    """Let the kernel send this process SIGTERM when the worker that started it dies, however it dies.

    Without it a run whose worker was killed goes on unseen, and no cancel can reach it.
    """
    if os.environ.get("PREFECT__FLOW_RUN_ID") and os.environ.get("PREFECT__WORKER_NAME"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
