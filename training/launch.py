"""Starts the ranks of a training or a scoring on this host, watches them, and leaves none behind.

The ranks stay in our process group, so that whoever signals the group reaches them, and each asks the kernel to be
killed when its launcher dies. (The `deepspeed` command orphans its ranks on SIGTERM; torchrun gives each a session.)
Nothing here imports torch: a flow may import this.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

from training.failures import RanksFailed, diagnose, memory_kills, tail_of
from training.rank import LAUNCHER_PID
from training.status import EXIT_STOPPED, Outcome, Progress, clear, read_failures, read_outcome, read_progress
from training.withheld import without_credentials

STALL_SECONDS: Final = 30 * 60.0  # a step, a start or a save of the largest model takes minutes
STOP_SECONDS: Final = 20.0  # for the agreed stop and its checkpoint; Prefect kills the group 30 s after its SIGTERM
_GRACE_SECONDS: Final = 5.0  # for the other ranks of a dead one to say what they saw
_POLL_SECONDS: Final = 0.1
_RENDEZVOUS_TRIES: Final = 3  # another process may take the port between our choosing and rank 0's binding it

log = logging.getLogger(__name__)


def launch(
    module: str,
    job: Path,
    folder: Path,
    *,
    ranks: int,
    log_file: Path,
    on_progress: Callable[[Progress], None] | None = None,
    stall_seconds: float = STALL_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run `python -m MODULE JOB` as `ranks` processes and return what rank 0 says at the end.

    `folder` is the job's folder, where the ranks say how they are (training/status.py); their output is appended to
    `log_file`. They see `environment`, or ours without credentials, which no rank needs that reads local files
    (training/withheld.py). Whatever ends this call ends the ranks: an exception raised in it by a signal handler gives
    them STOP_SECONDS to stop in good order.

    Raises:
        RanksFailed: a rank failed, was killed, or said nothing for `stall_seconds`; or they were stopped by another.
    """
    given = without_credentials(os.environ) if environment is None else environment
    for attempt in range(1, _RENDEZVOUS_TRIES + 1):
        try:
            return _launch(module, job, folder, ranks, log_file, on_progress, stall_seconds, given)
        except RanksFailed as failed:
            if failed.kind != "rendezvous" or attempt == _RENDEZVOUS_TRIES:
                raise
            log.warning("the ranks did not find each other (%s): trying another port", failed.message)
    raise AssertionError("unreachable")


def _launch(
    module: str, job: Path, folder: Path, ranks: int, log_file: Path, on_progress: Callable[[Progress], None] | None,
    stall_seconds: float, environment: Mapping[str, str],
) -> Outcome:  # fmt: skip
    clear(folder)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    kills_before = memory_kills()
    port = free_port()
    processes: list[subprocess.Popen[bytes]] = []
    with open(log_file, "ab") as output:
        try:
            for rank in range(ranks):
                processes.append(_start(module, job, rank, ranks, port, output, environment))
            first = _watch(processes, folder, on_progress, stall_seconds, log_file)
        finally:
            _end(processes)
    codes = {rank: process.returncode for rank, process in enumerate(processes)}
    outcome = read_outcome(folder)
    if not any(codes.values()) and outcome is not None:
        return outcome
    raise diagnose(codes, first, outcome, folder, log_file, memory_killed=memory_kills() > kills_before)


def _start(
    module: str, job: Path, rank: int, ranks: int, port: int, output: IO[bytes], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(job)],
        env={**environment, **rank_environment(rank, ranks, port)},
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
    )  # fmt: skip


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What a rank finds in its environment beside ours; the cores are divided over the ranks."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    # OpenMP takes a list, too: the threads of each level of nesting.
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    allowed = (int(asked) if asked.isdecimal() else 0) or cores
    return {
        LAUNCHER_PID: str(os.getpid()),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(max(1, min(allowed, cores) // ranks)),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",  # their output goes to a log
        # All ranks are on this host; the host's own name may not resolve.
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        # Without it cuBLAS may sum in another order from run to run.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def free_port() -> int:
    """A TCP port of the loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _watch(
    processes: list[subprocess.Popen[bytes]], folder: Path, on_progress: Callable[[Progress], None] | None,
    stall_seconds: float, log_file: Path,
) -> list[int]:  # fmt: skip
    """Return when all ranks have ended, or one has failed and the others had time to say so: the first to fail."""
    last: Progress | None = None
    heard = time.monotonic()
    while _alive(processes):
        if first := _failed(processes):
            if not _cause_known(processes, first, folder):
                _wait(processes, _GRACE_SECONDS)
            for process in processes:  # they wait for the dead one and would not see a request to stop
                process.kill()
            return first
        progress = read_progress(folder)
        if progress != last and progress is not None:
            last, heard = progress, time.monotonic()
            if on_progress is not None:
                on_progress(progress)
        elif time.monotonic() - heard > stall_seconds:
            where = f"after {last.done} of {last.total} {last.unit}" if last is not None else "before the first step"
            message = f"the ranks stood still for {stall_seconds:.0f} s {where} and were ended"
            for process in processes:
                process.kill()
            raise RanksFailed("stalled", message, log_file, tail_of(log_file))
        time.sleep(_POLL_SECONDS)
    progress = read_progress(folder)
    if on_progress is not None and progress is not None and progress != last:
        on_progress(progress)
    return _failed(processes)


def _alive(processes: list[subprocess.Popen[bytes]]) -> bool:
    return None in [process.poll() for process in processes]  # a list: every one of them is asked


def _failed(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    return [rank for rank, process in enumerate(processes) if process.returncode not in (None, 0, EXIT_STOPPED)]


def _cause_known(processes: list[subprocess.Popen[bytes]], first: list[int], folder: Path) -> bool:
    """Whether the ranks that failed first say more than that they have lost a peer."""
    killed = any(processes[rank].returncode < 0 for rank in first)
    return killed or any(failure.kind != "peer" for failure in read_failures(folder))


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask the ranks that are still alive to stop, wait, and kill what is left."""
    try:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        _wait(processes, STOP_SECONDS)
    finally:  # a second signal does not wait
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wait(processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _alive(processes) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
