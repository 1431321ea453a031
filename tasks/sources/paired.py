"""The form of lvwerra/stack-exchange-paired: one row a pair, Markdown, of the answers nothing but their texts.

in   question, response_j (preferred), response_k, qid, date, metadata
out  the fields of a pair: prompt, chosen, rejected; site, question_id, question_author_id, created, question_license

Ids, authors, votes and dates of the answers were dropped when the set was made, so they are null, and the pair is named
after its content. The question's licence is worked out from its date (pairing/licences.py), as for a dump that states
none.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from tasks.pairing.licences import licence_by_date
from tasks.sources import question_facts
from tasks.sources.pair_rows import side
from tasks.sources.question_facts import question_facts as facts_of

TEXTS: Final = ("question", "response_j", "response_k")
COLUMNS: Final = (*TEXTS, *question_facts.COLUMNS)


def paired_row(row: Mapping[str, Any], site: str | None, _ignored: Counter[str]) -> dict[str, Any]:
    """The pair in a row; Rejected where there is none. `site` stands in where the row does not name one."""
    facts = facts_of(row, site)
    return {
        "prompt": side(row.get("question"), "prompt"),
        "chosen": side(row.get("response_j"), "chosen"),
        "rejected": side(row.get("response_k"), "rejected"),
        "site": facts.site,
        "question_id": facts.question_id,
        "question_author_id": facts.author_id,
        "created": facts.created,
        "question_license": None if facts.created is None else licence_by_date(facts.created),
        "question_license_stated": None if facts.created is None else False,
    }
