"""Preference losses, as functions of log probabilities and nothing else.

Shapes: P pairs. Losses are per pair: weighting them by 1/N over the global batch is the caller's.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from training.batch import PairTokens
from training.config import TrainConfig


class PairLogps(NamedTuple):
    """Summed completion log probabilities of one model, one value a pair, in nat."""

    chosen: Tensor  # (P,)
    rejected: Tensor  # (P,)


class LossTerms(NamedTuple):
    """What a step trains on and what it shows."""

    losses: Tensor  # (P,)
    chosen_rewards: Tensor  # (P,) detached
    rejected_rewards: Tensor  # (P,) detached


def dpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float = 0.0) -> LossTerms:
    """Equation 7 of Rafailov et al. 2023 (arXiv:2305.18290); smoothed as in Mitchell 2023, "conservative DPO"."""
    chosen_logratios = policy.chosen - reference.chosen
    rejected_logratios = policy.rejected - reference.rejected
    losses = _smoothed(beta * (chosen_logratios - rejected_logratios), label_smoothing)
    return LossTerms(losses, beta * chosen_logratios.detach(), beta * rejected_logratios.detach())


def _smoothed(z: Tensor, label_smoothing: float) -> Tensor:
    """-(1 - e) log sigmoid(z) - e log sigmoid(-z)."""
    losses = -F.logsigmoid(z)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-z)
    return losses


def pair_losses(config: TrainConfig, policy: PairLogps, reference: PairLogps, tokens: PairTokens) -> LossTerms:
    """The loss that `config` asks for."""
    return dpo_loss(policy, reference, beta=config.beta, label_smoothing=config.label_smoothing)
