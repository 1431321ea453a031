"""Where a training starts, by `train.resume`."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from training.config import TrainConfig
from training.jobs import TrainJob
from training.resume import _choose
from training.status import TrainerError

IDENTITY = {"seed": 7}


def write_checkpoint(folder: Path, step: int, identity: dict[str, int] = IDENTITY) -> Path:
    """A checkpoint without parameters: what is chosen is told by the record alone."""
    place = folder / f"step-{step:08d}"
    place.mkdir(parents=True)
    record = {"format": 1, "step": step, "identity": identity, "files": {}, "shards": {}}
    (place / "checkpoint.json").write_text(json.dumps(record), encoding="utf-8")
    return place


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    return TrainJob(
        tmp_path / "model", tmp_path / "rows", tmp_path / "reference", tmp_path / "export", tmp_path / "job", 7,
        TrainConfig(), "first run",
    )  # fmt: skip


def resumed(job: TrainJob, resume: str) -> TrainJob:
    return dataclasses.replace(job, config=job.config.model_copy(update={"resume": resume}))


def test_nothing_is_found_where_nothing_was_saved(job):
    assert _choose(job, IDENTITY) == (None, [])


def test_auto_takes_the_newest(job):
    write_checkpoint(job.checkpoints, 90)
    newest = write_checkpoint(job.checkpoints, 100)
    found, refused = _choose(job, IDENTITY)
    assert found is not None and (found.folder, found.step, refused) == (newest, 100, [])


def test_auto_leaves_a_checkpoint_of_other_inputs_and_says_so(job):
    write_checkpoint(job.checkpoints, 100, {"seed": 8})
    found, refused = _choose(job, IDENTITY)
    assert found is None
    assert "step-00000100" in refused[0] and "other seed" in refused[0]


def test_fresh_forgets_once_a_run(job):
    write_checkpoint(job.checkpoints, 100)
    fresh = resumed(job, "fresh")
    assert _choose(fresh, IDENTITY)[0] is None
    own = write_checkpoint(job.checkpoints, 10)
    found, _ = _choose(fresh, IDENTITY)  # the retry of the same run
    assert found is not None and found.folder == own
    assert _choose(dataclasses.replace(fresh, run="second run"), IDENTITY)[0] is None


@pytest.mark.parametrize("whole_folder", [True, False])
def test_from_a_path_starts_there_and_goes_on_from_its_own(job, tmp_path, whole_folder):
    given = write_checkpoint(tmp_path / "other", 40)
    chosen = resumed(job, f"from:{given.parent if whole_folder else given}")
    found, _ = _choose(chosen, IDENTITY)
    assert found is not None and found.folder == given
    own = write_checkpoint(job.checkpoints, 50)
    found, _ = _choose(chosen, IDENTITY)
    assert found is not None and found.folder == own


def test_from_a_path_without_a_checkpoint_of_this_training_is_refused(job, tmp_path):
    with pytest.raises(TrainerError, match="no whole checkpoint in"):
        _choose(resumed(job, f"from:{tmp_path / 'nowhere'}"), IDENTITY)
    given = write_checkpoint(tmp_path / "other", 40, {"seed": 8})
    with pytest.raises(TrainerError, match="other seed"):
        _choose(resumed(job, f"from:{given.parent}"), IDENTITY)
    shutil.rmtree(given)
    with pytest.raises(TrainerError, match="is refused"):
        _choose(resumed(job, f"from:{given}"), IDENTITY)
