"""Whether the model is as sure as it is right: sigmoid(margin) as the probability that the chosen answer is better.

Shapes: P pairs.
"""

from typing import Any, Final

import numpy as np

from tasks.evaluation.statistics import FloatArray

BINS: Final = 10


def probability(margin: FloatArray) -> FloatArray:
    """sigmoid(margin), without overflow."""
    return np.exp(-np.logaddexp(0.0, -margin))


def loss(margin: FloatArray) -> FloatArray:
    """-log sigmoid(margin): the sigmoid DPO loss of each pair; ln 2 at margin 0."""
    return np.logaddexp(0.0, -margin)


def brier(margin: FloatArray) -> FloatArray:
    """(1 - sigmoid(margin))² of each pair: 0.25 for a model that does not know, 0 for one that is sure and right."""
    return (1.0 - probability(margin)) ** 2


def reliability(margin: FloatArray) -> dict[str, Any]:
    """Ten bins of confidence from 0.5 to 1, and the expected calibration error over them.

    Confidence is max(p, 1 - p), whichever answer the model prefers; a tie counts half right, at confidence 0.5.
    """
    chosen = probability(margin)
    confidence = np.maximum(chosen, 1.0 - chosen)
    right = 0.5 + 0.5 * np.sign(margin)
    numbers = np.clip(((confidence - 0.5) * 2 * BINS).astype(np.int64), 0, BINS - 1)
    bins = []
    error = 0.0
    for number in range(BINS):
        inside = numbers == number
        count = int(inside.sum())
        if count == 0:
            continue
        sure, correct = float(confidence[inside].mean()), float(right[inside].mean())
        error += count / len(margin) * abs(sure - correct)
        low = 0.5 + number / (2 * BINS)
        bins.append({"from": round(low, 2), "to": round(low + 0.5 / BINS, 2), "pairs": count, "confidence": sure,
                     "accuracy": correct})  # fmt: skip
    return {"expected_calibration_error": error, "bins": bins}
