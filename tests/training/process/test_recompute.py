"""Activations worked out again in the backward pass: less memory, and the same training to the last bit."""

import json
from pathlib import Path

import pytest

from training.jobs import TrainJob
from training.launch import launch


def trained(job: TrainJob) -> tuple[bytes, dict[str, object]]:
    """Metrics of every step, and what the ranks say of themselves."""
    outcome = launch(
        "training.run", job.folder / "job.json", job.folder, ranks=job.config.ranks, log_file=job.folder / "train.log"
    )
    return Path(job.folder / "metrics.jsonl").read_bytes(), outcome.facts


@pytest.mark.parametrize(("stage", "ranks"), [(2, 1), (3, 2)])
def test_recompute_changes_no_loss_and_no_gradient(job_maker, stage: int, ranks: int) -> None:
    settings = {"zero_stage": stage, "ranks": ranks, "epochs": 1}
    kept, facts = trained(job_maker(f"kept-{stage}", **settings))
    assert facts["recompute"] is False  # auto, on a CPU
    again, facts = trained(job_maker(f"again-{stage}", recompute=True, **settings))
    assert facts["recompute"] is True
    assert again == kept
    losses = [json.loads(line)["loss"] for line in kept.splitlines()]
    assert len(losses) == 5 and losses[0] != losses[-1]
