"""What HuggingFaceH4/stack-exchange-preferences, and lvwerra/stack-exchange-paired after it, tell of a question.

in   qid, date, metadata = [question url, site url, url of the asker]
out  site, question_id, question_author_id, created

Host names are written as `Stackoverflow.com`; numbers of questions are unique only within a site. The date has no time
of day: `created` is its midnight in UTC.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tasks.pairs import is_host
from tasks.sources.pair_rows import Rejected

COLUMNS: Final = ("qid", "date", "metadata")

_URL: Final = re.compile(r"\s*https?://(?:[^/?#@\s]*@)?([^/?#@:\s]+)(?::[0-9]*)?(/[^?#\s]*)?", re.IGNORECASE)
_QUESTION: Final = re.compile(r"/questions?/([0-9]{1,18})(?:/|$)")
_USER: Final = re.compile(r"/users/(-?[0-9]{1,18})(?:/|$)")
_DATE: Final = re.compile(r"([0-9]{4})[/-]([0-9]{1,2})[/-]([0-9]{1,2})(?![0-9])")


class QuestionFacts(NamedTuple):
    """None where the row does not tell."""

    site: str | None
    question_id: int | None
    author_id: int | None
    created: datetime | None


def question_facts(row: Mapping[str, Any], site: str | None) -> QuestionFacts:
    """The facts of a row; `site` stands in where the row names none. No ids without a site.

    Rejected (bad_id) where `qid` and the question's address name two questions.
    """
    given = row.get("metadata")
    urls = [_URL.match(url) for url in given if isinstance(url, str)] if isinstance(given, list) else []
    places = [(host, url[2] or "") for url in urls if url and (host := _site(url[1]))]
    paths = [path for _, path in places]
    known = next((host for host, _ in places), site)
    named = next((int(found[1]) for path in paths if (found := _QUESTION.search(path))), None)
    qid = row.get("qid")
    if isinstance(qid, bool) or not isinstance(qid, int):
        qid = None
    elif not 0 < qid < 2**63:
        raise Rejected("bad_id")
    if None not in (qid, named) and qid != named:
        raise Rejected("bad_id")
    asker = next((int(found[1]) for path in paths if (found := _USER.search(path))), None)
    question = named if qid is None else qid
    return QuestionFacts(known, question if known else None, asker if known else None, _created(row.get("date")))


@lru_cache(maxsize=4096)
def _site(host: str) -> str | None:
    """The host in lower case, as one text for all rows; None where it is no host name."""
    return host.lower() if is_host(host) else None


def _created(date: object) -> datetime | None:
    if isinstance(date, datetime):
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    found = _DATE.match(date.strip()) if isinstance(date, str) else None
    if found is None:
        return None
    try:
        return datetime(*(int(part) for part in found.groups()), tzinfo=UTC)  # type: ignore[arg-type, misc]
    except ValueError:
        return None
