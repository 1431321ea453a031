"""The reward that a loss teaches, as a number for each answer: what the margin of a held-out pair is made of.

A model is judged by what it was trained to compare. Summed log-ratios for most losses; averaged over tokens where the
loss averages them; without the reference where the loss has none.
"""

from typing import Final, Literal

import polars as pl

Reward = Literal["summed log-ratio", "averaged log-ratio", "averaged log-prob"]

_OF_LOSS: Final[dict[str, Reward]] = {
    "dpo_norm": "averaged log-ratio",
    "ipo": "averaged log-ratio",
    "simpo": "averaged log-prob",
}

# How a card says when a pair is right.
FORMULAS: Final[dict[Reward, str]] = {
    "summed log-ratio": (
        "beta × ((chosen − reference's chosen) − (rejected − reference's rejected)) of summed log-probs"
    ),
    "averaged log-ratio": (
        "beta × ((chosen − reference's chosen) − (rejected − reference's rejected)) of log-probs averaged over tokens"
    ),
    "averaged log-prob": "beta × (chosen − rejected) of log-probs averaged over tokens, without the reference",
}


def reward_of(loss: str) -> Reward:
    """What the loss of this name (training/config.py) compares."""
    return _OF_LOSS.get(loss, "summed log-ratio")


def rewards(rows: pl.DataFrame, beta: float, reward: Reward) -> tuple[pl.Series, pl.Series]:
    """The rewards of the chosen and of the rejected answers; `rows` has log-probs of both models and token counts.

    For summed log-ratios: beta × (logps - ref_logps), Rafailov et al. 2023, equation 7.
    """
    found = []
    for side in ("chosen", "rejected"):
        logps, reference, tokens = rows[f"{side}_logps"], rows[f"ref_{side}_logps"], rows[f"{side}_tokens"]
        match reward:
            case "summed log-ratio":
                found.append(beta * (logps - reference))
            case "averaged log-ratio":
                found.append(beta * (logps - reference) / tokens)
            case "averaged log-prob":
                found.append(beta * logps / tokens)
    return found[0], found[1]


def margins(rows: pl.DataFrame, beta: float, reward: Reward = "summed log-ratio") -> pl.Series:
    """Reward of the chosen minus reward of the rejected answer."""
    if reward == "summed log-ratio":  # in the order of the formula, to the last bit
        chosen = rows["chosen_logps"] - rows["ref_chosen_logps"]
        rejected = rows["rejected_logps"] - rows["ref_rejected_logps"]
        return (beta * (chosen - rejected)).alias("margin")
    chosen, rejected = rewards(rows, beta, reward)
    return (chosen - rejected).alias("margin")
