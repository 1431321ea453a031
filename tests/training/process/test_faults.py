"""What is done to a training from outside: twenty kills at random moments, and a disk that fills up in a save."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.process.test_run import LONG, digests, identity, ranks_of, run, signal_once
from training.checkpoint import find_checkpoint
from training.failures import RanksFailed
from training.status import Progress, read_failures

pytestmark = pytest.mark.faults

KILLS = 20


@pytest.mark.timeout(3600)  # each try loads torch anew
def test_kills_at_any_moment_change_no_byte(job_maker):
    """A checkpoint after every step, so that most kills fall into a save; both ranks are killed in turn."""
    settings = {**LONG, "epochs": 40, "save_every": 1}  # 200 steps
    calm = job_maker("calm", **settings)
    run(calm)
    job = job_maker("killed", **settings)
    draw = torch.Generator().manual_seed(1)

    def later(hit: Callable[[Progress], None], milliseconds: int) -> Callable[[Progress], None]:
        def on_progress(progress: Progress) -> None:
            time.sleep(milliseconds / 1000)
            hit(progress)

        return on_progress

    reached = 0
    for kill in range(KILLS):
        step, milliseconds = (int(torch.randint(0, high, (), generator=draw)) for high in (4, 60))
        with pytest.raises(RanksFailed) as failed:
            run(job, later(signal_once(job, kill % 2, signal.SIGKILL, at=reached + 1 + step), milliseconds))
        assert failed.value.transient, failed.value
        assert ranks_of(job) == {}
        found, refused = find_checkpoint(job.checkpoints, identity(calm))
        assert not refused  # a kill leaves a whole checkpoint or none by that name
        step = 0 if found is None else found.step
        assert step >= reached
        reached = step
    assert reached >= KILLS
    run(job)
    assert (job.folder / "metrics.jsonl").read_bytes() == (calm.folder / "metrics.jsonl").read_bytes()
    assert digests(job.export) == digests(calm.export)


def small_disk(place: Path, kilobytes: int, command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` where `place` is a disk of its own; skip the test where that takes rights that we lack."""
    mount = f"mount -t tmpfs -o size={kilobytes}k none '{place}'"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False).returncode:
        pytest.skip("no mount namespaces for users here")
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && {command}"], capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(1200)
def test_a_disk_that_fills_up_in_a_save_is_named_and_the_checkpoint_before_goes_on(job_maker, tmp_path):
    settings = {"epochs": 4, "save_every": 5, "ranks": 1}  # 20 steps, saves of about 500 kB
    calm = job_maker("room", **settings)
    run(calm)
    job = job_maker("no-room", **settings)
    job.checkpoints.mkdir()
    rank = f"{sys.executable} -m training.run '{job.folder / 'job.json'}'"
    done = small_disk(job.checkpoints, 800, f"{rank}; code=$?; cp -r '{job.checkpoints}' '{tmp_path}/kept'; exit $code")
    assert done.returncode == 1, done.stderr
    (failure,) = read_failures(job.folder)
    assert failure.kind == "disk" and "No space left on device" in failure.message
    shutil.copytree(tmp_path / "kept", job.checkpoints, dirs_exist_ok=True)
    found, refused = find_checkpoint(job.checkpoints, identity(calm))
    assert found is not None and found.step == 5 and not refused
    assert run(job).facts["resumed_from_step"] == 5
    assert (job.folder / "metrics.jsonl").read_bytes() == (calm.folder / "metrics.jsonl").read_bytes()
    assert digests(job.export) == digests(calm.export)
