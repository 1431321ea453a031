"""Tables of the evaluations beside that on held-out pairs, for the report and the model card alike.

in   metrics.json
out  FurtherTable: plain text, to be escaped by whoever writes it down
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tasks.evaluation.answers import MEASURES
from tasks.reports.figures import NOTHING, interval, number, percent, words

Table = tuple[Sequence[str], list[tuple[str, ...]]]

_MODES: Final = {"greedy": "greedy answers", "sampled": "sampled answers"}


@dataclass(frozen=True)
class FurtherTable:
    """One evaluation."""

    anchor: str
    title: str
    remark: str
    """What was done, in a sentence or two; or why nothing was."""
    parts: list[Table] = field(default_factory=list)
    """Head and rows of each table."""
    warnings: list[str] = field(default_factory=list)


def further_tables(metrics: Mapping[str, Any]) -> list[FurtherTable]:
    """One an evaluation that the recipe asked for, in order."""
    makers = {"generation": _generation, "judge": _judge}
    made = [make(metrics[section]) for section, make in makers.items() if section in metrics]
    if "benchmarks" in metrics:
        made.append(_benchmarks(metrics["benchmarks"], metrics["benchmark_notes"]))
    return made


def _generation(found: Mapping[str, Any]) -> FurtherTable:
    title = "What it writes"
    if found["reason"] is not None:
        return FurtherTable("generation", title, f"Nothing was generated: {found['reason']}.")
    remark = (
        f"Start and tuned model answered the same {found['prompts']} held-out questions, greedily and sampled with the "
        "same chances. The interval is that of the difference, drawn over questions. This says how the answers look, "
        "not how good they are."
    )
    parts: list[Table] = [
        ((_MODES[mode], "start", "tuned", "difference", "95 % interval"), _measures(measures))
        for mode, measures in found["modes"].items()
    ]
    return FurtherTable("generation", title, remark, parts, found["warnings"])


def _measures(measures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, (label, share) in MEASURES.items():
        of = measures[name]
        rows.append(
            (label, *(shown(of[side]["value"], share) for side in ("start", "tuned", "difference")),
             span(of["difference"], share))
        )  # fmt: skip
    return [
        *rows,
        ("answers that are the same, letter by letter", NOTHING, NOTHING, percent(measures["same_text"]), ""),
    ]


def _judge(found: Mapping[str, Any]) -> FurtherTable:
    title = "What a judge prefers"
    if found["reason"] is not None:
        return FurtherTable("judge", title, f"Nothing was judged: {found['reason']}.", warnings=found["warnings"])
    remark = (
        f"{found['model']} compared the two models' answers to {number(found['questions'])} held-out questions, each "
        "in both orders. A tie counts one half, and so does a question whose orders disagree. At equal length: "
        "regressed on the difference in tokens and read off at 0."
    )
    rows: list[tuple[str, ...]] = [
        (label, percent(found[name]), interval(found[f"{name}_low"], found[f"{name}_high"]))
        for label, name in (
            ("win rate of the tuned model", "win_rate"),
            ("win rate at equal length", "length_controlled_win_rate"),
        )
    ]
    rows += [
        (words(name), number(found[name]), "questions")
        for name in ("wins", "losses", "ties", "inconsistent", "unread")
    ]  # fmt: skip
    rows += [
        ("the first answer is preferred", percent(found["first_named"]), "of the replies that prefer one"),
        ("the tuned model's answer is the longer", percent(found["tuned_longer"]), "of the questions"),
    ]
    head = ("judge", "value", "95 % interval or remark")
    return FurtherTable("judge", title, remark, [(head, rows)], found["warnings"])


def _benchmarks(entries: Sequence[Mapping[str, Any]], notes: Mapping[str, Any]) -> FurtherTable:
    tools = " and ".join(sorted({one.get("by", "lm-eval") for one in entries}, reverse=True))
    remark = (
        f"Both models were asked the same items by {tools}, in the Tulu form; the number after ± is the standard "
        "error. The interval is that of the difference."
    )
    rows: list[tuple[str, ...]] = [
        (one["name"] + ("" if one["as_published"] or one["category"] == "other" else " *")
         + f" ({one['metric']}, {one['shots']} shots, {number(one['items'])} items)",
         _with_error(one["before"], one["before_error"]), _with_error(one["after"], one["after_error"]),
         percent(one["difference"]), interval(one["low"], one["high"]))
        for one in entries
    ]  # fmt: skip
    told = [f"{one['name']}: {one['note']}" for one in entries if one["note"]]
    if any(not one["as_published"] and one["category"] != "other" for one in entries):
        remark += " *: not measured as in the paper."
    if told:
        remark += f" Notes: {'; '.join(told)}."
    parts: list[Table] = [
        (("benchmark", "start", "tuned", "difference", "95 % interval"), rows)
    ]  # fmt: skip
    if "published" in notes:
        columns = notes["published"]["columns"]
        parts.append((
            ("percent, as in the paper", *columns),
            [(name, *(NOTHING if row[one] is None else f"{row[one]:.1f}" for one in columns))
             for name, row in notes["published"]["rows"].items()],
        ))  # fmt: skip
    return FurtherTable("benchmarks", "Benchmarks", remark, parts, notes["warnings"])


def _with_error(value: float, error: float | None) -> str:
    return percent(value) if error is None else f"{100 * value:.1f} ± {100 * error:.1f} %"


def shown(value: float | None, share: bool) -> str:
    """A share as a percentage, anything else with one digit after the point."""
    if value is None:
        return NOTHING
    return percent(value) if share else f"{value:,.1f}"


def span(estimate: Mapping[str, float | None], share: bool) -> str:
    """The two ends of an interval."""
    low, high = estimate["low"], estimate["high"]
    if share:
        return interval(low, high)
    return NOTHING if low is None or high is None else f"{shown(low, False)} to {shown(high, False)}"
