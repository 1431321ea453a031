"""The learning rate, worked by hand and against transformers'."""

import pytest
import torch
from transformers import get_scheduler

from training.config import TrainConfig
from training.schedule import learning_rate, warmup_steps


def test_ten_steps_with_a_warm_up_of_two_by_hand():
    config = TrainConfig(learning_rate=8.0, warmup_ratio=0.2)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates == pytest.approx([0, 4, 8, 7, 6, 5, 4, 3, 2, 1])


def test_the_recipes_warm_up_is_rounded_up():
    assert warmup_steps(TrainConfig(), 5625) == 563
    assert warmup_steps(TrainConfig(warmup_ratio=0.0), 5625) == 0


@pytest.mark.parametrize(("schedule", "theirs"), [("linear", "linear"), ("cosine", "cosine"),
                                                  ("constant", "constant_with_warmup")])  # fmt: skip
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.33])
def test_every_step_is_that_of_transformers(schedule, theirs, ratio):
    config = TrainConfig(learning_rate=3e-4, warmup_ratio=ratio, schedule=schedule)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=3e-4)
    scheduler = get_scheduler(
        theirs, optimizer, num_warmup_steps=warmup_steps(config, 37), num_training_steps=37
    )  # fmt: skip
    for step in range(37):
        assert learning_rate(config, step, 37) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        scheduler.step()
