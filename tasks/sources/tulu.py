"""The form of allenai/tulu-2.5-preference-data: two lists of messages a row, and nothing of where they come from.

in   chosen, rejected: [{role: user, content}, {role: assistant, content}]
out  the fields of a pair: prompt, chosen, rejected

The split `stack_exchange_60k` of it is the set that the published model was trained on.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from tasks.sources.messages import texts_of
from tasks.sources.pair_rows import Rejected

TEXTS: Final = ("chosen", "rejected")
COLUMNS: Final = TEXTS


def tulu_row(row: Mapping[str, Any], site: str | None, _ignored: Counter[str]) -> dict[str, Any]:
    """The pair in a row; Rejected where there is none."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise Rejected("bad_type")
    return {**texts_of(None, chosen, rejected)._asdict(), "site": site}
