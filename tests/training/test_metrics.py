"""What a step shows, worked out by hand; sums of ranks add up to the metrics of the whole batch."""

import pytest
import torch
from torch import Tensor

from tests.training.pairs import made_up_rows
from training.batch import pack_batch
from training.losses import LossTerms, PairLogps
from training.metrics import StepSums, pack_metrics
from training.pack import PairTokens


def column(*values: float) -> Tensor:
    return torch.tensor(values)


def added(sums: StepSums, some: slice, weight: float = 1.0) -> None:
    """The pairs of `some` out of four."""
    terms = LossTerms(column(0.5, 0.7, 0.9, 0.7), column(1, 0, -1, 2), column(0, 0, 1, 0))
    policy = PairLogps(column(-10, -20, -30, -40), column(-50, -60, -70, -80))
    reference = PairLogps(column(-11, -20, -29, -42), column(-50, -60, -71, -80))
    tokens = PairTokens(torch.tensor([5, 5, 4, 9]), torch.tensor([3, 5, 8, 2]))
    sums.add(
        LossTerms(*(side[some] for side in terms)), PairLogps(*(side[some] for side in policy)),
        PairLogps(*(side[some] for side in reference)), PairTokens(*(side[some] for side in tokens)), weight,
    )  # fmt: skip


def test_metrics_are_means_over_pairs() -> None:
    sums = StepSums.zeros("cpu")
    added(sums, slice(0, 4))
    assert sums.to_metrics() == pytest.approx(
        {
            "loss": 0.7,
            "rewards/chosen": 0.5,
            "rewards/rejected": 0.25,
            "rewards/accuracies": 0.5,  # a tie is wrong, as in TRL
            "rewards/margins": 0.25,
            "logps/chosen": -25.0,
            "logps/rejected": -65.0,
            "logps/ref_chosen": -25.5,
            "logps/ref_rejected": -65.25,
            "rewards/length_baseline_accuracy": (1 + 0.5 + 0 + 1) / 4,
        }
    )


def test_packs_and_ranks_of_any_size_add_up_to_the_same() -> None:
    whole = StepSums.zeros("cpu")
    added(whole, slice(0, 4))
    ranks = [StepSums.zeros("cpu") for _ in range(2)]
    added(ranks[0], slice(0, 3))
    added(ranks[1], slice(3, 4))
    added(ranks[1], slice(0, 1), weight=0.0)  # a pack that only keeps in step
    together = StepSums(ranks[0].values + ranks[1].values)
    assert together.to_metrics() == pytest.approx(whole.to_metrics(), rel=1e-6)


def test_no_pairs_give_no_metrics() -> None:
    assert StepSums.zeros("cpu").to_metrics() == {}


def test_padding_and_balance_of_packs_are_worked_out_from_their_tokens() -> None:
    # 10, 6 and 6 tokens on two ranks: (10 | 6) then (6 | 3 that count for nothing).
    packs = pack_batch(made_up_rows([(2, 4, 4), (1, 2, 3), (1, 3, 2)]), 10, 2)
    assert [[pack.tokens for pack in row] for row in packs] == [[10, 3], [6, 6]]
    shared = pack_metrics(packs, shared_prompt=True)
    assert shared == pytest.approx({"perf/padding_share": 3 / 25, "perf/rank_balance": 25 / (2 * (10 + 6))})
    # Padded: 2 sequences of 6 each; of 4 and 3, so 8; the same; and 2 of 2 for the idle one.
    padded = pack_metrics(packs, shared_prompt=False)
    assert padded["perf/padding_share"] == pytest.approx(1 - (12 + 7 + 7) / (12 + 8 + 8 + 4))
