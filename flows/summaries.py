"""The summary of a run: what `prefstack run --json` prints, after failures too."""

from typing import Any, Final

from tasks.errors import PrefstackError, Surroundings

Summary = dict[str, Any]

SUMMARIES: Final[list[Summary]] = []
"""What the run that failed in this process had done so far, for --json."""


def empty_summary(name: str | None = None) -> Summary:
    """The summary of a run in which nothing has happened yet."""
    return {"run": name, "stages": {}, "metrics": None, "model": None, "error": None}


def failure(error: PrefstackError, stage: str | None) -> dict[str, Any]:
    """The `error` of a summary."""
    return {"status": error.status, "stage": stage, "kind": error.kind, "message": str(error)}


def stopped(summary: Summary) -> str:
    """Where the run of a summary stopped, and why; only an error that the run wrote down itself names its stage."""
    error, done = summary["error"], list(summary["stages"])
    where = f" at {error['stage']}" if error["stage"] else f" after {done[-1]}" if done else ""
    return f"stopped{where}: {error['message']}"


def typed(error: Exception) -> PrefstackError:
    """An error that nobody foresaw, as one that can be read."""
    if isinstance(error, OSError):
        return Surroundings(f"{error.filename or 'the system'}: {error.strerror or error}")
    said = one_line(error)
    if type(error).__module__.partition(".")[0] in ("httpx", "httpcore"):
        return Surroundings(f"the Prefect server or another host cannot be reached: {said}")
    return Surroundings(f"unforeseen {type(error).__name__}: {said}; --debug shows where")


def one_line(error: Exception) -> str:
    """What an error says, in one line that is not too long to be read; its type where it says nothing."""
    return " ".join(str(error).split())[:500] or type(error).__name__
