"""Preference losses, as functions of log probabilities and nothing else.

Shapes: P pairs. Losses are per pair: weighting them by 1/N over the global batch is the caller's.

With z = beta * ((policy chosen - reference chosen) - (policy rejected - reference rejected)):

    sigmoid   -log sigmoid(z), smoothed if asked              Rafailov et al. 2023, arXiv:2305.18290, equation 7
    dpo_norm  the same of log-probs averaged over tokens      Lambert et al. 2024, arXiv:2411.15124 (TRL: sigmoid_norm)
    robust    unbiased where a known share of labels is wrong Chowdhury et al. 2024, arXiv:2403.00409, equation 12
    ld        sigmoid of log-probs whose surplus tokens count less   Liu et al. 2024, arXiv:2409.06411
    ipo       (h - 1 / (2 beta))², h of averaged log-probs    Azar et al. 2023, arXiv:2310.12036, equation 17
    ipo_sum   the same with h of summed log-probs, as printed
    simpo     -log sigmoid(beta * (averaged chosen - averaged rejected) - gamma), no reference
                                                              Meng et al. 2024, arXiv:2405.14734, equation 6
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from training.config import TrainConfig
from training.pack import PairTokens


class PairLogps(NamedTuple):
    """Summed completion log probabilities of one model, one value a pair, in nat."""

    chosen: Tensor  # (P,)
    rejected: Tensor  # (P,)


class LossTerms(NamedTuple):
    """What a step trains on and what it shows."""

    losses: Tensor  # (P,)
    chosen_rewards: Tensor  # (P,) detached
    rejected_rewards: Tensor  # (P,) detached


def pair_losses(config: TrainConfig, policy: PairLogps, reference: PairLogps, tokens: PairTokens) -> LossTerms:
    """The loss that `config` asks for, `sft_weight` times the chosen answer's mean negative log-prob with it.

    For `ld` both models' log-probs must have been summed with `config.tail_weight`.
    """
    beta, smoothing = config.beta, config.label_smoothing
    match config.loss:
        case "sigmoid" | "ld":
            terms = dpo_loss(policy, reference, beta=beta, label_smoothing=smoothing)
        case "dpo_norm":
            both = per_token(policy, tokens), per_token(reference, tokens)
            terms = dpo_loss(*both, beta=beta, label_smoothing=smoothing)
        case "robust":
            terms = robust_loss(policy, reference, beta=beta, label_smoothing=smoothing)
        case "ipo":
            terms = ipo_loss(per_token(policy, tokens), per_token(reference, tokens), beta=beta)
        case "ipo_sum":
            terms = ipo_loss(policy, reference, beta=beta)
        case "simpo":
            terms = simpo_loss(
                per_token(policy, tokens), beta=beta, gamma=config.simpo_gamma, label_smoothing=smoothing
            )
    if config.sft_weight:
        terms = terms._replace(losses=terms.losses + config.sft_weight * sft_loss(policy, tokens))
    return terms


def per_token(logps: PairLogps, tokens: PairTokens) -> PairLogps:
    """Log-probs averaged over the tokens of each completion."""
    return PairLogps(logps.chosen / tokens.chosen, logps.rejected / tokens.rejected)


def dpo_loss(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float = 0.0) -> LossTerms:
    """Sigmoid loss, smoothed as in Mitchell 2023, "A note on DPO with noisy preferences" (conservative DPO)."""
    chosen, rejected = logratios(policy, reference)
    return _terms(_smoothed(beta * (chosen - rejected), label_smoothing), beta * chosen, beta * rejected)


def robust_loss(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> LossTerms:
    """Its mean over labels of which a share `label_smoothing` is flipped is the sigmoid loss of the true ones."""
    chosen, rejected = logratios(policy, reference)
    clean, flipped = (-F.logsigmoid(sign * beta * (chosen - rejected)) for sign in (1, -1))
    losses = ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    return _terms(losses, beta * chosen, beta * rejected)


def ipo_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossTerms:
    """Squared distance of the log-ratios' difference from 1 / (2 beta); beta is the paper's tau."""
    chosen, rejected = logratios(policy, reference)
    return _terms((chosen - rejected - 1 / (2 * beta)) ** 2, beta * chosen, beta * rejected)


def simpo_loss(averaged: PairLogps, *, beta: float, gamma: float, label_smoothing: float = 0.0) -> LossTerms:
    """Averaged log-probs themselves as rewards, to be apart by `gamma`."""
    losses = _smoothed(beta * (averaged.chosen - averaged.rejected) - gamma, label_smoothing)
    return _terms(losses, beta * averaged.chosen, beta * averaged.rejected)


def sft_loss(policy: PairLogps, tokens: PairTokens) -> Tensor:
    """Mean negative log-prob of the chosen tokens of each pair (Pang et al. 2024, arXiv:2404.19733, equation 1).

    Each pair counts the same. TRL averages over all tokens of a micro-batch instead, so that the result depends on
    how the batch is split.
    """
    return -policy.chosen / tokens.chosen


def logratios(policy: PairLogps, reference: PairLogps) -> tuple[Tensor, Tensor]:
    """Policy minus reference log-probs of chosen and of rejected."""
    return policy.chosen - reference.chosen, policy.rejected - reference.rejected


def _terms(losses: Tensor, chosen_rewards: Tensor, rejected_rewards: Tensor) -> LossTerms:
    return LossTerms(losses, chosen_rewards.detach(), rejected_rewards.detach())


def _smoothed(margin: Tensor, label_smoothing: float) -> Tensor:
    """-(1 - e) log sigmoid(margin) - e log sigmoid(-margin)."""
    losses = -F.logsigmoid(margin)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-margin)
    return losses
