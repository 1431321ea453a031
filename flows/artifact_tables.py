"""Tables as artifacts: lists of records that JSON can hold, at most 1,000 rows, since the UI loads all of them."""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from prefect.artifacts import create_table_artifact

from flows.files import url_of
from tasks.manifest import Manifest

MAX_ROWS: Final = 1000
_ADDRESS: Final = re.compile(r"https?://[^\s<>\[\]()]+")
_MARKS: Final = re.compile(r"[<\[@]|:(?=//)|(?<=www)\.")  # tags, links, and addresses without either

Record = dict[str, Any]


def publish_table(key: str, rows: Sequence[Record], description: str, run_folder: Path) -> None:
    """A table, or the head of one: then all of it lies in the run's folder, and the description links it."""
    if len(rows) > MAX_ROWS:
        description += f" (the first {MAX_ROWS:,} of {len(rows):,} rows{_whole_table(key, rows, run_folder)})"
    shown = [{column: _literal(value) for column, value in clean(row).items()} for row in rows[:MAX_ROWS]]
    create_table_artifact(shown, key=key, description=description)


def _literal(value: Any) -> Any:
    """`value` so that it reads as it stands: the UI takes a cell for Markdown, and would fetch what a row names.

    An address that is all of a cell may be a link; one among other words would take their signs for its own.
    """
    if not isinstance(value, str) or _ADDRESS.fullmatch(value):
        return value
    return _MARKS.sub(r"\\\g<0>", value)


def _whole_table(key: str, rows: Sequence[Record], run_folder: Path) -> str:
    """Write runs/NAME/tables/KEY.csv, and say where it opens."""
    path = run_folder / "tables" / f"{key}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(clean(row) for row in rows)
    url = url_of(path)
    return f"; [all of them]({url})" if url else f"; all of them: {path}"


def clean(value: Any) -> Any:
    """`value` as JSON can hold it: no NaN, no infinities, no dates, no numpy scalars."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    try:
        return clean(value.item())
    except (AttributeError, ValueError):
        return str(value)


def counts_table(manifest: Manifest) -> list[Record]:
    """One record a count, dropped rows with their share of what came in."""
    whole = max(manifest.counts.values(), default=0)
    return [
        {"count": name, "rows": count, "share": f"{count / whole:.1%}" if whole else ""}
        for name, count in manifest.counts.items()
    ] or [{"count": "none", "rows": 0, "share": ""}]


def metrics_table(metrics: Mapping[str, Any]) -> list[Record]:
    """The single numbers among the metrics."""
    return [
        {"metric": name, "value": round(value, 4) if isinstance(value, float) else value}
        for name, value in metrics.items()
        if isinstance(value, int | float | str | None) and not isinstance(value, bool)
    ]


def lineage_table(lineage: Mapping[str, Any]) -> list[Record]:
    """One record a stage: what it is called and what it was made of."""
    stages: Iterable[Any] = lineage.get("stages", [])
    if isinstance(stages, Mapping):
        stages = [{"stage": name, **entry} for name, entry in stages.items()]
    return [
        {
            "stage": entry.get("stage"),
            "fingerprint": entry.get("fingerprint"),
            "made of": ", ".join(sorted(entry.get("inputs", {}))),
            "content": str(entry.get("content", ""))[:16],
        }
        for entry in stages
    ]


def gate_table(result: Mapping[str, Any]) -> list[Record]:
    """One record an expectation, those that failed first: what it is about, how grave it is, and what was seen."""
    return [
        {
            "held": "yes" if entry["success"] else f"waived: {entry['waived']}" if "waived" in entry else "NO",
            "expectation": entry["expectation"],
            "column": entry.get("column") or "",
            "severity": entry["severity"],
            "seen": str(entry.get("seen", "")),
            "examples": ", ".join(str(example) for example in entry.get("examples", [])[:5]),
        }
        for entry in sorted(result["expectations"], key=lambda entry: bool(entry["success"]))
    ]
