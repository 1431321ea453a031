"""What a training writes down after every step: what it computed, and apart from that what the clock says.

metrics.jsonl    one object a step under TRL's names; the same bytes on the same ranks and threads
perf.log         one object a step: seconds, tokens a second, memory, padding, balance, utilisation
tensorboard/     both once more, where `train.tensorboard` asks for it
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

import torch


class Board(Protocol):
    """Where numbers go to be looked at: a monitor of DeepSpeed's."""

    def write_events(self, events: list[tuple[str, float, int]]) -> None:
        """Take (name, value, step) of each number."""


class Records:
    """The two files of a training, open for appending."""

    def __init__(self, metrics: TextIO, perf: TextIO, peak: float | None, board: Board | None):
        self._files = (metrics, perf)
        self._peak, self._board = peak, board
        self._last, self._last_cpu = time.perf_counter(), time.process_time()

    @classmethod
    @contextmanager
    def opened(
        cls, metrics: Path, perf: Path, *, peak: float | None = None, board: Board | None = None
    ) -> Iterator[Self]:
        """Both files, closed at the end. `peak` is what all ranks' devices can do, in operations a second."""
        with open(metrics, "a", encoding="utf-8") as first, open(perf, "a", encoding="utf-8") as second:
            yield cls(first, second, peak, board)

    def leave_out(self) -> None:
        """A step without a line is over: its time is not the next one's."""
        self._last, self._last_cpu = time.perf_counter(), time.process_time()

    def write(self, computed: dict[str, float], packing: dict[str, float], pairs: int) -> None:
        """Append a step. `computed` goes to metrics.jsonl as it is and must not depend on the clock.

        Of `packing` the operations are written as shares of what the devices could have done in the time.
        """
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        used = time.process_time()
        cpu, self._last_cpu = used - self._last_cpu, used
        speed = {
            "step": computed["step"],
            "seconds": seconds,
            "cpu_seconds": cpu,
            "pairs_per_second": pairs / seconds,
            "tokens_per_second": computed["tokens"] / seconds,
            **utilisation(packing, seconds, self._peak),
            **memory(),
        }
        for file, line in zip(self._files, (computed, speed), strict=True):
            file.write(json.dumps(line) + "\n")
            file.flush()
        if self._board is not None:
            shown = {name: value for name, value in {**computed, **speed}.items() if value is not None}
            self._board.write_events([(name, value, int(computed["step"])) for name, value in shown.items()])


def utilisation(packing: dict[str, float], seconds: float, peak: float | None) -> dict[str, float | None]:
    """`packing` with operations (training/work.py) as shares of `peak`; None where the peak is not known."""
    shares: dict[str, float | None] = {}
    for name, value in packing.items():
        if not name.endswith("_flops"):
            shares[name] = value
        else:
            shares[name.removesuffix("_flops") + "_mfu"] = None if peak is None else value / (seconds * peak)
    return shares


def memory() -> dict[str, float]:
    """Peak memory of this process so far, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    peak: dict[str, float] = {"peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale}
    if torch.cuda.is_available():
        peak["peak_device"] = torch.cuda.max_memory_allocated()
    return peak


def total_of(metrics: Path, key: str) -> int:
    """The sum of one count over the steps in a metrics file."""
    lines = metrics.read_text(encoding="utf-8").splitlines()
    values: list[Any] = [json.loads(line)[key] for line in lines]
    return sum(values)
