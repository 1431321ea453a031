"""What the ranks tell whoever started them, in small files: an exit code cannot say it.

    progress-R.json   rank R, as it goes: how much it has done. The age of the newest is the heartbeat.
    outcome.json      rank 0, at the end: finished, or stopped on request, and at which step
    failed-R.json     rank R, before it ends with exit code 1: what went wrong, and whose move is next

Each is written beside its place and renamed, so that a reader sees a whole file or none. No torch here.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

# recipe, model, data, reference, nonfinite, memory, checkpoint, disk, export, bug: the same again next time.
# device, rendezvous, peer: may be gone next time.
FailureKind = Literal[
    "recipe", "model", "data", "reference", "nonfinite", "memory", "checkpoint", "disk", "export", "bug", "device",
    "rendezvous", "peer",
]  # fmt: skip
TRANSIENT: Final[frozenset[str]] = frozenset({"device", "rendezvous", "peer"})

EXIT_FAILED: Final = 1
EXIT_NO_SPACE: Final = 74  # EX_IOERR: failed, and the disk is too full to say so
EXIT_STOPPED: Final = 75  # EX_TEMPFAIL: stopped on request, with a checkpoint; start again to go on


class TrainerError(Exception):
    """A failure of training or scoring that its reader can act on: one sentence naming the step, pair or file."""

    def __init__(self, kind: FailureKind, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
        self.step = step


@dataclass(frozen=True)
class Failure:
    """Why one rank ended."""

    kind: FailureKind
    message: str
    rank: int
    step: int | None = None


@dataclass(frozen=True)
class Progress:
    """How much of the common `total` one rank has done; steps of training are counted by rank 0 for all."""

    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Outcome:
    """How the ranks ended when nothing failed; `facts` are numbers and strings for counts and provenance."""

    state: Literal["finished", "stopped"]
    step: int
    facts: dict[str, Any] = field(default_factory=dict)


def clear(folder: Path) -> None:
    """Forget what earlier ranks said."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [folder / "outcome.json", *folder.glob("progress-*.json"), *folder.glob("failed-*.json")]:
        path.unlink(missing_ok=True)


def write_progress(folder: Path, rank: int, progress: Progress) -> None:
    """Say how much this rank has done."""
    _write(folder / f"progress-{rank}.json", asdict(progress))


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Say how it ended."""
    _write(folder / "outcome.json", asdict(outcome))


def write_failure(folder: Path, failure: Failure) -> None:
    """Say why this rank ends."""
    _write(folder / f"failed-{failure.rank}.json", asdict(failure))


def read_progress(folder: Path) -> Progress | None:
    """What all ranks have done together, or None before the first has said anything."""
    said = [Progress(**raw) for path in folder.glob("progress-*.json") if (raw := _read(path)) is not None]
    if not said:
        return None
    return Progress(sum(one.done for one in said), said[0].total, said[0].unit)


def read_outcome(folder: Path) -> Outcome | None:
    """How it ended, or None where it has not, or not well."""
    raw = _read(folder / "outcome.json")
    return None if raw is None else Outcome(**raw)


def read_failures(folder: Path) -> list[Failure]:
    """What the failed ranks said, the likeliest cause first: a lost peer is what the others of a dead rank report."""
    found = [Failure(**raw) for path in sorted(folder.glob("failed-*.json")) if (raw := _read(path)) is not None]
    return sorted(found, key=lambda failure: (failure.kind == "peer", failure.kind in TRANSIENT, failure.rank))


def _write(path: Path, value: dict[str, Any]) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(value), encoding="utf-8")
    scratch.rename(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return raw
