"""A comparison for people: Markdown that is an artifact and, as HTML with its picture inside, a page of its own.

in   SideBySide (tasks/evaluation/side_by_side.py)
out  comparison.png, comparison.html (no script, nothing fetched), comparison.json in one folder
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tasks.evaluation.plots import BASE, FAINT, MODEL, Axes, percent_axis, save, title_over_labels
from tasks.evaluation.side_by_side import MISSING, SideBySide
from tasks.evaluation.statistics import Estimate
from tasks.folders import write_text
from tasks.reports.escaping import as_html, as_markdown
from tasks.reports.figures import NOTHING, interval, markdown_table, number, percent, setting

PAGE: Final = "comparison.html"
PICTURE: Final = "comparison.png"
ANSWER: Final = "comparison.json"

_SERIES: Final = (  # metric, label, colour, marker
    ("accuracy", "tuned model", MODEL, "o"),
    ("length_controlled_accuracy", "tuned model at equal length", "#56b4e9", "D"),
    ("length_baseline_accuracy", "always the longer answer", BASE, "s"),
)


_STYLE: Final = """\
blockquote { margin: 0 0 .6rem; border-left: 4px solid var(--bad); background: #fff6ef; padding: .1rem .8rem; }
td:not(:first-child) { white-space: nowrap; }
"""


def write_comparison(found: SideBySide, folder: Path) -> None:
    """PICTURE, PAGE and ANSWER into `folder`; the same bytes for the same comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(found, folder / PICTURE)
    write_text(folder / PAGE, page(found, folder / PICTURE))
    write_text(folder / ANSWER, json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n")


def markdown(found: SideBySide) -> str:
    """The tables and the notes."""
    parts = [f"> {as_markdown(note)}" for note in found.notes]
    parts.append("**Settings that differ**\n\n" + _settings(found))
    parts.append("**Each run on its own held-out pairs** (95 % intervals over questions)\n\n" + _results(found))
    if found.paired is not None:
        pairs, questions = number(found.paired.pairs), number(found.paired.questions)
        parts.append(
            f"**Paired, on the {pairs} held-out pairs of {questions} questions that all runs share**, against "
            f"{as_markdown(found.runs[0])}\n\n" + _paired(found)
        )
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _settings(found: SideBySide) -> str:
    if not found.differing:
        return "None: the runs differ in nothing that a recipe says."
    rows = [
        (f"`{key}`", *(_value(value) for value in values)) for key, values in found.differing.items()
    ]  # fmt: skip
    return markdown_table(("setting", *map(as_markdown, found.runs)), rows)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return as_markdown(", ".join(str(one.get("path", one)) if isinstance(one, Mapping) else str(one)
                                     for one in value)) or "none"  # fmt: skip
    return NOTHING if value == MISSING else as_markdown(setting(value))


def _results(found: SideBySide) -> str:
    def share(line: Mapping[str, Any], name: str) -> str:
        value = percent(line[name])
        return value if line[name] is None else f"{value} ({interval(line[f'{name}_low'], line[f'{name}_high'])})"

    rows = [
        (as_markdown(name), share(line, "accuracy"), share(line, "length_controlled_accuracy"),
         percent(line["length_baseline_accuracy"]), f"{line['margin']:.4f}", f"{line['loss']:.4f}",
         number(line["pairs"]))
        for name, line in zip(found.runs, found.headlines, strict=True)
    ]  # fmt: skip
    head = ("run", "accuracy", "at equal length", "always the longer", "margin", "loss", "pairs")
    return markdown_table(head, rows)


def _paired(found: SideBySide) -> str:
    assert found.paired is not None
    one_scale = len({(line["beta"], line["reward"]) for line in found.headlines}) == 1
    rows = [
        (as_markdown(one.name), _verdict(one.accuracy), _points(one.accuracy),
         _change(one.loss) if one_scale else NOTHING, f"{one.only_this} : {one.only_other}",
         f"{one.p:.3g}", f"{one.p_adjusted:.3g}")
        for one in found.paired.versus
    ]  # fmt: skip
    head = ("run", "verdict", "accuracy, points", "loss", "right alone : other alone", "McNemar's p", "adjusted (Holm)")
    return markdown_table(head, rows)


def _points(difference: Estimate) -> str:
    """A difference of shares as percentage points with its interval."""
    assert difference.value is not None
    ends = "" if difference.low is None else f" ({100 * difference.low:+.1f} to {100 * (difference.high or 0.0):+.1f})"
    return f"{100 * difference.value:+.1f}{ends}"


def _change(difference: Estimate) -> str:
    assert difference.value is not None
    ends = "" if difference.low is None else f" ({difference.low:+.4f} to {difference.high:+.4f})"
    return f"{difference.value:+.4f}{ends}"


def _verdict(difference: Estimate) -> str:
    """What the paired interval allows one to say, and no more."""
    if difference.low is None or difference.high is None:
        return "one question only: nothing can be said"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no difference shown"


def draw(found: SideBySide, path: Path) -> None:
    """Accuracy of each run with its interval, at equal length, and beside the rule that picks the longer answer."""
    save(path, lambda axes: _draw(axes, found), width=7.0, height=1.5 + 0.55 * len(found.runs))


def _draw(axes: Axes, found: SideBySide) -> None:
    places = np.arange(len(found.runs))[::-1]
    for row, (metric, label, colour, marker) in enumerate(_SERIES):
        shift = 0.2 * (1 - row)
        for position, (place, line) in enumerate(zip(places, found.headlines, strict=True)):
            value, low, high = (line[name] for name in (metric, f"{metric}_low", f"{metric}_high"))
            if value is None:
                continue
            if low is not None:
                axes.plot([low, high], [place + shift] * 2, color=colour, linewidth=2.2, alpha=0.55)
            axes.plot([value], [place + shift], marker, color=colour, markersize=5.5, label=None if position else label)
    axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_yticks(places, [name if len(name) <= 40 else f"…{name[-39:]}" for name in found.runs])
    axes.set_ylim(-0.6, len(found.runs) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    percent_axis(axes.xaxis)
    axes.figure.legend(loc="outside lower center", ncols=len(_SERIES))
    title_over_labels(axes, "Accuracy on held-out pairs (95 % intervals)")


def page(found: SideBySide, picture: Path) -> str:
    """The whole comparison.html."""
    from markdown_it import MarkdownIt  # comes with rich

    body: str = MarkdownIt("commonmark").enable("table").render(markdown(found))
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    name = as_html(_title(found.runs))
    image = base64.b64encode(picture.read_bytes()).decode()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{name}</title>\n<style>\n{css}{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{name}</h1></header>\n<main><section>\n"
        f'<div class="figures one"><figure><img alt="accuracy of each run" src="data:image/png;base64,{image}">'
        f"</figure></div>\n{body}</section></main>\n</body>\n</html>\n"
    )


def _title(runs: Sequence[str]) -> str:
    return " and ".join(runs) if len(runs) == 2 else f"{len(runs)} runs, {runs[0]} first"
