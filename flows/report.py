"""Where the run says what it is doing: the terminal, the log, Prefect.

On a terminal each running stage has a bar; elsewhere there are log lines, a few a minute. In Prefect each task has its
log, and a progress artifact when it takes longer than a moment.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import Any, Final
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tasks.store import Report

logger = logging.getLogger("prefstack")

LINE_EVERY: Final = 15.0  # seconds between two log lines of one stage
ARTIFACT_AFTER: Final = 3.0  # seconds before a progress artifact is worth its 30 ms
ARTIFACT_EVERY: Final = 3.0


class LogReport:
    """Messages as log lines; progress as a line now and then."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def message(self, stage: str, text: str) -> None:
        logger.info("%-9s %s", stage, text)

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._said.setdefault(stage, now) < LINE_EVERY:
                return
            self._said[stage] = now
        logger.info("%-9s %s", stage, amount(done, total, unit))


class TerminalReport:
    """A bar for each stage at work, messages above them."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<9}"), BarColumn(32), TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "TerminalReport":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def message(self, stage: str, text: str) -> None:
        with self._lock:
            bar = self._tasks.pop(stage, None)
            if bar is not None:
                self._bars.remove_task(bar)
        logger.info("%-9s %s", stage, text)

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
        with self._lock:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total, amount="")
            bar = self._tasks[stage]
            self._bars.update(bar, completed=done, total=total, amount=amount(done, total, unit))


def amount(done: float, total: float | None, unit: str) -> str:
    """`12 of 36 steps`, `1,029 rows`."""
    if total is None:
        return f"{done:,.0f} {unit}"
    return f"{done:,.0f} of {total:,.0f} {unit}"


_REPORT: ContextVar[Report | None] = ContextVar("report", default=None)


def use_report(report: Report) -> None:
    """Let flows in this process report to `report`; the default is the log."""
    _REPORT.set(report)


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Let what runs inside report to `report`."""
    token = _REPORT.set(report)
    try:
        yield
    finally:
        _REPORT.reset(token)


def current_report() -> Report:
    return _REPORT.get() or LogReport()


class FlowReport:
    """What a run reports between its tasks: to `inner`, and to the flow run's log in Prefect."""

    def __init__(self, inner: Report) -> None:
        self._inner = inner
        self._log = _run_logger()

    def message(self, stage: str, text: str) -> None:
        self._inner.message(stage, text)
        self._log(f"{stage}: {text}")

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
        self._inner.progress(stage, done, total, unit)


class TaskReport:
    """What a stage reports while it runs as a Prefect task: to `inner`, the task's log and a progress artifact."""

    def __init__(self, inner: Report, stage: str) -> None:
        self._inner = inner
        self._stage = stage
        self._artifact: UUID | None = None
        self._unanswered = 0  # in a row
        self._start = self._sent = time.monotonic()
        self._log = _run_logger()

    def __enter__(self) -> "TaskReport":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._artifact is not None and kind is None:
            self._send(100.0, last=True)

    def message(self, stage: str, text: str) -> None:
        self._inner.message(stage, text)
        self._log(text)

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
        self._inner.progress(stage, done, total, unit)
        now = time.monotonic()
        if total is None or total <= 0 or now - self._start < ARTIFACT_AFTER or now - self._sent < ARTIFACT_EVERY:
            return
        self._sent = now
        self._send(min(100.0, 100.0 * done / total))

    def _send(self, percent: float, *, last: bool = False) -> None:
        """Show `percent`. A server that does not answer must not stop ten hours of training, nor hold a stage up.

        The next `percent` comes in seconds, so that each is sent once; only the last is worth asking again, of a server
        that has answered the one before.
        """
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        from flows.prefect_api import asking

        try:
            with nullcontext() if last and not self._unanswered else asking(1):
                if self._artifact is None:
                    key = f"{self._stage.replace('_', '-')}-progress"
                    made: Any = create_progress_artifact(percent, key=key, description=self._stage)
                    self._artifact = made
                else:
                    update_progress_artifact(self._artifact, percent)
            self._unanswered = 0
        except Exception as error:
            self._unanswered += 1
            if self._unanswered == 2:  # one alone is a server that was busy
                said = " ".join(str(error).split())[:200]
                self._inner.message(self._stage, f"goes on, and Prefect cannot show how far it is: {said}")


def run_log_line() -> Callable[[int, str], None]:
    """The log of the task or flow run at work, in Prefect: `say(level, text)`; nothing outside a run."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        log = get_run_logger()
    except MissingContextError:
        return lambda level, text: None
    return lambda level, text: log.log(level, "%s", text)


def _run_logger() -> Callable[[str], None]:
    return partial(run_log_line(), logging.INFO)
