"""Whether tuning made the model better than its start: the numbers that are asked, and what each must be.

in   metrics.json of `evaluate`, as a dictionary
out  one number a demand, null where the evaluation does not know it

Under a log-ratio the start model ties everywhere: it knows nothing, and as a guess it is a coin. So it is not enough to
be right more often than the start; and since the chosen answer is mostly the longer one, the model must beat a coin *at
equal length*, and the rule that counts tokens, pair by pair. Lower ends of 95 % intervals, never the values alone: with
few pairs a good value is luck, and with few questions so are its ends (FEWEST_QUESTIONS). What the model finds likely
without its reference must not have become worse, nor any benchmark.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import polars as pl


class Demand(NamedTuple):
    """One number and its bound."""

    column: str
    above: float | None
    """The number must be greater than this; None: `at_least` says it."""
    at_least: float | None
    note: str
    """What is wrong where it is not."""


FEWEST_QUESTIONS: Final = 20
"""Held-out questions below which nothing is shown, however right the model is. A percentile interval takes the
questions drawn for all there are: with few of them it is too narrow (7 questions of which a coin gets 6 right, as it
does in 5 % of cases, have a lower end of 0.57). Ours, and no key of a recipe: a reason in `gates.waive` lets fewer
pass."""

DEMANDS: Final = (
    Demand(
        "questions", None, FEWEST_QUESTIONS,
        f"Too few to tell: with fewer than {FEWEST_QUESTIONS} held-out questions intervals are too narrow.",
    ),
    Demand("over_start_low", 0.0, None, "Pair by pair it may be right no more often than the start model."),
    Demand("at_equal_length_low", 0.5, None, "At equal length of both answers it may be no better than a coin."),
    Demand("beyond_length_low", 0.0, None, "Pair by pair it may be no better than always picking the longer answer."),
    Demand("start_gain_high", None, 0.0, "By log-probs alone it ranks the held-out pairs worse than the start model."),
)  # fmt: skip

BENCHMARKS: Final = "It hurts benchmarks: the paired 95 % interval lies on the wrong side of 0."
UNKNOWN: Final = "Without these numbers nothing shows that it is better than the start model."

SCHEMA: Final = pl.Schema(
    {demand.column: pl.Float64 for demand in DEMANDS} | {"hurt_benchmarks": pl.Int64, "unknown": pl.Int64}
)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float | int | None]:
    """The row of SCHEMA for `metrics`."""
    found: dict[str, float | int | None] = {
        "questions": _get(metrics, "questions") or None,  # none held out: not known, as all the rest
        "over_start_low": _get(metrics, "over_start", "low"),
        "at_equal_length_low": _at_equal_length(metrics),
        "beyond_length_low": _get(metrics, "baselines", "longer", "model_beyond", "low"),
        "start_gain_high": _get(metrics, "policy_only", "gain", "high"),
    }
    unknown = sum(value is None for value in found.values())
    return found | {"hurt_benchmarks": len(hurt_benchmarks(metrics)), "unknown": unknown}


def unmet(metrics: Mapping[str, Any]) -> list[tuple[Demand, float]]:
    """The demands that `metrics` do not meet, each with what was seen; unknown numbers are not among them."""
    found = numbers(metrics)
    return [
        (demand, value)
        for demand in DEMANDS
        if (value := found[demand.column]) is not None
        and not (value > demand.above if demand.above is not None else value >= (demand.at_least or 0.0))
    ]


def unknown(metrics: Mapping[str, Any]) -> list[str]:
    """The demands whose number the evaluation does not know."""
    found = numbers(metrics)
    return [demand.column for demand in DEMANDS if found[demand.column] is None]


def hurt_benchmarks(metrics: Mapping[str, Any]) -> list[str]:
    """`TASK METRIC: BEFORE to AFTER (LOW to HIGH)` of each entry of `benchmarks` that tuning made worse.

    An entry has `task, metric, before, after, difference, low, high`; `low` and `high` are the paired 95 % interval of
    `difference` = after - before. With `higher_is_better: false` a rise is what hurts.
    """
    found = []
    for entry in metrics.get("benchmarks") or []:
        low, high = entry.get("low"), entry.get("high")
        if low is None or high is None:
            continue
        if high < 0 if entry.get("higher_is_better", True) else low > 0:
            found.append(
                f"{entry['task']} {entry['metric']}: {entry['before']:.4g} to {entry['after']:.4g} "
                f"({low:+.4f} to {high:+.4f})"
            )
    return found


def _at_equal_length(metrics: Mapping[str, Any]) -> float | None:
    """The lower end of the length-controlled accuracy; where all pairs are right (or wrong), that of the accuracy."""
    low: float | None = metrics.get("length_controlled_accuracy_low")
    if low is None and metrics.get("accuracy") in (0.0, 1.0):
        low = metrics.get("accuracy_low")
    return low


def _get(metrics: Mapping[str, Any], *path: str) -> float | None:
    here: Any = metrics
    for step in path:
        here = here.get(step) if isinstance(here, Mapping) else None
    return None if here is None else float(here)
