"""The model index of a card: results as hubs read them.

in   Story (tasks/reports/story.py)
out  the `results` of the card's metadata: numbers and names, to be dumped as YAML
"""

import re
from collections.abc import Mapping
from typing import Any

from tasks.reports.story import Story


def index_results(story: Story) -> list[dict[str, Any]]:
    """One entry a data set: the held-out pairs, and what else the model was asked."""
    return [_held_out(story), *_further(story)]


def _held_out(story: Story) -> dict[str, Any]:
    found = story.metrics
    named = {
        "accuracy": "Accuracy of the implicit reward, held-out pairs",
        "length_controlled_accuracy": "The same at equal length of both answers",
        "length_baseline_accuracy": "Baseline: always the longer answer",
        "margin": "Mean margin",
        "loss": "Mean DPO loss",
    }
    return {
        "task": {"type": "preference-ranking", "name": "Preference between two answers"},
        "dataset": {
            "type": "stack-exchange-pairs",
            "name": f"Stack Exchange, {found['pairs']} held-out pairs of {found['questions']} questions",
            "split": "held_out",
        },
        "metrics": [
            {"type": kind, "name": label, "value": round(found[kind], 6), **_ends(found, kind)}
            for kind, label in named.items()
            if found[kind] is not None
        ],
    }


def _ends(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The 95 % interval of a metric, as its `args`: the one place that the form has for it."""
    line = found["baselines"]["longer"] if kind == "length_baseline_accuracy" else found
    name = "" if kind == "length_baseline_accuracy" else f"{kind}_"
    low, high = line[f"{name}low"], line[f"{name}high"]
    return {} if low is None else {"args": {"level": 0.95, "low": round(low, 6), "high": round(high, 6)}}


def _further(story: Story) -> list[dict[str, Any]]:
    """Benchmarks and a judge's verdict as a hub reads them."""
    judged = story.metrics.get("judge", {})
    found = []
    if judged.get("win_rate") is not None:
        rates = (("win_rate", "win rate"), ("length_controlled_win_rate", "win rate at equal length"))
        found.append(
            _entry(
                "Held-out questions",
                [
                    {"type": kind, "name": f"{label} over the start model, judged by {judged['model']}",
                     "value": round(judged[kind], 6)}
                    for kind, label in rates
                    if judged[kind] is not None
                ],
            )
        )  # fmt: skip
    for one in story.metrics.get("benchmarks", []):
        metric = one["metric"].partition(",")[0]
        name = f"{metric}, {one['shots']} shots, lm-eval task {one['task']}"
        if one.get("by", "lm-eval") != "lm-eval":
            name = f"{metric}, by {one['by']}: {one['note']}"
        found.append(_entry(one["name"], [{"type": metric, "name": name, "value": round(one["after"], 6)}]))
    return found


def _entry(name: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation", "name": "Text generation"},
        "dataset": {"type": re.sub(r"[^a-z0-9]+", "-", name.lower()), "name": name},
        "metrics": metrics,
    }
