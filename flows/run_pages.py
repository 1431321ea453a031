"""Pictures and pages that a run leaves in its folder, for the links in its artifacts: no script, nothing foreign.

runs/NAME/lineage.svg      from the source's checksum to the digest of the weights
runs/NAME/gates/CHECK.html each expectation, what was seen, and the ids of some rows that fail
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from tasks.folders import write_text

# Columns of the picture: data flows from left to right.
_PLACES: Final = {
    "source": (0, 0), "pair": (1, 0), "dedupe": (2, 0), "sample": (3, 0), "model": (3, 1), "tokenize": (4, 0),
    "reference": (5, 0), "train": (6, 0), "evaluate": (7, 0),
}  # fmt: skip
_BOX: Final = (150, 74)
_STEP: Final = (190, 110)
_MARGIN: Final = 16
_STYLE: Final = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2733; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .45rem .6rem; vertical-align: top;
border-bottom: 1px solid #d8dee6; } th { border-bottom: 2px solid #8a97a8; } td { overflow-wrap: break-word; }
.yes { color: #1a7f4b; } .critical { color: #b3261e; font-weight: 600; } .warning { color: #9a6700; font-weight: 600; }
"""


def write_lineage(lineage: Mapping[str, Any], folder: Path) -> Path:
    """Draw `lineage.json` as `folder`/lineage.svg."""
    path = folder / "lineage.svg"
    write_text(path, lineage_svg(lineage))
    return path


def write_gate(name: str, subject: str, result: Mapping[str, Any], folder: Path) -> Path:
    """Write what a gate found as `folder`/gates/NAME.html."""
    path = folder / "gates" / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, gate_html(name, subject, result))
    return path


def lineage_svg(lineage: Mapping[str, Any]) -> str:
    """One box a stage with its fingerprint and what it counted last, and an arrow for each thing it was made of."""
    nodes = [_node("source", source, row) for row, source in enumerate(lineage["sources"])]
    nodes += [_node(stage, entry, 0) for stage, entry in lineage["stages"].items() if stage in _PLACES]
    places = {fingerprint: place for fingerprint, place, _ in nodes}
    entries = [*lineage["sources"], *lineage["stages"].values()]
    arrows = []
    for entry in entries:
        for made_of in entry["inputs"].values():
            if made_of["fingerprint"] in places and entry["fingerprint"] in places:
                arrows.append(_arrow(places[made_of["fingerprint"]], places[entry["fingerprint"]]))
    width = _MARGIN * 2 + max(x for _, (x, _), _ in nodes) * _STEP[0] + _BOX[0]
    height = _MARGIN * 2 + max(y for _, (_, y), _ in nodes) * _STEP[1] + _BOX[1] + 28
    weights = escape(str(lineage["weights"]["digest"])[:16])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="#ffffff"/>\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#5b6b7f"/></marker></defs>\n'
        + "\n".join([*arrows, *(box for _, _, box in nodes)])
        + f'\n<text x="{_MARGIN}" y="{height - 12}" fill="#1c2733">{escape(str(lineage["name"]))}: '
        f"weights {weights}…</text>\n</svg>\n"
    )


def _node(stage: str, entry: Mapping[str, Any], row: int) -> tuple[str, tuple[int, int], str]:
    column, line = _PLACES[stage]
    place = (column, line + row)
    x, y = _corner(place)
    title = _source_name(entry) if stage == "source" else stage
    shown = [(name, count) for name, count in entry["counts"].items() if "." not in name][:2]
    texts = [
        f'<text x="{x + 10}" y="{y + 20}" font-weight="600" fill="#1c2733">{escape(_short(title, 18))}</text>',
        f'<text x="{x + 10}" y="{y + 36}" fill="#5b6b7f" font-family="monospace">{escape(entry["fingerprint"])}</text>',
    ]
    for position, (name, count) in enumerate(shown):
        said = escape(_short(f"{count:,} {name.replace('_', ' ')}"))
        texts.append(f'<text x="{x + 10}" y="{y + 52 + 14 * position}" fill="#1c2733">{said}</text>')
    box = (
        f'<rect x="{x}" y="{y}" width="{_BOX[0]}" height="{_BOX[1]}" rx="7" fill="#f3f6fa" stroke="#8a97a8"/>'
        + "".join(texts)
    )
    return str(entry["fingerprint"]), place, box


def _source_name(entry: Mapping[str, Any]) -> str:
    facts = entry.get("source") or {}
    return str(facts.get("file") or entry["config"].get("site") or facts.get("path") or "source")


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return _MARGIN + place[0] * _STEP[0], _MARGIN + place[1] * _STEP[1]


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """From the right side of one box to the left of another; past the boxes between them, below or above."""
    (x1, y1), (x2, y2) = _corner(start), _corner(end)
    x1, y1, y2 = x1 + _BOX[0], y1 + _BOX[1] // 2, y2 + _BOX[1] // 2
    if end[0] - start[0] <= 1:
        path = f"M{x1} {y1} C{x1 + 20} {y1} {x2 - 20} {y2} {x2 - 2} {y2}"
    else:
        dip = max(y1, y2) + _BOX[1] // 2 + 14
        down = f"M{x1} {y1} C{x1 + 18} {y1} {x1 + 10} {dip} {x1 + 40} {dip}"
        path = f"{down} L{x2 - 40} {dip} C{x2 - 10} {dip} {x2 - 24} {y2} {x2 - 2} {y2}"
    return f'<path d="{path}" fill="none" stroke="#5b6b7f" stroke-opacity="0.75" marker-end="url(#tip)"/>'


def _short(text: str, limit: int = 22) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def gate_html(name: str, subject: str, result: Mapping[str, Any]) -> str:
    """What a gate found, as a page of its own."""
    expectations: Sequence[Mapping[str, Any]] = result["expectations"]
    failed = [entry for entry in expectations if not entry["success"]]
    verdict = "every expectation holds" if not failed else f"{len(failed)} of {len(expectations)} expectations fail"
    rows = "\n".join(_gate_row(entry) for entry in expectations)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>gate {escape(name)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>Gate {escape(name)}</h1>\n"
        f"<p>{escape(subject)}: {result['rows']:,} {'row' if result['rows'] == 1 else 'rows'}; {escape(verdict)}.</p>\n"
        "<table><thead><tr><th>holds</th><th>expectation</th><th>column</th><th>asked</th><th>seen</th>"
        f"<th>some rows</th><th>why</th></tr></thead><tbody>\n{rows}\n</tbody></table>\n</html>\n"
    )


def _gate_row(entry: Mapping[str, Any]) -> str:
    waived = entry.get("waived")
    kind = "yes" if entry["success"] else "warning" if waived else str(entry["severity"])
    asked = ", ".join(f"{key} = {value}" for key, value in entry["arguments"].items() if not key.startswith("column"))
    cells = [
        "yes" if entry["success"] else f"no (waived: {waived})" if waived else f"no ({entry['severity']})",
        str(entry["expectation"]).removeprefix("expect_").replace("_", " "),
        str(entry.get("column") or ""), asked, str(entry.get("seen", "")),
        ", ".join(str(example) for example in entry.get("examples", [])[:20]), str(entry.get("notes") or ""),
    ]  # fmt: skip
    first, *others = (escape(cell) for cell in cells)
    return f'<tr><td class="{escape(kind)}">{first}</td>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"
