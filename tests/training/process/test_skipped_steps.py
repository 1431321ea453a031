"""A step that is left out leaves no trace: weights, moments and later losses are those of ranks that never saw it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.process.skip_ranks import CASES, WAYS
from training.config import TrainConfig
from training.launch import launch


@pytest.fixture(scope="module")
def runs(job_maker) -> dict[str, Any]:
    job = job_maker("left-out", ranks=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        launch("skip_ranks", job.folder, job.folder, ranks=2, log_file=job.folder / "ranks.log")
    found: dict[str, Any] = json.loads((job.folder / "runs.json").read_text())
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", [" ".join(map(str, case)) for case in CASES])
def test_a_step_that_is_left_out_leaves_no_trace(runs, case, way):
    run, absent = runs[f"{case} {way}"], runs[f"{case} absent {WAYS[way][0]}"]
    assert run["losses"] == absent["losses"] and len(run["losses"]) == 3
    assert run["state"] == absent["state"]
    assert any(moments > 0 for _, moments, _ in run["state"])
    assert (run["left out"] in ("inf", "nan")) == ("overflown" in way)


def test_a_training_of_before_the_policy_keeps_its_name():
    younger = {"nonfinite", "max_skipped_in_a_row", "lora"}
    assert not younger & TrainConfig().identity().keys()
    assert TrainConfig(nonfinite="skip").identity()["nonfinite"] == "skip"
    assert TrainConfig(nonfinite="stop").identity() == TrainConfig().identity()
