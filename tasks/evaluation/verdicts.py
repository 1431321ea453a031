"""Verdicts of a judge on pairs of answers, each asked in both orders -> win rate, and that at equal length.

in   one row an answered question: value of the tuned model's answer in either order, and its surplus of tokens
out  a dictionary for metrics.json

A verdict is worth 1 for the tuned model, 0.5 for a tie, 0 for the start model; a question is worth the mean of its two
orders, so that a judge who always names the first answer gives every question one half. The rate at equal length is
AlpacaEval 2's idea (Dubois et al. 2024, length_control.py): regressed on the length gap, read off at gap 0.
"""

import re
from typing import Any, Final

import numpy as np
import polars as pl

from tasks.evaluation.length_control import length_controlled
from tasks.evaluation.statistics import bootstrap, mean

# Which of the two answers stands first.
ORDERS: Final = ("start_first", "tuned_first")
VERDICTS_SCHEMA: Final = pl.Schema(
    {
        "pair_id": pl.String,
        "order": pl.String,
        "verdict": pl.String,  # tuned, start or tie; null where the reply was none
        "reply": pl.String,
    }
)
WORTH: Final = {"tuned": 1.0, "tie": 0.5, "start": 0.0}

_MARK: Final = re.compile(r"\[\[\s*(A|B|TIE)\s*\]\]")


def read_verdict(reply: str, order: str) -> str | None:
    """Who wins by `reply`: the one mark [[A]], [[B]] or [[TIE]] in it. None where it has none, or different ones."""
    marks = set(_MARK.findall(reply))
    if len(marks) != 1:
        return None
    mark = marks.pop()
    if mark == "TIE":
        return "tie"
    return "start" if (mark == "A") == (order == "start_first") else "tuned"


def no_verdicts(reason: str) -> dict[str, Any]:
    """What is said where there was nothing to judge."""
    return {"reason": reason, "questions": 0, "judged": 0, "win_rate": None, "warnings": []}


def verdict_measures(verdicts: pl.DataFrame, gaps: dict[str, int], *, times: int, seed: int) -> dict[str, Any]:
    """Rates of the tuned model over the questions that were judged in both orders.

    `gaps` is the surplus of tokens of the tuned model's answer by `pair_id`, for every question asked.

    wins + losses + ties + inconsistent = judged; judged + unread = questions. A question is a win when no order has
    it lost and one has it won, and inconsistent when one order has it won and the other lost.
    """
    worth = {name: verdicts.filter(order=name).select("pair_id", "verdict").rows() for name in ORDERS}
    first, second = (dict(rows) for rows in worth.values())
    keys = list(gaps)
    judged = [key for key in keys if first.get(key) is not None and second.get(key) is not None]
    if not judged:
        return no_verdicts(f"none of the judge's replies on {len(keys)} questions can be read") | {
            "questions": len(keys), "unread": len(keys)
        }  # fmt: skip
    pairs = [(WORTH[first[key]], WORTH[second[key]]) for key in judged]
    values = np.array([sum(pair) / 2 for pair in pairs])
    gap = np.array([gaps[key] for key in judged], dtype=np.float64)
    units = np.arange(len(judged), dtype=np.int64)
    rate = bootstrap({"rate": mean(values)}, units, times=times, seed=seed)["rate"]
    against = sum({0.0, 1.0} == set(pair) for pair in pairs)
    tied = sum(pair == (0.5, 0.5) for pair in pairs)
    wins = sum(sum(pair) > 1 for pair in pairs)
    made: dict[str, Any] = {
        "reason": None,
        "questions": len(keys),
        "judged": len(judged),
        "unread": len(keys) - len(judged),
        "wins": wins,
        "losses": len(judged) - wins - tied - against,
        "ties": tied,
        "inconsistent": against,
        "first_named": _first_named(verdicts.filter(pl.col("pair_id").is_in(judged))),
        "win_rate": rate.value,
        "win_rate_low": rate.low,
        "win_rate_high": rate.high,
        "tuned_longer": float((gap > 0).mean()),
    }
    controlled = length_controlled(values, gap, units, times=times, seed=seed)
    made |= {
        "length_controlled_win_rate": controlled.accuracy.value,
        "length_controlled_win_rate_low": controlled.accuracy.low,
        "length_controlled_win_rate_high": controlled.accuracy.high,
        "length_slope": controlled.slope,
        "length_reason": controlled.reason,
    }
    return made | {"warnings": warnings(made)}


def _first_named(verdicts: pl.DataFrame) -> float | None:
    """How often the answer that stands first wins where one does; one half for a judge without a habit."""
    decided = verdicts.filter(pl.col("verdict") != "tie")
    if decided.height == 0:
        return None
    first = (pl.col("order") == "start_first") == (pl.col("verdict") == "start")
    return float(decided.select(first.mean()).item())


def warnings(made: dict[str, Any]) -> list[str]:
    """What should make a reader doubt the judge, in sentences."""
    said = []
    if made["inconsistent"] > made["judged"] / 3:
        said.append("In more than a third of the questions the judge prefers the answer by its place.")
    if made["unread"] > made["questions"] / 10:
        said.append("More than a tenth of the questions have a reply that names no winner.")
    controlled = made["length_controlled_win_rate"]
    if controlled is not None and abs(controlled - made["win_rate"]) > 0.1:
        said.append("With length held equal the win rate moves by more than 10 points.")
    return said
