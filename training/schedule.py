"""The learning rate of each step, as a function of the step alone: a resumed run needs no state for it."""

import math

from training.config import TrainConfig


def warmup_steps(config: TrainConfig, total: int) -> int:
    """Steps of warm-up: ceil(warmup_ratio * total), as in the recipe's trainer (EasyLM)."""
    return math.ceil(config.warmup_ratio * total)


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The learning rate of the update of `step` (from 0) out of `total`.

    The rate rises linearly from 0, which is that of the first step, to the peak at the end of the warm-up; then it
    falls to 0 along a line or half a cosine wave, or stays. Optax and transformers count alike.
    """
    warmup = warmup_steps(config, total)
    if step < warmup:
        return config.learning_rate * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    match config.schedule:
        case "linear":
            return config.learning_rate * (1 - progress)
        case "cosine":
            return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        case "constant":
            return config.learning_rate
