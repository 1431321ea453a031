"""Figures as a reader wants them: percents with intervals, thousands, quantiles, tables of results."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tasks.evaluation.baselines import BASELINES

NOTHING: Final = "–"

# Settings of training that mean nothing under another loss than theirs.
OF_ONE_LOSS: Final = {"ld_alpha": "ld", "simpo_gamma": "simpo"}


def percent(value: float | None, digits: int = 1) -> str:
    """0.6651 as "66.5 %"."""
    return NOTHING if value is None else f"{100 * value:.{digits}f} %"


def interval(low: float | None, high: float | None) -> str:
    """The two ends as "64.5 to 68.5 %"."""
    return NOTHING if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def number(value: int | float | None) -> str:
    """Thousands set apart; fractions with four digits that mean something."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def words(count: str) -> str:
    """The name of a count as words: `dropped.same_text` as "same text"."""
    return (count.partition(".")[2] or count).replace("_", " ")


def setting(value: Any) -> str:
    """A recipe's value in the form of the original's card: 5e-07, (0.9, 0.999), null as "none"."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(setting(one) for one in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def accuracy_table(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is compared, its accuracy, its interval; one row a line of the first plot, in its order."""
    return [
        (label, percent(line["accuracy"]), interval(line["low"], line["high"])) for label, line, _ in compared(found)
    ]


def compared(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """Label, {accuracy, low, high} and kind (model, start, rule) of all that has an accuracy on the held-out pairs."""

    def headline(name: str) -> dict[str, Any]:
        return {"accuracy": found[name], "low": found[f"{name}_low"], "high": found[f"{name}_high"]}

    lines = [
        ("tuned model", headline("accuracy"), "model"),
        ("tuned model at equal length", headline("length_controlled_accuracy"), "model"),
        ("log-prob alone, after training", found["policy_only"]["after"], "model"),
        ("log-prob alone, before training", found["policy_only"]["before"], "start"),
        *((label, found["baselines"][name], "rule") for name, label in BASELINES.items()),
        ("coin toss", found["baselines"]["random"], "rule"),
    ]
    return [line for line in lines if line[1].get("accuracy") is not None]


def further_numbers(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The other numbers that a sceptic asks for: what, how much, and the interval or a remark."""
    length, drift, calibration = found["length"], found["drift"], found["calibration"]
    gain = found["policy_only"]["gain"]

    def share(what: str, line: Mapping[str, Any], key: str = "accuracy") -> tuple[str, str, str]:
        return what, percent(line[key]), interval(line["low"], line["high"])

    def change(what: str, line: Mapping[str, Any], key: str = "change") -> tuple[str, str, str]:
        ends = NOTHING if line["low"] is None else f"{line['low']:.4f} to {line['high']:.4f}"
        return what, f"{line[key]:.4f}", ends

    margin_ends = NOTHING if found["margin_low"] is None else f"{found['margin_low']:.4f} to {found['margin_high']:.4f}"
    loss_ends = NOTHING if found["loss_low"] is None else f"{found['loss_low']:.4f} to {found['loss_high']:.4f}"
    return [
        ("mean margin", f"{found['margin']:.4f}", margin_ends),
        ("mean −log sigmoid(margin); 0.6931 = does not know", f"{found['loss']:.4f}", loss_ends),
        share("right where the chosen answer is shorter", length["where_chosen_shorter"]),
        share("right where the chosen answer is longer", length["where_chosen_longer"]),
        ("pairs whose chosen answer is longer", percent(length["chosen_longer"]), "tokens, after truncation"),
        share("right by margin a token", found["per_token"]["margin"]),
        ("gain of the log-prob alone over the start", percent(gain["difference"]), interval(gain["low"], gain["high"])),
        ("McNemar's p of that gain", f"{found['policy_only']['mcnemar_p']:.3g}", "takes pairs for independent"),
        ("ties", number(found["ties"]), "counted as wrong"),
        ("Brier score", f"{calibration['brier']:.4f}", "0.25 = does not know"),
        ("expected calibration error", percent(calibration["expected_calibration_error"]), "ten bins"),
        change("change of chosen log-prob, nats a token", drift["chosen_logps_per_token"]),
        change("change of rejected log-prob, nats a token", drift["rejected_logps_per_token"]),
        change("KL proxy on both answers, nats a token", drift["kl_proxy_per_token"], "kl"),
        share("chosen answers that became less likely", drift["chosen_fell"], "share"),
        ("mean accuracy over sites", percent(found["sites"]["macro_accuracy"]), "each site counted alike"),
    ]


def markdown_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, numbers: bool = True) -> str:
    """A Markdown table; the cells must be Markdown already. With `numbers` all columns but the first are set right."""
    rule = "|---|" + ("---:|" if numbers else "---|") * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
