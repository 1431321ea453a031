"""Hooks: called by keyword, in a process of their own, with nothing but the run's parameters to go by."""

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from flows.hooks import write_cancelled, write_crashed
from flows.pipeline import data, pipeline, training
from flows.sweep import sweep
from training.rank import LAUNCHER_PID

FLOWS = (pipeline, data, training, sweep)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_hook_takes_what_prefect_calls_it_with(flow: Any) -> None:
    hooks = [
        hook
        for kind in ("cancellation", "crashed", "failure", "completion", "running")
        for hook in getattr(flow, f"on_{kind}_hooks")
    ]
    assert len(hooks) >= 2
    for hook in hooks:
        assert list(inspect.signature(hook).parameters) == ["flow", "flow_run", "state"]


@pytest.mark.parametrize(
    ("hook", "kind", "status"), [(write_cancelled, "interrupted", 130), (write_crashed, "crashed", 1)]
)
def test_the_summary_says_how_the_run_ended_and_what_was_left_of_it_is_ended(
    tmp_path: Path, hook: Any, kind: str, status: int
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: m\nwork_dir: {tmp_path / 'work'}\ningest: {{sources: [demo-site]}}\n")
    run = SimpleNamespace(id=uuid4(), name="one", parameters={"recipe": str(recipe), "name": ""})
    folder = tmp_path / "work" / "runs" / "one"
    folder.mkdir(parents=True)
    left, at_work = rank_of(run.id, launcher=ended_process()), rank_of(run.id, launcher=os.getpid())
    other = rank_of(uuid4(), launcher=ended_process())
    try:
        hook(flow=pipeline, flow_run=run, state=SimpleNamespace(message="gone"))
        error = json.loads((folder / "summary.json").read_text())["error"]
        assert (error["kind"], error["status"], error["stage"]) == (kind, status, None)
        assert error["message"] == f"gone; ended processes that were left: {left.pid}"
        assert left.wait(30) == -signal.SIGKILL
        # A rank of the next attempt has a launcher, and that of another run is none of ours.
        assert at_work.poll() is None and other.poll() is None
    finally:
        for rank in (left, at_work, other):
            rank.kill()
            rank.wait()


def test_a_crashed_sweep_is_written_down_as_a_sweep(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: m\nwork_dir: {tmp_path / 'work'}\ningest: {{sources: [demo-site]}}\n")
    parameters = {"recipe": str(recipe), "vary": ["train.beta=0.1,0.2"], "name": "swept"}
    (tmp_path / "work" / "sweeps").mkdir(parents=True)
    run = SimpleNamespace(id=uuid4(), name="one", parameters=parameters)
    write_crashed(flow=sweep, flow_run=run, state=SimpleNamespace(message="gone"))
    error = {"status": 1, "stage": None, "kind": "crashed", "message": "gone"}
    written = json.loads((tmp_path / "work" / "sweeps" / "swept.json").read_text())
    assert written == {"sweep": "swept", "runs": [], "comparison": None, "error": error}


def rank_of(run: UUID, launcher: int) -> "subprocess.Popen[bytes]":
    """A process that looks like a rank of `run` and was started by `launcher`."""
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": str(run), LAUNCHER_PID: str(launcher)}
    code = "import time; print('here', flush=True); time.sleep(120)"
    rank = subprocess.Popen(
        [sys.executable, "-c", code, "training.run"], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert rank.stdout is not None and rank.stdout.readline() == b"here\n"
    return rank


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_hook_of_a_run_whose_recipe_is_gone_fails_nothing(tmp_path: Path) -> None:
    run = SimpleNamespace(id=uuid4(), name="one", parameters={"recipe": str(tmp_path / "gone.yaml")})
    write_crashed(flow=pipeline, flow_run=run, state=SimpleNamespace(message=None))
