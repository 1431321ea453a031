"""The life of one rank: it dies with its parent, stops when asked, and says why it failed.

`run_rank` is what `training/run.py` and `training/score.py` call; torch is imported only inside their work, after the
death signal is set.
"""

import ctypes
import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from training.status import (
    EXIT_FAILED,
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    Failure,
    FailureKind,
    Outcome,
    TrainerError,
    write_failure,
)
from training.status import write_outcome as _write_outcome

LAUNCHER_PID: Final = "PREFSTACK_LAUNCHER_PID"
_PR_SET_PDEATHSIG: Final = 1
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Stop:
    """Whether this rank should stop; the ranks agree on it at the end of a step."""

    def __init__(self) -> None:
        self._signalled = False

    @property
    def asked(self) -> bool:
        """Somebody has asked for it, or the launcher is gone (where the kernel does not kill its ranks for that)."""
        return self._signalled or _orphaned()

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as a request to stop (a terminal sends SIGINT to the whole process group)."""
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True


def this_rank() -> int:
    """The number of this rank; 0 when nobody launched it."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many ranks there are; 1 when nobody launched this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def die_with_parent() -> None:
    """Have the kernel kill this process when its launcher dies, however it dies."""
    if LAUNCHER_PID not in os.environ:  # started by hand
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if _orphaned():  # it died before the signal was set
        os._exit(EXIT_FAILED)


def _orphaned() -> bool:
    launcher = os.environ.get(LAUNCHER_PID)
    return launcher is not None and os.getppid() != int(launcher)


def job_path() -> Path:
    """The one argument of the command line."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m training.{Path(sys.argv[0]).stem} JOB.json")
    return Path(sys.argv[1])


def run_rank(folder: Path, work: Callable[[Stop], Outcome]) -> int:
    """Do `work` and return the exit code: 0 finished, 75 stopped on request, 1 failed (said in `folder`, or 74
    where that is full)."""
    stop = Stop()
    stop.listen()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s rank {this_rank()} %(message)s", stream=sys.stderr)
    try:
        outcome = work(stop)
    except TrainerError as error:
        return _failed(folder, error.kind, str(error), error.step)
    except Exception as error:  # whatever it is, it must be named before the process ends
        traceback.print_exc()
        return _failed(folder, kind_of(error), f"{type(error).__name__}: {_first_line(error)}", None)
    if this_rank() == 0:
        _write_outcome(folder, outcome)
    return 0 if outcome.state == "finished" else EXIT_STOPPED


def kind_of(error: Exception) -> FailureKind:
    """Whose move is next after an error that nobody foresaw."""
    import torch

    if isinstance(error, OSError) and error.errno in _FULL:
        return "disk"
    text = str(error).lower()
    if "no space left on device" in text:  # safetensors' own error
        return "disk"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return "memory"
    if "address already in use" in text or "eaddrinuse" in text:
        return "rendezvous"
    if isinstance(error, torch.distributed.DistStoreError):
        return "rendezvous"
    if isinstance(error, (torch.distributed.DistError, ConnectionError)):
        return "peer"
    # gloo reports a dead peer as a plain RuntimeError
    if any(sign in text for sign in ("connection closed by peer", "connection reset", "gloo", "timed out waiting")):
        return "peer"
    if isinstance(error, torch.AcceleratorError) or "cuda error" in text:
        return "device"
    return "bug"


def _failed(folder: Path, kind: FailureKind, message: str, step: int | None) -> int:
    if kind == "memory":
        message += "; lower train.tokens_per_pack, or share out more by train.zero_stage and train.ranks"
    logging.getLogger(__name__).error("%s", message)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_failure(folder, Failure(kind, message, this_rank(), step))
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return EXIT_NO_SPACE
    return EXIT_FAILED


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")
