"""Workers of `prefstack up` that are there and do nothing: the server has not heard of them for too long.

Silence is counted here, on this host's monotonic clock and only while the server answers: neither a server that was
away, nor a host that slept, nor a clock that is wrong makes a worker silent. A silent one is ended; that it has ended,
`flows/up.py` sees by itself and starts it again. (Not here: the kernel would take the end of this thread for that of
the worker's parent.)
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final

from flows.children import Child, stop
from flows.prefect_api import api

ASK_EVERY: Final = 15.0  # seconds
SILENT: Final = 120.0  # seconds; a worker sends every 30 s, give or take nine, and two in a row may be lost
AFTER_OUTAGE: Final = 330.0  # seconds; one that could not reach the server tries again every 240 s, give or take 72
STARTING: Final = 60.0  # seconds after its start that count for nothing: Prefect is imported, the pool is read
STOP_WITHIN: Final = 40.0  # seconds; one that only lost its way may give its run 30 s to end


@dataclass(frozen=True)
class Heartbeat:
    """The last that the server has heard of a worker."""

    at: str
    every: float
    """Seconds between two of them, as the worker was told."""


Ask = Callable[[str], Heartbeat | None]
"""From a pool to the last heartbeat of this host's worker; None for a worker that the server does not know."""


@dataclass
class Silence:
    """How long one worker has been silent, by what was seen at each asking; times are of the monotonic clock."""

    last: Heartbeat | None = None
    since: float = 0.0
    asked: float | None = None
    outage: bool = False
    """Whether the server, or we, were away since the last heartbeat: the worker may have slowed down its sending."""

    def unanswered(self) -> None:
        """The server did not answer: nothing is known of the worker."""
        self.outage = True

    def seconds(self, found: Heartbeat | None, started: float, now: float, gap: float) -> float:
        """Seconds of silence at `now`, of a worker that was `started` then; none where the server does not know it.

        A pause of more than `gap` seconds since the last answer counts for nothing.
        """
        paused = self.asked is not None and now - self.asked > gap
        if found is None or found != self.last:
            self.since, self.outage = now, False
        if paused:
            self.since, self.outage = now, True
        self.last, self.asked = found, now
        return now - max(self.since, started + STARTING)

    def limit(self, silent: float) -> float:
        """Seconds that are borne."""
        told = 4 * self.last.every if self.last is not None else 0.0
        return max(silent, told, AFTER_OUTAGE if self.outage else 0.0)


@contextmanager
def replacing_silent(
    workers: Mapping[str, Child], say: Callable[[str], None], *, ask: Ask | None = None, every: float = ASK_EVERY,
    silent: float = SILENT, stop_within: float = STOP_WITHIN,
) -> Iterator[None]:  # fmt: skip
    """Meanwhile, end each worker (by its pool) that is silent for `silent` seconds, or for four of its heartbeats."""
    done = threading.Event()
    silences = {pool: Silence() for pool in workers}

    def look() -> None:
        while not done.wait(every):
            for pool, worker in workers.items():
                try:
                    found = (ask or last_heartbeat)(pool)
                except Exception:  # the server is away, and may say so in many ways: that is not the worker's silence
                    silences[pool].unanswered()
                    continue
                seconds = silences[pool].seconds(found, worker.started, time.monotonic(), 4 * every)
                running = worker.process is not None and worker.process.poll() is None
                if running and seconds > silences[pool].limit(silent):
                    say(f"{worker.name} runs, and the server has not heard of it for {seconds:.0f} s: it is replaced")
                    stop([worker], stop_within)

    # Prefect's settings, and with them the server, are those of a context: a bare thread would have none.
    thread = threading.Thread(target=copy_context().run, args=(look,), daemon=True, name="heartbeats")
    thread.start()
    try:
        yield
    finally:
        done.set()


def worker_name(pool: str) -> str:
    """What this host's worker of a pool is called."""
    return f"{pool}-{socket.gethostname()}"


def last_heartbeat(pool: str) -> Heartbeat | None:
    """What the server last heard of this host's worker of `pool`. Raises Surroundings where it does not answer."""
    with api() as client:
        for worker in client.read_workers_for_work_pool(pool):
            if worker.name == worker_name(pool) and worker.last_heartbeat_time is not None:
                return Heartbeat(worker.last_heartbeat_time.isoformat(), worker.heartbeat_interval_seconds or 30.0)
    return None
