"""What a row of a pair set must be before it is a pair, whatever the form of the set.

in   values as JSON or Parquet give them: anything
out  stripped texts and typed fields, or Rejected with the reason why the row is dropped

A row is dropped where a text is missing. What is only told about it (votes, dates, authors) is taken over where it is
of the right type, and otherwise left unknown and counted as ignored: nothing is made up.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from tasks.pairs import PAIR_SCHEMA, is_host
from tasks.sources.posts import MAX_BODY

REASONS: Final = (
    "malformed",  # a line or an element of an array that is no JSON object
    "too_long",  # a text longer than any post, or a line longer than any row
    "bad_type",  # a column that is missing, or no text (no list of messages) where there must be one
    "bad_character",  # NUL, or half of a surrogate pair
    "bad_id",  # the question's number and its address name two different questions
    "not_one_turn",  # messages other than one of the user's and one answer
    "unequal_prompts",  # chosen and rejected answer different questions
    "empty_prompt",
    "empty_chosen",
    "empty_rejected",
    "same_answer",  # chosen and rejected are the same post
    "not_preferred",  # ranks are told, and the chosen one's is not the higher
    "duplicate_id",  # another row has the same pair_id
)

# What is told about a pair beside its texts. `pair_id` is worked out and never taken over.
TOLD: Final = tuple(name for name in PAIR_SCHEMA if name not in ("pair_id", "prompt", "chosen", "rejected"))

_INT64: Final = range(-(2**63), 2**63)


class Rejected(Exception):
    """The row is dropped; `reason` is one of REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def side(value: object, name: str) -> str:
    """The text of `name` (prompt, chosen or rejected), stripped."""
    if not isinstance(value, str):
        raise Rejected("bad_type")
    stripped = value.strip()
    if not stripped:
        raise Rejected(f"empty_{name}")
    if len(stripped) > MAX_BODY:
        raise Rejected("too_long")
    if not storable(stripped):
        raise Rejected("bad_character")
    return stripped


def storable(text: str) -> bool:
    """Whether Parquet and every reader of it can hold the text: no NUL and no half of a surrogate pair."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def told(row: Mapping[str, Any], site: str | None, ignored: Counter[str]) -> dict[str, Any]:
    """The columns TOLD of a row that names them as tasks/pairs.py does; `site` where the row has none.

    Ids go only with a site, and answers' ids only all together; ranks only both.
    """
    found: dict[str, Any] = {}
    for name in TOLD:
        given = row.get(name)
        if given is not None:
            found[name] = _typed(given, PAIR_SCHEMA[name])
            if name == "site" and found[name] is not None:
                found[name] = found[name].lower() if is_host(found[name]) else None
            if found[name] is None:
                ignored[name] += 1
    if found.get("site") is None:
        found["site"] = site
    settle_ids(found, ignored)
    chosen, rejected = found.get("chosen_rank"), found.get("rejected_rank")
    if chosen is None or rejected is None:
        _forget(found, ("chosen_rank", "rejected_rank"), ignored)
    elif chosen <= rejected:
        raise Rejected("not_preferred")
    if found.get("chosen_accepted") and found.get("rejected_accepted"):
        _forget(found, ("chosen_accepted", "rejected_accepted"), ignored)  # a question accepts one answer
    return found


def settle_ids(found: dict[str, Any], ignored: Counter[str]) -> None:
    """Leave only ids that name posts: with a site, and answers' only where question and both answers are known."""
    question, chosen, rejected = (found.get(f"{post}_id") for post in ("question", "chosen", "rejected"))
    if found.get("site") is None:
        _forget(found, ("question_id", "chosen_id", "rejected_id"), ignored)
    elif None in (question, chosen, rejected):
        _forget(found, ("chosen_id", "rejected_id"), ignored)
    elif chosen == rejected:
        raise Rejected("same_answer")


def _forget(found: dict[str, Any], names: tuple[str, ...], ignored: Counter[str]) -> None:
    for name in names:
        if found.pop(name, None) is not None:
            ignored[name] += 1


def _typed(value: object, kind: pl.DataType) -> Any:
    """`value` if it is of `kind`, or a date that is written as text where a date is wanted; else None."""
    match value:
        case bool():
            return value if kind == pl.Boolean else None
        case int():
            return value if kind == pl.Int64 and value in _INT64 else None
        case str() if kind == pl.String:
            stripped = value.strip()
            return stripped if stripped and storable(stripped) else None
        case str() if isinstance(kind, pl.Datetime):
            return _moment(value)
        case datetime() if isinstance(kind, pl.Datetime):
            return _utc(value)
        case list() if isinstance(kind, pl.List):
            return value if all(isinstance(tag, str) and storable(tag) for tag in value) else None
    return None


def _moment(text: str) -> datetime | None:
    try:
        return _utc(datetime.fromisoformat(text.strip()))
    except ValueError:
        return None


def _utc(moment: datetime) -> datetime | None:
    """The instant in UTC; one without a zone is taken for UTC, as the dumps write it."""
    try:
        known = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return None
    return known if 1970 <= known.year <= 9999 else None
