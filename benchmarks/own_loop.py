"""The trainer's numerical core without DeepSpeed: reference, forward, loss, AdamW, in one process."""

from collections.abc import Sequence
from pathlib import Path

import torch

from training.batch import pack_batch
from training.config import TrainConfig
from training.forward import load_model, pack_logps
from training.losses import PairLogps, pair_losses
from training.metrics import StepSums
from training.rows import TokenRow
from training.schedule import learning_rate


def train_with_ours(folder: Path, rows: Sequence[TokenRow], config: TrainConfig, device: str) -> list[float]:
    """One pass over `rows` as they stand, `config.batch_size` at a time; the mean loss of each step."""
    budget = config.tokens_per_pack or 2048
    model = load_model(folder, precision=config.precision, device=device)
    reference = PairLogps(torch.zeros(len(rows), device=device), torch.zeros(len(rows), device=device))
    size = config.batch_size
    steps = len(rows) // size
    packed = [pack_batch(rows[step * size : (step + 1) * size], budget, 1)[0] for step in range(steps)]
    with torch.no_grad():
        for step, packs in enumerate(packed):
            for pack in packs:
                here = pack.to(device)
                for side, values in zip(reference, pack_logps(model, here), strict=True):
                    side[step * size + here.pairs] = values

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=config.adam_betas, eps=config.adam_eps,
        weight_decay=config.weight_decay, fused=True,
    )  # fmt: skip
    losses = []
    for step, packs in enumerate(packed):
        sums = StepSums.zeros(device)
        for pack in packs:
            here = pack.to(device)
            policy = pack_logps(model, here)
            given = PairLogps(*(side[step * size + here.pairs] for side in reference))
            terms = pair_losses(config, policy, given, here.completions)
            (terms.losses.sum() * (pack.weight / size)).backward()
            sums.add(terms, policy, given, here.completions, pack.weight)
        losses.append(sums.to_metrics()["loss"])
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm or float("inf"))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=device != "cpu")
    return losses
