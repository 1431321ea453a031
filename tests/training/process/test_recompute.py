"""Activations worked out again in the backward pass: less memory, and the same training to the last bit."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.jobs import TrainJob
from training.launch import launch


def trained(job: TrainJob) -> tuple[bytes, dict[str, object]]:
    """Metrics of every step, and what the ranks say of themselves."""
    outcome = launch(
        "training.run", job.folder / "job.json", job.folder, ranks=job.config.ranks, log_file=job.folder / "train.log"
    )
    return Path(job.folder / "metrics.jsonl").read_bytes(), outcome.facts


ADAPTERS = {"lora": {"rank": 4, "alpha": 8}, "learning_rate": 2e-2}


@pytest.mark.parametrize(("stage", "ranks", "how"), [(2, 1, {}), (3, 2, {}), (2, 2, ADAPTERS)])
def test_recompute_changes_no_loss_and_no_gradient_of_the_model_or_its_adapters(
    job_maker, stage: int, ranks: int, how: dict[str, Any]
) -> None:
    settings = {"zero_stage": stage, "ranks": ranks, "epochs": 1, **how}
    name = f"{stage}-{'-'.join(how)}"
    kept, facts = trained(job_maker(f"kept-{name}", **settings))
    assert facts["recompute"] is False  # auto, on a CPU
    again, facts = trained(job_maker(f"again-{name}", recompute=True, **settings))
    assert facts["recompute"] is True
    assert again == kept
    losses = [json.loads(line)["loss"] for line in kept.splitlines()]
    assert len(losses) == 5 and losses[0] != losses[-1]
