"""Why ranks did not finish, in a sentence: from their exit codes, what they reported, and what the kernel says."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from training.status import EXIT_NO_SPACE, TRANSIENT, Failure, FailureKind, Outcome, read_failures, read_progress

TAIL_LINES: Final = 200


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


def diagnose(
    codes: dict[int, int], first: list[int], outcome: Outcome | None, folder: Path, log_file: Path, *,
    memory_killed: bool,
) -> RanksFailed:  # fmt: skip
    """What to tell of ranks that ended with `codes`, of which `first` failed first: the likeliest cause they know."""
    tail = tail_of(log_file)
    failures = read_failures(folder)
    progress = read_progress(folder)
    where = "" if progress is None else f" after {progress.done} of {progress.total} {progress.unit}"
    if failures and failures[0].kind != "peer":  # of a lost peer, the peer knows more
        return RanksFailed(failures[0].kind, _at(failures[0]), log_file, tail)
    for rank, code in codes.items():
        if code == EXIT_NO_SPACE:
            message = f"rank {rank} found no space left on the disk of {folder}{where}"
            return RanksFailed("disk", message, log_file, tail)
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


def tail_of(path: Path) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as lines:
        return lines.read().splitlines()[-TAIL_LINES:]


def memory_kills() -> int:
    """How many processes of our control group the kernel has killed for want of memory; 0 where it does not say."""
    try:
        events = Path("/sys/fs/cgroup/memory.events").read_text(encoding="ascii")
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))
