"""What a training writes down after every step: what it computed, and apart from that what the clock says.

metrics.jsonl    one object a step under TRL's names; the same bytes on the same ranks and threads
perf.log         one object a step: seconds, tokens a second, memory, padding, balance
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TextIO

import torch


class Records:
    """The two files of a training, open for appending."""

    def __init__(self, metrics: TextIO, perf: TextIO):
        self._files = (metrics, perf)
        self._last, self._last_cpu = time.perf_counter(), time.process_time()

    @classmethod
    @contextmanager
    def opened(cls, metrics: Path, perf: Path) -> Iterator[Self]:
        """Both files, closed at the end."""
        with open(metrics, "a", encoding="utf-8") as first, open(perf, "a", encoding="utf-8") as second:
            yield cls(first, second)

    def write(self, computed: dict[str, float], packing: dict[str, float], pairs: int) -> None:
        """Append a step. `computed` goes to metrics.jsonl as it is and must not depend on the clock."""
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
            **packing,
            **memory(),
        }
        for file, line in zip(self._files, (computed, speed), strict=True):
            file.write(json.dumps(line) + "\n")
            file.flush()


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
