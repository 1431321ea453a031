"""What a step shows, under TRL's names: sums with a count of pairs, so that one all-reduce a step gives exact means."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.losses import LossTerms, PairLogps
from training.pack import Pack, PairTokens

PAIR_METRICS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "logps/ref_chosen",
    "logps/ref_rejected",
    "rewards/length_baseline_accuracy",
)


class StepSums:
    """Sums over the pairs that one rank has seen in one step; `values` is what ranks add up."""

    def __init__(self, values: Tensor):
        self.values = values  # (1 + len(PAIR_METRICS),) float64: pairs, then one sum a metric

    @classmethod
    def zeros(cls, device: torch.device | str) -> "StepSums":
        """Nothing seen yet."""
        return cls(torch.zeros(1 + len(PAIR_METRICS), dtype=torch.float64, device=device))

    def add(
        self, terms: LossTerms, policy: PairLogps, reference: PairLogps, tokens: PairTokens, weight: float = 1.0
    ) -> None:
        """Count the pairs of one pack, without waiting for the device; a pack of weight 0 counts for nothing."""
        if weight == 0.0:
            return
        margins = terms.chosen_rewards - terms.rejected_rewards
        columns = (
            torch.ones_like(margins),
            terms.losses,
            terms.chosen_rewards,
            terms.rejected_rewards,
            (margins > 0).to(margins.dtype),  # strict, as in TRL: a tie is wrong
            margins,
            policy.chosen,
            policy.rejected,
            reference.chosen,
            reference.rejected,
            # Who always takes the longer answer; between two of the same length it is right half the time.
            0.5 * (1 + torch.sign(tokens.chosen - tokens.rejected)),
        )
        self.values += torch.stack([column.detach().to(torch.float64).sum() for column in columns])

    def to_metrics(self) -> dict[str, float]:
        """Means over the pairs counted; waits for the device. Empty when no pair was counted."""
        pairs, *sums = self.values.tolist()
        return {name: total / pairs for name, total in zip(PAIR_METRICS, sums, strict=True)} if pairs else {}


def pack_metrics(packs: Sequence[Sequence[Pack]], *, shared_prompt: bool) -> dict[str, float]:
    """How well the packs [rank][micro step] of a step use the machine.

    `perf/padding_share` is the share of the computed tokens that no pair needs; `perf/rank_balance` the mean work of
    a rank over that of the slowest, summed over micro steps, since ranks wait for each other after each.
    """
    computed = [[_computed(pack, shared_prompt) for pack in row] for row in packs]
    useful = sum(pack.weight * _useful(pack, shared_prompt) for row in packs for pack in row)
    total = sum(map(sum, computed))
    slowest = sum(max(step) for step in zip(*computed, strict=True))
    return {"perf/padding_share": 1 - useful / total, "perf/rank_balance": total / (len(packs) * slowest)}


def _useful(pack: Pack, shared_prompt: bool) -> int:
    return pack.tokens if shared_prompt else sum(_sequences(pack))


def _computed(pack: Pack, shared_prompt: bool) -> int:
    if shared_prompt:
        return pack.tokens
    sequences = _sequences(pack)
    return len(sequences) * max(sequences)


def _sequences(pack: Pack) -> list[int]:
    """Tokens of each completion with its prompt."""
    return [sum(part.stop - part.start for part in parts) for parts in pack.sequences()]
