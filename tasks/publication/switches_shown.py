"""Which switches of a recipe are on, as a card says it.

in   the sections `pair` and `dedupe` of a recipe, as they are hashed
out  (what, how) in the words of a reader
"""

from collections.abc import Mapping
from typing import Any, Final

from tasks.reports.figures import setting

_OFF: Final[tuple[Any, ...]] = (None, False, 0, [], ())
_SWITCHES: Final = {
    "include_title": "title before the question's body",
    "min_gap": "least difference of rank",
    "candidates": "candidates drawn",
    "exclude": "ids left out (takedown), by digest",
    "later_wins": "the chosen answer is the later one",
    "drop_closed": "no closed questions",
    "drop_community": "no community (wiki) posts",
    "min_prompt_chars": "least characters of the prompt",
    "max_prompt_chars": "most characters of the prompt",
    "min_answer_chars": "least characters of an answer",
    "max_answer_chars": "most characters of an answer",
    "max_length_ratio": "longer answer at most so many times the shorter",
    "max_code_share": "greatest share of code",
    "languages": "languages",
    "mask_personal": "e-mail addresses, phone numbers and IP addresses masked",
}


def switches_shown(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One row a switch that is on, those of `pair` and then those of `dedupe`."""
    pair, dedupe = recipe.get("pair", {}), recipe.get("dedupe", {})
    rows = [(label, _how(pair[key])) for key, label in _SWITCHES.items() if pair.get(key) not in _OFF]
    if dedupe.get("exact"):
        rows.append(("exact duplicates dropped", "on"))
    if dedupe.get("near"):
        kinds = [kind for kind in ("pairs", "questions", "answers") if dedupe.get(f"near_{kind}")]
        rows.append(("near duplicates dropped", f"{', '.join(kinds)} from Jaccard {setting(dedupe.get('threshold'))}"))
    if benchmarks := dedupe.get("decontaminate"):
        where = "prompt or answers" if benchmarks.get("answers") else "prompt"
        rows.append(("pairs of benchmarks dropped", f"{benchmarks.get('ngram')} words in a row of {where}"))
    return rows


def _how(value: Any) -> str:
    if value is True:
        return "on"
    return ", ".join(value) if isinstance(value, list) else setting(value)
