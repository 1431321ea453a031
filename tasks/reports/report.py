"""The report: one HTML file that shows a whole run, readable on a phone and without a network.

in   Story (tasks/reports/story.py), the plots as files
out  text of report.html: pictures embedded, nothing fetched (a policy in the file forbids it), no script
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.evaluation.rewards import FORMULAS
from tasks.evaluation.verdict import findings, waived, waived_checks
from tasks.publication.data_card import SHARES
from tasks.reports.data_summary import QUANTILES
from tasks.reports.escaping import as_html, one_line
from tasks.reports.figures import (
    NOTHING,
    OF_ONE_LOSS,
    accuracy_table,
    further_numbers,
    interval,
    number,
    percent,
    setting,
    words,
)
from tasks.reports.further_tables import further_tables
from tasks.reports.report_examples import shown_answers, shown_examples
from tasks.reports.story import Source, Story

# Pictures, in order, by section. What was not drawn is left out.
RESULTS: Final = (
    "accuracy", "margins", "by_length_gap", "by_score_gap", "calibration", "drift", "by_site", "by_year", "by_rank_gap",
    "by_truncation", "by_code", "by_posted",
)  # fmt: skip
TRAINING: Final = ("training_loss", "training_accuracy")
DATA: Final = ("lengths", "score_gaps", "years", "sites")


def report(story: Story, plots: Sequence[Path]) -> str:
    """The whole report.html; `plots` are PNG files."""
    pictures = {path.stem: path for path in plots}
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    sections = [
        ("results", "Results", _results(story, pictures)),
        *_further(story),
        ("training", "Training", _training(story, pictures)),
        ("data", "Data", _data(story) + _figures(pictures, DATA)),
        ("examples", "Examples", shown_examples(story.examples)),
        ("licences", "Licences", _licences(story)),
        ("lineage", "Lineage", _lineage(story)),
    ]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    body = "".join(f'<section id="{anchor}"><h2>{title}</h2>{text}</section>\n' for anchor, title, text in sections)
    name = as_html(one_line(story.name))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f'<meta name="referrer" content="no-referrer">\n<title>{name}</title>\n<style>\n{css}</style>\n</head>\n'
        "<body>\n"
        f"<header><h1>{name}</h1><p>{_lead(story)}</p><nav>{links}</nav></header>\n"
        f"<main>\n{_tiles(story)}{body}</main>\n"
        "<footer>Made by prefstack. Stack Exchange content is by its authors, under CC BY-SA.</footer>\n"
        "</body>\n</html>\n"
    )


def _lead(story: Story) -> str:
    pairs, questions = number(story.summary.pairs), number(story.summary.questions)
    return (
        f"<b>{as_html(story.base)}</b>, tuned with DPO on {pairs} pairs of answers to {questions} Stack Exchange "
        "questions. Of two answers to one question, the one that people voted up is chosen."
    )


def _tiles(story: Story) -> str:
    if not story.evaluated:
        return f'<p class="warn">Not evaluated: {as_html(str(story.metrics.get("reason")))}.</p>\n'
    found = story.metrics
    controlled = found["length_controlled_accuracy"]
    tiles = [
        ("main", percent(found["accuracy"]), f"held-out accuracy; 95 % interval "
         f"{interval(found['accuracy_low'], found['accuracy_high'])}"),
        ("rule", percent(found["length_baseline_accuracy"]), "accuracy of always picking the longer answer"),
        ("", percent(controlled), "accuracy at equal length of both answers"),
        ("", f"{found['margin']:.3f}", f"mean margin, {found['reward']}s times beta"),
        ("", f"{found['loss']:.3f}", "mean −log sigmoid(margin); 0.693 for a model that does not know"),
        ("", number(found["pairs"]), f"held-out pairs of {number(found['questions'])} questions"),
    ]  # fmt: skip
    shown = "".join(f'<div class="tile {kind}"><b>{value}</b><span>{what}</span></div>' for kind, value, what in tiles)
    return f'<div class="tiles">{shown}</div>\n'


def _results(story: Story, pictures: Mapping[str, Path]) -> str:
    waivers = [*filter(None, [waived(story.waiver)]), *waived_checks(story.recipe)]
    said = "".join(f'<p class="warn"><b>{as_html(waiver)}</b></p>' for waiver in waivers)
    if not story.evaluated:
        return said + "<p>There was no held-out pair to judge by.</p>"
    found = story.metrics
    said += "".join(f'<p class="warn">{as_html(note)}</p>' for note in [*findings(found), *found["warnings"]])
    said += (
        f'<p class="soft">A pair is right when its margin is above 0, that is {as_html(FORMULAS[found["reward"]])}; a '
        "tie is wrong. A rule that cannot tell counts one half. Intervals are drawn over questions, not pairs.</p>"
    )
    numbers = _table(("what decides", "accuracy", "95 % interval"), _escaped(accuracy_table(found)))
    numbers += _table(("further numbers", "value", "95 % interval or remark"), _escaped(further_numbers(found)))
    said += _figures(pictures, RESULTS[:1], "one") + _folded("All numbers", numbers)
    return said + _figures(pictures, RESULTS[1:])


def _further(story: Story) -> list[tuple[str, str, str]]:
    """A section for each evaluation beside that on held-out pairs."""
    sections = []
    for table in further_tables(story.metrics):
        said = "".join(f'<p class="warn">{as_html(warning)}</p>' for warning in table.warnings)
        said += f'<p class="soft">{as_html(table.remark)}</p>'
        for head, rows in table.parts:
            said += _table(head, _escaped(rows))
        if table.anchor == "generation":
            said += shown_answers(story.answers)
        sections.append((table.anchor, table.title, said))
    return sections


def _training(story: Story, pictures: Mapping[str, Path]) -> str:
    shown: list[tuple[str, str]] = [
        ("start model", as_html(story.base)),
        ("optimizer steps", number(story.training.height)),
    ]
    settings: Mapping[str, Any] = story.recipe.get("train", {})
    shown += [
        (f"<code>{as_html(key)}</code>", as_html(setting(value)))
        for key, value in settings.items()
        if OF_ONE_LOSS.get(key, settings.get("loss")) == settings.get("loss")
    ]
    length = story.recipe.get("tokenize", {}).get("max_length")
    shown += [("<code>max_length</code>", f"{setting(length)} tokens"),
              ("<code>seed</code>", as_html(setting(story.recipe.get("seed"))))]  # fmt: skip
    said = (
        f"<p>{number(story.training.height)} optimizer steps of {as_html(setting(settings.get('batch_size')))} pairs, "
        f"learning rate {as_html(setting(settings.get('learning_rate')))}, "
        f"beta {as_html(setting(settings.get('beta')))}.</p>"
    )
    return said + _figures(pictures, TRAINING) + _folded("All settings", _table(("setting", "value"), shown))


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>{text}</details>"


def _data(story: Story) -> str:
    summary = story.summary
    said = "<h3>From posts to pairs</h3>" + _funnel(story)
    said += "<h3>Sources</h3>" + _table(
        ("source", "counts", "checksum"), [_source(source) for source in story.sources], right=False
    )  # fmt: skip
    said += "<h3>Lengths</h3>" + _table(
        ("quantile", *(f"{level:.0%}" for level in QUANTILES)),
        [(as_html(name), *(number(value) for value in values)) for name, values in summary.lengths.items()],
    )
    habits = [(as_html(label), percent(summary.shares[name])) for name, label in SHARES.items()]
    return said + "<h3>Habits</h3>" + _table(("share of training pairs in which", "share"), habits)


def _funnel(story: Story) -> str:
    """Bars on one scale for posts and on another for pairs."""
    rows = []
    for step in story.steps:
        most = max(other.left for other in story.steps if (other.stage == "ingest") == (step.stage == "ingest"))
        width = 100 * step.left / most if most else 0
        lost = ", ".join(f"{as_html(words(reason))} {number(count)}" for reason, count in step.lost.items())
        rows.append(
            f'<li><div class="row"><span>{as_html(step.label)}</span><b>{number(step.left)}</b></div>'
            f'<div class="bar"><i style="width:{width:.2f}%"></i></div>'
            + (f'<div class="soft">left out: {lost}</div>' if lost else "")
            + "</li>"
        )
    return f'<ul class="funnel">{"".join(rows)}</ul>'


def _source(source: Source) -> tuple[str, str, str]:
    counts = ", ".join(f"{number(n)} {as_html(name)}" for name, n in source.counts.items() if "." not in name and n)
    digest = source.facts.get("sha256") or source.facts.get("digest") or source.facts.get("revision")
    return as_html(source.name), counts or NOTHING, f"<code>{as_html(str(digest))}</code>" if digest else NOTHING


def _licences(story: Story) -> str:
    rows = [(as_html(name), basis, number(posts)) for name, basis, posts in story.summary.licenses]
    base = "states no licence" if story.base_license is None else f"states {as_html(story.base_license)}"
    return (
        f"<p>The weights are under <b>{as_html(story.license)}</b>, within the terms of the start model, "
        f"{as_html(story.base)}, whose card {base}. The training "
        "text is user content of the Stack Exchange network under CC BY-SA; <code>attribution.csv</code> beside this "
        f"report names all {number(story.posts.height)} posts with author, link and licence.</p>"
        + _table(("licence", "how known", "posts"), rows)
    )


def _lineage(story: Story) -> str:
    named = {facts["fingerprint"]: stage for stage, facts in story.lineage["stages"].items()}
    sources = {source.fingerprint: source.name for source in story.sources}
    rows = []
    for stage, facts in story.lineage["stages"].items():
        made_of = []
        for key, record in facts["inputs"].items():
            known = named.get(record["fingerprint"]) or sources.get(record["fingerprint"])
            made_of.append(known or f"{key} {record['fingerprint'][:16]}")
        rows.append((
            as_html(stage), f"<code>{facts['fingerprint']}</code>", as_html(", ".join(made_of)) or NOTHING,
            f"<code>{facts['content'][:16]}</code>",
        ))  # fmt: skip
    weights = story.lineage["weights"]["digest"]
    return (
        f"<p>Digest of the weights' files: <code>{weights}</code>. <code>lineage.json</code> has the settings and "
        "counts of every stage.</p>" + _table(("stage", "fingerprint", "made of", "content"), rows, right=False)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = True) -> str:
    """A table of HTML cells, every column but the first set to the right if `right`.

    On a phone a row of more than three columns, or of long texts, is shown as its first cell with the others below it.
    """
    kinds = [' class="n"' if right and column else "" for column in range(len(head))]
    top = "".join(f"<th{kind}>{cell}</th>" for kind, cell in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    many = f' class="many" style="--others:{len(head) - 1}"' if len(head) > 3 or not right else ""
    return f'<div class="wide"><table{many}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _escaped(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[as_html(cell) for cell in row] for row in rows]


def _figures(pictures: Mapping[str, Path], names: Sequence[str], columns: str = "two") -> str:
    figures = "".join(
        f'<figure><img alt="{as_html(name.replace("_", " "))}" src="data:image/png;base64,'
        f'{base64.b64encode(pictures[name].read_bytes()).decode()}"></figure>'
        for name in names
        if name in pictures
    )
    return f'<div class="figures {columns}">{figures}</div>' if figures else ""
