"""Anybody's pairs: prompt, chosen and rejected, as strings or as messages, and whatever else of a pair is known.

in   prompt (may be left out where the lists hold the user's message), chosen, rejected; columns of tasks/pairs.py
out  the fields of a pair

The texts are taken for Markdown and only stripped. A pair is named after its site and ids where all are there, else
after its content; a `pair_id` in the file is not taken over, so that a name always says what it names.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from tasks.sources.messages import texts_of
from tasks.sources.pair_rows import TOLD, told

TEXTS: Final = ("chosen", "rejected")
COLUMNS: Final = ("prompt", *TEXTS, *TOLD)


def jsonl_row(row: Mapping[str, Any], site: str | None, ignored: Counter[str]) -> dict[str, Any]:
    """The pair in a row; Rejected where there is none."""
    texts = texts_of(row.get("prompt"), row.get("chosen"), row.get("rejected"))
    return texts._asdict() | told(row, site, ignored)
