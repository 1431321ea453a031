"""One optimizer step's forward and backward passes, and what stops a training at once.

P pairs in a pack; weights are 1/N over the global batch of N pairs, however it is packed and shared out.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from training.config import Precision, TrainConfig
from training.engine import Engine
from training.losses import PairLogps, pair_losses
from training.metrics import StepSums
from training.pack import Pack
from training.status import TrainerError

# In nat; further from it the reference is another model's, or was scored in another layout.
FIRST_LOSS_TOLERANCE: Final = 5e-3
# bf16 sums of one model differ by 0.07 nat per square root of their tokens where other packs mean other kernels
# (training/layout.py): with 32 pairs of 500 tokens and beta 0.1 that alone moves the first loss by 0.014. Between two
# models they differ by nats per token, and by 1 and more in this unit.
FIRST_DRIFT_BF16: Final = 0.2


class StepTotals(NamedTuple):
    """Sums over the pairs of a step, over all ranks."""

    metrics: dict[str, float]
    """Means under TRL's names."""
    unmoved_loss: float
    """What the mean loss would be if the policy were its reference: ln 2 for sigmoid."""
    drift: float
    """How far policy and reference are apart: root mean square over completions, in nat per square root of tokens."""
    stop: bool
    """Whether some rank was asked to stop."""


def run_packs(
    engine: Engine, config: TrainConfig, packs: Sequence[Pack], reference: PairLogps, stop: bool
) -> tuple[StepTotals, dict[int, float]]:
    """Forward and backward of this rank's packs, and the one reduction of the step.

    `reference` holds the batch's values in the order of its rows. Returns the totals, the same on every rank, and the
    loss of each row of the batch that this rank has seen; the latter is read only when something is wrong with it.
    """
    ranks, device = dist.get_world_size(), engine.device
    sums = StepSums.zeros(device)
    unmoved, drift = torch.zeros((2,), dtype=torch.float64, device=device).unbind()
    seen: list[tuple[Tensor, Tensor]] = []
    for pack in packs:
        here = pack.to(device)
        given = PairLogps(*(side[pack.pairs].to(device) for side in reference))
        policy = engine.logps(here)
        terms = pair_losses(config, policy, given, here.completions)
        # The engine averages gradients over ranks, so the sum over this rank's pairs is multiplied by their number.
        engine.backward(terms.losses.sum() * (pack.weight * ranks / config.batch_size))
        sums.add(terms, policy, given, here.completions, pack.weight)
        unmoved += pack.weight * pair_losses(config, given, given, here.completions).losses.to(torch.float64).sum()
        for now, was, tokens in zip(policy, given, here.completions, strict=True):
            drift += pack.weight * ((now.detach() - was).to(torch.float64).square() / tokens).sum()
        if pack.weight:
            seen.append((pack.pairs, terms.losses.detach()))
    asked = torch.tensor(float(stop), dtype=torch.float64, device=device)
    together = torch.cat([sums.values, torch.stack([unmoved, drift, asked])])
    dist.all_reduce(together)
    totals = StepTotals(
        StepSums(together[:-3]).to_metrics(), float(together[-3]) / config.batch_size,
        math.sqrt(float(together[-2]) / (2 * config.batch_size)), bool(together[-1] > 0),
    )  # fmt: skip
    if math.isfinite(totals.metrics["loss"]):
        return totals, {}
    return totals, {
        row: loss for rows, losses in seen for row, loss in zip(rows.tolist(), losses.tolist(), strict=True)
    }


def check_first_loss(totals: StepTotals, reference: Path, precision: Precision) -> None:
    """Refuse to train against a reference that is not the start model's: before any update the two are equal.

    TRL and others start with false margins of tenths of a nat when the reference was scored in another layout.
    """
    loss, drift = totals.metrics["loss"], totals.drift
    if precision == "bf16":
        wrong = drift > FIRST_DRIFT_BF16
    else:
        wrong = abs(loss - totals.unmoved_loss) > FIRST_LOSS_TOLERANCE
    if wrong:
        raise TrainerError(
            "reference",
            f"the loss of the first batch is {loss:.6f} and must be {totals.unmoved_loss:.6f}, since the policy is"
            f" still the start model: the log-probs in {reference} are another model's or were scored in another way"
            f" (they are off by {drift:.4f} nat per square root of the tokens)",
            1,
        )
