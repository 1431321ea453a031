"""Switches of `pair` that are decided on texts, after the draw of candidates: lengths, code, language.

A candidate that goes here is not replaced, since texts are converted for candidates alone: with `pair.candidates` set,
draw more. Of the reasons that hold for a pair the first of TEXT_REASONS is counted.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import polars as pl

from tasks.code_blocks import code_share, without_code

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

TEXT_REASONS: Final = (
    "prompt_too_short", "prompt_too_long", "answer_too_short", "answer_too_long", "length_ratio", "code_share",
    "language",
)  # fmt: skip
SURE: Final = 0.5  # probability from which a text is held to be in a language; below it the text stays
UNLIKE: Final = (
    0.1  # and stays, too, where those asked for are at least so likely: English is taken for Pidgin at times
)
KNOWN_LANGUAGES: Final = frozenset(
    """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr
    fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko
    ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru
    rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue
    zh zu zxx
    """.split()  # noqa: SIM905
)
"""The codes that `languages` may answer: written out, so that a recipe is judged without the model being loaded."""
_BEGINNING: Final = 5_000  # characters of prose that tell the language
_NO_PROSE: Final = re.compile(r"`[^`\n]*`|\$\$[^$]*\$\$|\$[^$\n]*\$|https?://[^\s)>]+|</?[a-zA-Z][^<>]*>")
_SIDES: Final = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Limits:
    """Which of them are on; the keys of `pair` in a recipe. None and () = off. Lengths in characters of Markdown."""

    min_prompt_chars: int | None = None
    max_prompt_chars: int | None = None
    min_answer_chars: int | None = None
    max_answer_chars: int | None = None
    max_length_ratio: float | None = None
    max_code_share: float | None = None
    languages: tuple[str, ...] = ()

    def on(self) -> list[str]:
        """The reasons that may occur, in the order in which they are asked."""
        state = (
            self.min_prompt_chars, self.max_prompt_chars, self.min_answer_chars, self.max_answer_chars,
            self.max_length_ratio, self.max_code_share, self.languages or None,
        )  # fmt: skip
        return [reason for reason, value in zip(TEXT_REASONS, state, strict=True) if value is not None]

    def reasons(self, pairs: pl.DataFrame) -> pl.Series:
        """The first reason of each of `pairs` (tasks/pairs.py); null = it stays."""
        prompt, chosen, rejected = (pl.col(side).str.len_chars() for side in _SIDES)
        shorter, longer = pl.min_horizontal(chosen, rejected), pl.max_horizontal(chosen, rejected)
        faults: dict[str, pl.Expr] = {}
        if self.min_prompt_chars is not None:
            faults["prompt_too_short"] = prompt < self.min_prompt_chars
        if self.max_prompt_chars is not None:
            faults["prompt_too_long"] = prompt > self.max_prompt_chars
        if self.min_answer_chars is not None:
            faults["answer_too_short"] = shorter < self.min_answer_chars
        if self.max_answer_chars is not None:
            faults["answer_too_long"] = longer > self.max_answer_chars
        if self.max_length_ratio is not None:
            faults["length_ratio"] = longer > shorter * self.max_length_ratio
        if self.max_code_share is not None:
            much = {text for text in _texts(pairs) if code_share(text) > self.max_code_share}
            faults["code_share"] = _any_among(much)
        first = [pl.when(fault).then(pl.lit(reason)) for reason, fault in faults.items()]
        found = pairs.with_columns(reason=pl.coalesce(*first, pl.lit(None, pl.String)))["reason"]
        if self.languages:  # the dearest: only of what has passed the others
            left = pairs.filter(found.is_null())
            foreign = {text for text in _texts(left) if not self._understood(text)}
            other = pairs.with_columns(reason=pl.when(_any_among(foreign)).then(pl.lit("language")))["reason"]
            found = pl.select(pl.coalesce(found, other).alias("reason"))["reason"]
        return found

    def _understood(self, text: str) -> bool:
        likely = languages(text)
        return max(likely.values()) < SURE or sum(likely.get(name, 0.0) for name in self.languages) >= UNLIKE


def languages(text: str) -> dict[str, float]:
    """How likely the prose of a Markdown text is in which language, by ISO 639-1 code (639-3 where there is none).

    Code (tasks/code_blocks.py), mathematics, tags and addresses are no prose.
    """
    prose = _NO_PROSE.sub(" ", without_code(text))[:_BEGINNING]
    return {str(name): float(likely) for name, likely in _identifier().rank(prose)}


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _texts(pairs: pl.DataFrame) -> pl.Series:
    """Every text of `pairs` once: the pairs of one question repeat theirs."""
    return pl.concat(pairs[side] for side in _SIDES).unique()


def _any_among(texts: set[str]) -> pl.Expr:
    if not texts:
        return pl.lit(value=False)
    listed = pl.Series(sorted(texts), dtype=pl.String).implode()
    return pl.any_horizontal(pl.col(side).is_in(listed) for side in _SIDES)
