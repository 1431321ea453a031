"""docs/benchmarks.md, a section a benchmark: each command writes its own, between markers, and no other."""

import re
from pathlib import Path
from typing import Any

from tasks.provenance import provenance

TITLE = "# Benchmarks\n\nWritten by the commands that measured: edit those, not this.\n"


def write_section(path: Path, name: str, heading: str, body: str) -> None:
    """Put the section `name` into the file at `path`: in its old place, or at the end."""
    section = f"<!-- {name} -->\n\n## {heading}\n\n{body.strip()}\n\n<!-- /{name} -->"
    text = path.read_text(encoding="utf-8") if path.exists() else TITLE
    old = re.compile(rf"<!-- {re.escape(name)} -->.*?<!-- /{re.escape(name)} -->", re.DOTALL)
    if old.search(text):
        text = old.sub(lambda _: section, text, count=1)
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def where_measured(device: str | None = None) -> str:
    """Commit and kind of machine, as a sentence."""
    found: dict[str, Any] = provenance()
    machine = found["machine"]
    on = device or f"{machine['processor']}, {machine['cores']} cores"
    return f"Commit {found['commit'] or 'unknown'}, {on}, torch {found['libraries']['torch']}."
