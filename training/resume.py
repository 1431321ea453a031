"""Where a training starts: at the beginning, or behind a checkpoint that belongs to this very training."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from training.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from training.jobs import TrainJob
from training.status import TrainerError


def identity_of(job: TrainJob, pair_ids: list[str]) -> dict[str, Any]:
    """What the course of the losses depends on beyond rounding, as it is kept in every checkpoint."""
    return {
        "config": job.config.identity(),
        "seed": job.seed,
        "pairs": len(pair_ids),
        "pair_ids": hashlib.sha256("\n".join(pair_ids).encode()).hexdigest(),
        "reference": hashlib.sha256(job.reference.read_bytes()).hexdigest(),
    }


def choose_checkpoint(job: TrainJob, identity: dict[str, Any]) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, by `train.resume`, and what was wrong with those that were refused.

    All ranks call together; rank 0 reads and verifies for all.

    Raises TrainerError of kind `checkpoint` when `from:PATH` names nothing whole of this training.
    """
    answer: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            answer = [_choose(job, identity)]
        except TrainerError as error:
            answer = [str(error)]
    dist.broadcast_object_list(answer)
    if isinstance(answer[0], str):
        raise TrainerError("checkpoint", answer[0])
    found, refused = answer[0]
    return found, refused


def _choose(job: TrainJob, identity: dict[str, Any]) -> tuple[Checkpoint | None, list[str]]:
    resume = job.config.resume
    if resume == "fresh":
        _forget(job)
    found, refused = find_checkpoint(job.checkpoints, identity)
    if found is None and resume.startswith("from:"):
        found = _from(Path(resume.removeprefix("from:")), identity)
    return found, refused


def _from(path: Path, identity: dict[str, Any]) -> Checkpoint:
    """The checkpoint at `path`, or the newest whole one in it."""
    if path.name.startswith("step-"):
        return read_checkpoint(path, identity)
    found, refused = find_checkpoint(path, identity)
    if found is None:
        raise TrainerError("checkpoint", "; ".join([f"train.resume: no whole checkpoint in {path}", *refused]))
    return found


def _forget(job: TrainJob) -> None:
    """Remove the checkpoints of other runs; a retry of this one goes on from its own."""
    note = job.checkpoints / "fresh"
    if not note.exists() or note.read_text(encoding="utf-8") != job.run:
        shutil.rmtree(job.checkpoints, ignore_errors=True)
        job.checkpoints.mkdir(parents=True)
        note.write_text(job.run, encoding="utf-8")
