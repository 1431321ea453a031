"""DPO as a plain loop over one process: the trainer's own batches, forward and losses, PyTorch's AdamW."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from tests.training.pairs import in_batch_order
from training.batch import batch_indices, pack_batch
from training.config import TrainConfig
from training.forward import pack_logps
from training.losses import PairLogps, pair_losses
from training.metrics import StepSums
from training.rows import TokenRow
from training.schedule import learning_rate


class PlainRun(NamedTuple):
    """What was seen at each step."""

    losses: list[float]
    grad_norms: list[float]


def reference_logps(model: PreTrainedModel, rows: Sequence[TokenRow], config: TrainConfig) -> PairLogps:
    """Log-probs of all rows under the start model, (rows,) each."""
    with torch.no_grad():
        packs = pack_batch(rows, config.tokens_per_pack or 2048, 1)[0]
        scored = [pack_logps(model, pack, tail_weight=config.tail_weight) for pack in packs]
    return PairLogps(*(in_batch_order(packs, [logps[side] for logps in scored]) for side in range(2)))


def accumulate(
    model: PreTrainedModel, batch: Sequence[TokenRow], reference: PairLogps, config: TrainConfig, ranks: int = 1
) -> dict[str, float]:
    """Add up the gradients of one batch as `ranks` ranks would, one after the other; its metrics."""
    sums = StepSums.zeros("cpu")
    for packs in pack_batch(batch, config.tokens_per_pack or 2048, ranks):
        for pack in packs:
            policy = pack_logps(model, pack, tail_weight=config.tail_weight)
            given = PairLogps(*(side[pack.pairs] for side in reference))
            terms = pair_losses(config, policy, given, pack.completions)
            (terms.losses.sum() * (pack.weight / len(batch))).backward()
            sums.add(terms, policy, given, pack.completions, pack.weight)
    return sums.to_metrics()


def train(
    model: PreTrainedModel, rows: Sequence[TokenRow], config: TrainConfig, *, seed: int, steps: int,
    questions: tuple[int, ...] | None = None,
) -> PlainRun:  # fmt: skip
    """`steps` optimizer steps with clipping and the trainer's schedule."""
    reference = reference_logps(model, rows, config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=config.adam_betas, eps=config.adam_eps,
        weight_decay=config.weight_decay,
    )  # fmt: skip
    losses, norms = [], []
    for step in range(steps):
        indices = batch_indices(len(rows), config.batch_size, seed, step, questions)
        given = PairLogps(*(side[indices] for side in reference))
        losses.append(accumulate(model, [rows[i] for i in indices], given, config)["loss"])
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm or float("inf"))))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, steps)
        optimizer.step()
        optimizer.zero_grad()
    return PlainRun(losses, norms)
