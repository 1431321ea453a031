"""Ranks as a stage sees them: started, watched, ended, and their failures in the words of tasks/errors.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tasks.errors import InputError, PrefstackError, RecipeError, StageFailed, Surroundings, TransientStageFailure
from tasks.store import Workspace
from training.failures import RanksFailed
from training.launch import STALL_SECONDS, launch
from training.status import Outcome

Program = Literal["training.run", "training.score", "training.generate", "training.benchmark"]


def run_ranks(
    work: Workspace, module: Program, job: Path, folder: Path, *, ranks: int, log_file: Path,
    stall_seconds: float = STALL_SECONDS, environment: Mapping[str, str] | None = None,
) -> Outcome:  # fmt: skip
    """Run the job on `ranks` processes, show how far they are, and return what rank 0 says at the end.

    The ranks see `environment`, or ours without credentials.

    Raises StageFailed for what would happen again, TransientStageFailure for what may not, RecipeError where the
    recipe asks for what this host does not have, InputError where the model is not whole, Surroundings where the disk
    is full.
    """
    try:
        return launch(
            module, job, folder, ranks=ranks, log_file=log_file, stall_seconds=stall_seconds, environment=environment,
            on_progress=lambda progress: work.progress(progress.done, progress.total, progress.unit),
        )  # fmt: skip
    except RanksFailed as failed:
        raise _typed(work.stage, failed) from failed


def _typed(stage: str, failed: RanksFailed) -> PrefstackError:
    text = f"{stage}: {failed}"
    if failed.transient:
        return TransientStageFailure(text)
    match failed.kind:
        case "recipe":
            return RecipeError(text)
        case "model":
            return InputError(text)
        case "disk":
            return Surroundings(text)
        case _:
            return StageFailed(text)
