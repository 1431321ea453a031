"""What the gate on results found, in sentences for the card and the report, and the waivers where there are some."""

from collections.abc import Mapping
from typing import Any, Final

from data_checks.better import FEWEST_QUESTIONS, hurt_benchmarks, unmet
from tasks.reports.figures import percent

_TOO_FEW: Final = (
    "Too few to tell: it was judged on {} held-out questions. With fewer than "
    f"{FEWEST_QUESTIONS} the intervals below are too narrow, and what they show may be luck."
)
_SEEN: Final = {
    "over_start_low": (
        "Pair by pair, the lower end of what it is right beyond the start model is {} of the pairs: it is not shown to "
        "be right more often."
    ),
    "at_equal_length_low": (
        "At equal length of both answers the lower end of its interval is {}, and a coin gets 50 %: it may have "
        "learned nothing but length."
    ),
    "beyond_length_low": (
        "Pair by pair, the lower end of what it is right beyond always picking the longer answer is {} of the pairs: "
        "it is not shown to beat that rule."
    ),
    "start_gain_high": (
        "By log-probs alone it ranks the held-out pairs worse than the start model: the upper end of the change is {}."
    ),
}


def findings(metrics: Mapping[str, Any]) -> list[str]:
    """Why the tuned model is not shown to be better than its start; empty where it is, or was not evaluated."""
    said = [
        _TOO_FEW.format(int(value)) if demand.column == "questions" else _SEEN[demand.column].format(percent(value))
        for demand, value in unmet(metrics)
    ]
    return said + [f"It hurts a benchmark. {hurt}." for hurt in hurt_benchmarks(metrics)]


def waived(waiver: str | None) -> str | None:
    """The sentence about a waiver."""
    if waiver is None:
        return None
    return f"Published under a waiver of the demand to be better than the start model. {_reason(waiver)}"


def waived_checks(recipe: Mapping[str, Any]) -> list[str]:
    """A sentence for each check of a gate that the recipe waives (`gates.waive`)."""
    waive: Mapping[str, str] = recipe.get("gates", {}).get("waive", {})
    return [
        f"Made under a waiver of the check {name}: the data or the results may not meet it. {_reason(reason)}"
        for name, reason in waive.items()
    ]


def _reason(text: str) -> str:
    return f"Reason given: {text if text.endswith(('.', '!', '?')) else f'{text}.'}"
