"""What a training may differ from its reference by before its first update: rounding, and nothing more."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import TrainConfig
from training.losses import PairLogps, PairTokens, pair_losses
from training.metrics import StepSums
from training.status import TrainerError
from training.step import StepTotals, check_first_loss

PAIRS, TOKENS = 32, 256
LN_2 = 0.6931472


def first_step(deviation: float) -> StepTotals:
    """The totals of 32 pairs of answers of 256 tokens, whose log-probs are off by normal noise, in nat per √token."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, deviation * TOKENS**0.5, (2, PAIRS)))
    given = PairLogps(
        torch.full((PAIRS,), -300.0, dtype=torch.float64), torch.full((PAIRS,), -280.0, dtype=torch.float64)
    )
    policy = PairLogps(given.chosen + noise[0], given.rejected + noise[1])
    tokens = PairTokens(*(torch.full((PAIRS,), TOKENS) for _ in range(2)))
    terms = pair_losses(TrainConfig(), policy, given, tokens)
    sums = StepSums.zeros(torch.device("cpu"))
    sums.add(terms, policy, given, tokens, 1.0)
    return StepTotals(sums.to_metrics(), LN_2, float(noise.square().mean().div(TOKENS).sqrt()), stop=False)


def test_bf16_may_start_off_by_what_other_packs_do_to_its_sums() -> None:
    totals = first_step(0.07)
    assert abs(totals.metrics["loss"] - LN_2) > 5e-3  # which in fp32 would be another model
    check_first_loss(totals, Path("reference"), "bf16")
    with pytest.raises(TrainerError, match=r"must be 0\.693147"):
        check_first_loss(totals, Path("reference"), "fp32")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_values_of_another_model_are_refused_in_either_precision(precision: str) -> None:
    with pytest.raises(TrainerError, match="another model's") as refused:
        check_first_loss(first_step(1.0), Path("reference"), precision)
    assert refused.value.kind == "reference"
