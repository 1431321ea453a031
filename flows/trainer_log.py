"""What the ranks print, as far as a reader of the flow run wants it: now and then a line on the newest step and the
curves so far, what they say beside it, and the end of it when they fail. The whole is kept in the run's folder.
"""

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, Final

from flows.live_curves import LiveCurves
from tasks.errors import StageFailed

LOOK_EVERY: Final = 5.0  # seconds
STEP_EVERY: Final = 30.0  # seconds between two lines on steps
LINES_AT_ONCE: Final = 20  # of what the ranks print, each time that is looked at
TAIL: Final = 200
_LOGS: Final = {
    "train": ("train.log",),
    "reference": ("scoring/score.log",),
    "evaluate": ("scoring/score.log",),
    "generate": ("generation/generate.log",),
    "benchmark": ("benchmark/benchmark.log",),
    "outputs": ("generation/generate.log",),
}


@contextmanager
def trainer_log(
    stage: str, folder_name: str, work_dir: Path, run_folder: Path, say: Callable[[int, str], None], name: str = ""
) -> Iterator[None]:
    """Follow the log of the ranks of `stage` while it is built, by `say(level, text)`.

    `folder_name` is the name of the stage's folder in the store and in partial. What is raised goes on, with the last
    TAIL lines of the log said before it; a copy of the log stays as `run_folder`/NAME.log, with the
    stage for a name where none is given.
    """
    partial = work_dir / "partial" / folder_name
    follower = _Follower(partial, [partial / name for name in _LOGS[stage]], say)
    stop = threading.Event()
    thread = threading.Thread(target=copy_context().run, args=(follower.follow, stop), daemon=True, name=f"{stage} log")
    thread.start()
    try:
        yield
    except StageFailed:
        end = follower.tail()
        if end:
            say(logging.ERROR, f"the last {len(end)} lines of the log:\n" + "\n".join(end))
        raise
    finally:
        stop.set()
        thread.join(timeout=10)
        _keep(stage, partial, work_dir / "store" / folder_name, run_folder / f"{name or stage}.log")


class _Follower:
    """Where in the logs we are, and what has been said."""

    def __init__(self, partial: Path, logs: list[Path], say: Callable[[int, str], None]) -> None:
        self._metrics = partial / "training" / "metrics.jsonl"
        self._logs = logs
        self._say = say
        # What an earlier attempt has printed was said by it.
        self._read = {path: path.stat().st_size for path in logs if path.exists()}
        self._step = 0
        self._since = STEP_EVERY
        self._curves = LiveCurves()

    def follow(self, stop: threading.Event) -> None:
        while not stop.wait(LOOK_EVERY):
            with suppress(OSError, ValueError):  # a line that is being written; a folder that has been published
                self._look()
        with suppress(OSError, ValueError):
            self._lines()

    def _look(self) -> None:
        self._lines()
        self._since += LOOK_EVERY
        if self._since < STEP_EVERY or not self._metrics.exists():
            return
        newest = _last_line(self._metrics)
        step = json.loads(newest) if newest else None
        if step and step["step"] != self._step:
            self._step, self._since = step["step"], 0.0
            self._say(logging.INFO, step_line(step))
            self._curves.show(self._metrics)

    def _lines(self) -> None:
        for path in self._logs:
            if not path.exists():
                continue
            with open(path, encoding="utf-8", errors="replace") as log:
                log.seek(self._read.get(path, 0))
                lines = [line for line in log.read().splitlines() if line.strip()]
                self._read[path] = log.tell()
            for line in lines[:LINES_AT_ONCE]:
                self._say(logging.INFO, line[:500])
            if len(lines) > LINES_AT_ONCE:
                self._say(logging.INFO, f"... and {len(lines) - LINES_AT_ONCE:,} more lines, in {path.name} of the run")

    def tail(self) -> list[str]:
        lines: list[str] = []
        for path in self._logs:
            if path.exists():
                lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-TAIL:]


def step_line(step: dict[str, Any]) -> str:
    """`step 120: loss 0.6121, accuracy 0.69, margin 0.182, learning rate 4.1e-07`."""
    return (
        f"step {step['step']}: loss {step['loss']:.4f}, accuracy {step['rewards/accuracies']:.2f}, "
        f"margin {step['rewards/margins']:.3f}, learning rate {step['learning_rate']:.1e}"
    )


def _last_line(path: Path) -> str:
    """The last whole line of a file that may be long."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 8192))
        whole = file.read().rpartition(b"\n")[0]
    return whole.rpartition(b"\n")[2].decode()


def _keep(stage: str, partial: Path, stored: Path, kept: Path) -> None:
    for name in _LOGS[stage]:
        for place in (stored / Path(name).name, partial / name):
            if place.exists() and kept.parent.is_dir():
                with suppress(OSError):
                    shutil.copyfile(place, kept)
                break
