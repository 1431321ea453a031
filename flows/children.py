"""Processes that `prefstack up` keeps: started, started again when they end by themselves, stopped in good order."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

BACK_OFF: Final = (1.0, 2.0, 5.0, 15.0, 60.0)  # seconds before a process that keeps ending is started again
WELL_AFTER: Final = 120.0  # seconds of life after which an end is the first again
LOG_LIMIT: Final = 20 * 2**20  # bytes; a longer log is moved aside at the start
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass
class Child:
    """One process, with what is needed to start it again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    ends: int = 0
    started: float = field(default=0.0)
    due: float | None = None
    """When it is started again, on the monotonic clock."""

    def start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.rename(self.log.with_suffix(".log.1"))
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C is for us, and we stop the children in their order.
            self.process = subprocess.Popen(
                list(self.command), env=dict(self.environment), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        self.started = time.monotonic()
        self.due = None

    def look_after(self) -> str | None:
        """Start the process again where it has ended and its time has come; a line to say where something happened."""
        if self.process is None or self.process.poll() is None:
            return None
        now = time.monotonic()
        if self.due is None:
            self.ends = 0 if now - self.started > WELL_AFTER else self.ends
            wait = BACK_OFF[min(self.ends, len(BACK_OFF) - 1)]
            self.ends += 1
            self.due = now + wait
            return (
                f"{self.name} ended with status {self.process.returncode} and starts again in {wait:.0f} s: {self.log}"
            )
        if now >= self.due:
            self.start()
        return None


def stop(children: Iterable[Child], within: float) -> None:
    """Ask all of them to end, wait, ask once more, and kill the groups of those that stay."""
    processes = [child.process for child in children if child.process is not None]
    alive = [process for process in processes if process.poll() is None]
    end = time.monotonic() + within
    for process in alive:
        process.send_signal(signal.SIGTERM)
    asked_again = False
    while any(process.poll() is None for process in alive):
        if not asked_again and time.monotonic() > end - within / 3:
            asked_again = True  # a worker takes the second as an order
            for process in alive:
                process.send_signal(signal.SIGTERM)
        if time.monotonic() > end:
            for process in alive:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        time.sleep(0.1)


def reap(children: Sequence[Child]) -> None:
    """Take note of the end of processes that came to us when their parent died."""
    ours = {child.process.pid for child in children if child.process is not None}
    for process in psutil.Process().children():
        try:
            if process.pid not in ours and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)
        except (psutil.Error, ChildProcessError):
            continue


def end_stragglers(grace: float = 10.0) -> None:
    """End every process below this one that is still there: runs whose worker is gone."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        try:
            process.terminate()
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(left, timeout=grace)
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(alive, timeout=5.0)


def adopt_orphans() -> None:
    """Become the parent of whatever a child of ours leaves behind, so that it can be found and ended."""
    _LIBC.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def _end_with_parent() -> None:
    """In the child: be ended when the parent is, even by `kill -9`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
