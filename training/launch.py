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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Literal

from training.rank import LAUNCHER_PID
from training.status import (
    EXIT_STOPPED,
    TRANSIENT,
    Failure,
    FailureKind,
    Outcome,
    Progress,
    clear,
    read_failures,
    read_outcome,
    read_progress,
)

STALL_SECONDS: Final = 30 * 60.0  # a step, a start or a save of the largest model takes minutes
STOP_SECONDS: Final = 20.0  # for the agreed stop and its checkpoint; Prefect kills the group 30 s after its SIGTERM
_GRACE_SECONDS: Final = 5.0  # for the other ranks of a dead one to say what they saw
_POLL_SECONDS: Final = 0.1
_RENDEZVOUS_TRIES: Final = 3  # another process may take the port between our choosing and rank 0's binding it
TAIL_LINES: Final = 200

log = logging.getLogger(__name__)


@dataclass
class RanksFailed(Exception):
    """The ranks did not finish. `transient` says whether the same again may go well."""

    kind: FailureKind | Literal["killed", "stalled", "stopped"]
    message: str
    log: Path
    tail: list[str] = field(default_factory=list, repr=False)
    """The last lines of the log."""

    @property
    def transient(self) -> bool:
        return self.kind in TRANSIENT or self.kind in ("killed", "stalled", "stopped")

    def __str__(self) -> str:
        return f"{self.message} (log: {self.log})"


def launch(
    module: str,
    job: Path,
    folder: Path,
    *,
    ranks: int,
    log_file: Path,
    on_progress: Callable[[Progress], None] | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> Outcome:
    """Run `python -m MODULE JOB` as `ranks` processes and return what rank 0 says at the end.

    `folder` is the job's folder, where the ranks say how they are (training/status.py); their output is appended to
    `log_file`. Whatever ends this call ends the ranks: an exception raised in it by a signal handler gives them
    STOP_SECONDS to stop in good order.

    Raises:
        RanksFailed: a rank failed, was killed, or said nothing for `stall_seconds`; or they were stopped by another.
    """
    for attempt in range(1, _RENDEZVOUS_TRIES + 1):
        try:
            return _launch(module, job, folder, ranks, log_file, on_progress, stall_seconds)
        except RanksFailed as failed:
            if failed.kind != "rendezvous" or attempt == _RENDEZVOUS_TRIES:
                raise
            log.warning("the ranks did not find each other (%s): trying another port", failed.message)
    raise AssertionError("unreachable")


def _launch(
    module: str, job: Path, folder: Path, ranks: int, log_file: Path, on_progress: Callable[[Progress], None] | None,
    stall_seconds: float,
) -> Outcome:  # fmt: skip
    clear(folder)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    kills_before = _memory_kills()
    port = free_port()
    processes: list[subprocess.Popen[bytes]] = []
    with open(log_file, "ab") as output:
        try:
            for rank in range(ranks):
                processes.append(_start(module, job, rank, ranks, port, output))
            first = _watch(processes, folder, on_progress, stall_seconds, log_file)
        finally:
            _end(processes)
    codes = {rank: process.returncode for rank, process in enumerate(processes)}
    outcome = read_outcome(folder)
    if not any(codes.values()) and outcome is not None:
        return outcome
    raise _failure(codes, first, outcome, folder, log_file, memory_killed=_memory_kills() > kills_before)


def _start(module: str, job: Path, rank: int, ranks: int, port: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module, str(job)],
        env=os.environ | rank_environment(rank, ranks, port),
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
    )  # fmt: skip


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What a rank finds in its environment beside ours; the cores are divided over the ranks."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    allowed = int(os.environ.get("OMP_NUM_THREADS", "0")) or cores
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
            raise RanksFailed("stalled", message, log_file, _tail(log_file))
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


def _failure(
    codes: dict[int, int], first: list[int], outcome: Outcome | None, folder: Path, log_file: Path, *,
    memory_killed: bool,
) -> RanksFailed:  # fmt: skip
    """What to tell of ranks that ended with `codes`, of which `first` failed first: the likeliest cause they know."""
    tail = _tail(log_file)
    failures = read_failures(folder)
    progress = read_progress(folder)
    where = "" if progress is None else f" after {progress.done} of {progress.total} {progress.unit}"
    if failures and failures[0].kind != "peer":  # of a lost peer, the peer knows more
        return RanksFailed(failures[0].kind, _at(failures[0]), log_file, tail)
    for rank in sorted(first, key=lambda rank: codes[rank] != -signal.SIGKILL):
        if codes[rank] < 0 and memory_killed:
            message = f"rank {rank} was killed{where} since memory ran out; lower train.tokens_per_pack or train.ranks"
            return RanksFailed("memory", message, log_file, tail)
        if codes[rank] < 0:
            name = signal.Signals(-codes[rank]).name
            return RanksFailed("killed", f"rank {rank} was killed by {name}{where}", log_file, tail)
    if outcome is not None and outcome.state == "stopped":
        message = f"stopped on request after step {outcome.step}; start again to go on"
        return RanksFailed("stopped", message, log_file, tail)
    if failures:
        return RanksFailed("peer", _at(failures[0]), log_file, tail)
    said = ", ".join(f"rank {rank} with {code}" for rank, code in codes.items() if code) or "no outcome"
    return RanksFailed("bug", f"the ranks ended without a word{where}: {said}", log_file, tail)


def _at(failure: Failure) -> str:
    step = "" if failure.step is None else f", step {failure.step}"
    return f"rank {failure.rank}{step}: {failure.message}"


def _tail(path: Path) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as lines:
        return lines.read().splitlines()[-TAIL_LINES:]


def _memory_kills() -> int:
    """How many processes of our control group the kernel has killed for want of memory; 0 where it does not say."""
    try:
        events = Path("/sys/fs/cgroup/memory.events").read_text(encoding="ascii")
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))
