"""Ranks that outlived their launcher: none should, and whoever cleans up after a dead run makes sure."""

import os
from typing import Final, get_args

import psutil

from tasks.scores.ranks import Program
from training.rank import LAUNCHER_PID

_RANKS: Final = get_args(Program)


def end_orphans(variable: str, value: str) -> list[int]:
    """Kill the ranks that have `variable=value` in their environment and no launcher; give their process ids.

    The kernel does so itself when a launcher dies; this is for the rank that asked it too late. A rank whose launcher
    lives may belong to the next attempt of the same run.
    """
    ended = []
    for process in psutil.process_iter():
        try:
            if not any(module in process.cmdline() for module in _RANKS):
                continue
            environment = process.environ()
            launcher = int(environment.get(LAUNCHER_PID, "0"))
            if environment.get(variable) != value or _alive(launcher):
                continue
            process.kill()
            ended.append(process.pid)
        except (psutil.Error, ValueError):
            continue  # it ended by itself, or is somebody else's
    return ended


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return pid > 0
