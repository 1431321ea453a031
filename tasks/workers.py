"""Worker processes for the heavy parts of the data stages.

Each worker is `python -P -m tasks.workers`: a request a line on its standard input, an answer a line on its standard
output. (-P: a folder `tasks` where the user stands is not this one.) A worker leaves when its input ends, so none
outlives the process that started it, however that ends. (The standard library's pool keeps its workers waiting for ever
when their parent is killed, and its start method imports the parent's main module again, which under Prefect takes
seconds.)
"""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, cast

from tasks.errors import InputError, Transient

MAX_WORKERS: Final = 4  # each may take 300 MB: all of them together must stay under 1.5 GB
WORTH_WORKERS: Final = 5  # parts of 32 MiB: each takes about as long as a worker takes to start
# One range after another needs the same memory: what the allocators give back too soon (polars' own, and the C
# library's for numpy) costs a fifth of the time. And OpenBLAS needs no threads (tasks/single_threaded_blas.py).
_ENVIRONMENT: Final = {
    "POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:10000",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}  # fmt: skip
_OWN_SIGNALS: Final = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


class WorkerDied(Transient):
    """A worker ended before it had answered."""

    def __init__(self, message: str, status: int, request: Mapping[str, Any] | None = None, how: str = "") -> None:
        """`status` as of a child: below zero the signal that ended it; `request` is what it was at, `how` in words."""
        super().__init__(message)
        self.request = request or {}
        self.how = how
        self.by_itself = -status in _OWN_SIGNALS
        """Whether the work did it and nobody from outside: it would end so again."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def perform(kind: str, request: Mapping[str, Any]) -> Any:
    """Do one request here and now."""
    match kind:
        case "range":
            from tasks.sources.ranges import RangeJob, read_range

            return read_range(cast(RangeJob, request))
        case "unpack":
            from tasks.sources.archive import UnpackJob, unpack

            return unpack(cast(UnpackJob, request))
        case "texts":
            from tasks.pairing.texts import TextJob, convert_texts

            return convert_texts(cast(TextJob, request))
        case _:
            raise ValueError(f"no such work: {kind}")


def perform_all(
    kind: str, requests: Sequence[Mapping[str, Any]], workers: int, before: Callable[[int], None] | None = None
) -> Iterator[Any]:
    """The answers to `requests`, in their order, by so many processes; by this one when `workers` is 0.

    `before` is called with the number of each request before a worker is asked, in a thread of its own, so that what
    it makes is made beside the work and not ahead of all of it.

    Raises InputError and OSError as the work and `before` do, and Transient when a worker dies.
    """
    if not requests:
        return
    if not workers:
        for number, request in enumerate(requests):
            if before is not None:
                before(number)
            yield perform(kind, request)
        return
    crew = [_Worker() for _ in range(min(workers, len(requests)))]
    free: SimpleQueue[_Worker] = SimpleQueue()
    for worker in crew:
        free.put(worker)

    def ask(number: int, request: Mapping[str, Any]) -> Any:
        if before is not None:
            before(number)
        worker = free.get()
        try:
            return worker.ask(kind, request)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(len(crew), thread_name_prefix="worker")
    try:
        answers: list[Future[Any]] = [threads.submit(ask, *each) for each in enumerate(requests)]
        for answer in answers:
            yield answer.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in crew:
            worker.stop()
        threads.shutdown(wait=True)


class _Worker:
    """One child process, asked one thing at a time."""

    def __init__(self) -> None:
        root = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # A library written in Rust announces on standard error what it then raises: that is for us, not for the user.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.workers"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, encoding="utf-8",
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
        )  # fmt: skip

    def ask(self, kind: str, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps([kind, request]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            line = ""
        if not line:
            said = self._last_words()
            told = f"a worker ({kind}) died: {said}; run again to go on from there"
            raise WorkerDied(told, self._process.wait(), request, said)
        answer = json.loads(line)
        if "input_error" in answer:
            raise InputError(answer["input_error"])
        if "os_error" in answer:
            raise OSError(*answer["os_error"])
        if "failure" in answer:
            raise RuntimeError(f"in a worker:\n{answer['failure']}")
        return answer["result"]

    def _last_words(self) -> str:
        status = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        how = f"exit status {status}" if status >= 0 else f"signal {-status}"
        return f"{how} ({said.splitlines()[-1]})" if said else how

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._said.close()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with contextlib.suppress(OSError):  # what was not yet written to a worker that is gone
                pipe.close()


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    gc.set_threshold(100_000)  # to look for garbage in modules, which hold none, takes time at each start
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not pass for an answer
    for line in sys.stdin:
        kind, request = json.loads(line)
        try:
            answer = {"result": perform(kind, request)}
        except InputError as error:
            answer = {"input_error": str(error)}
        except OSError as error:
            answer = {"os_error": [error.errno, error.strerror or str(error), error.filename]}
        except Exception:
            answer = {"failure": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
