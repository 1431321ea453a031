"""Text -> token ids, by the tokenizer of a model folder, with no way for a text to say a special token.

A fast tokenizer looks for the strings of its special tokens in every text; a post that quotes `<|im_end|>` or `</s>`
would end the answer there. `add_special_tokens=False` does not change that. The tokenizer here is a copy that treats
those strings as what they are, text; begin and end of a sequence are put in by id.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.errors import InputError
from tasks.tokens.template import USER, prompt_text

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

ROLES: Final = ("bos_token", "eos_token", "pad_token", "unk_token")

# Where a special token's string may stand in a text: alone, inside a word, between words.
_PLACES: Final = ("{}", "a{}b", "a {} b", "\n{}\n")


class PairIds(NamedTuple):
    """The ids of one pair, uncut."""

    prompt: list[int]
    chosen: list[int]  # ends with EOS
    rejected: list[int]
    spanned: bool
    """Whether a token spanned the end of the prompt, so that the sides were encoded apart."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer for prompts and answers; `Encoder.load` makes one."""

    whole: "Tokenizer"
    """Encodes prompt and answer as one text."""
    apart: "Tokenizer"
    """The same, but puts no space before a text: for an answer without its prompt."""
    begin: list[int]
    """BOS, where the tokenizer itself puts one before plain text; else nothing."""
    end: int
    """EOS."""
    special: NDArray[np.int64]
    """The ids that no text may give; unk is none of them."""

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """The encoder of a model folder's `tokenizer.json`. InputError when it cannot serve."""
        from tokenizers import Tokenizer

        roles = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return cls.of(Tokenizer.from_file(str(folder / "tokenizer.json")), roles, str(folder))

    @classmethod
    def of(cls, tokenizer: "Tokenizer", roles: Mapping[str, Any], name: str) -> "Encoder":
        """The encoder of `tokenizer`, whose special tokens' strings `roles` tells; `name` is for the errors."""
        end = tokenizer.token_to_id(roles.get("eos_token") or "")
        if end is None:
            raise InputError(f"the tokenizer of {name} has no EOS token; an answer could not end")
        plain = tokenizer.encode(USER).ids
        bare = tokenizer.encode(USER, add_special_tokens=False).ids
        bos = tokenizer.token_to_id(roles.get("bos_token") or "")
        begin = [bos] if bos is not None and plain[:1] == [bos] and bare[:1] != [bos] else []

        named = {roles[role] for role in ROLES if roles.get(role)}
        content = json.loads(tokenizer.to_str())
        for added in content["added_tokens"]:
            added["special"] = added["special"] or added["content"] in named
        special = {added["content"]: added["id"] for added in content["added_tokens"] if added["special"]}
        special |= {text: tokenizer.token_to_id(text) for text in named}
        unknown = special.pop(roles.get("unk_token") or "", None)
        content |= {"post_processor": None, "truncation": None, "padding": None}
        _demote(content, special)
        encoder = cls(
            whole=_literal(content),
            apart=_literal(_without_prefix(content)),
            begin=begin,
            end=end,
            special=np.array(sorted(set(special.values()) - {unknown}), dtype=np.int64),
        )
        for text, number in special.items():
            for place in _PLACES:
                if number in encoder.whole.encode(place.format(text)).ids:
                    raise InputError(
                        f"the tokenizer of {name} cannot tell the text {text!r} from its special token {number}; "
                        "a post that quotes it would be misread"
                    )
        return encoder

    def pairs(self, prompts: Sequence[str], chosen: Sequence[str], rejected: Sequence[str]) -> list[PairIds]:
        """The ids of each pair, prompt and answers stripped and put into the Tulu template."""
        heads = [prompt_text(prompt) for prompt in prompts]
        answers = [[text.strip() for text in side] for side in (chosen, rejected)]
        texts = [head + answer for side in answers for head, answer in zip(heads, side, strict=True)]
        encodings = self.whole.encode_batch(texts)
        half = len(heads)
        return [
            self._pair(head, (answers[0][row], answers[1][row]), (encodings[row], encodings[half + row]))
            for row, head in enumerate(heads)
        ]

    def _pair(self, head: str, answers: tuple[str, str], encodings: tuple["Encoding", "Encoding"]) -> PairIds:
        split = [_split(encoding, len(head), bool(answer)) for encoding, answer in zip(encodings, answers, strict=True)]
        if split[0] is not None and split[1] is not None and split[0][0] == split[1][0]:
            prompt, sides, spanned = split[0][0], [split[0][1], split[1][1]], False
        else:
            prompt, spanned = self.whole.encode(head).ids, True
            sides = [self.apart.encode(answer).ids for answer in answers]
        for ids in (prompt, *sides):
            if np.isin(np.array(ids, np.int64), self.special).any():  # `of` tried every special token's string
                raise InputError(f"a special token's id came out of the text that begins {head[:60]!r}")
        return PairIds(self.begin + prompt, [*sides[0], self.end], [*sides[1], self.end], spanned)


def _split(encoding: "Encoding", cut: int, more: bool) -> tuple[list[int], list[int]] | None:
    """The ids before and after character `cut`, or None where a token spans it. `more`: text follows the cut."""
    ids = encoding.ids
    if not more:
        return ids, []
    place = encoding.char_to_token(cut)
    if place is None:
        return None
    where = encoding.token_to_chars(place)
    if where is None or where[0] != cut:
        return None
    return ids[:place], ids[place:]


def _literal(content: Mapping[str, Any]) -> "Tokenizer":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _demote(content: dict[str, Any], special: Mapping[str, int]) -> None:
    """Keep a Unigram model from choosing a special piece, which `encode_special_tokens` does not."""
    model = content["model"]
    if model["type"] == "Unigram":
        low = min(score for _, score in model["vocab"]) - 100.0
        model["vocab"] = [[piece, low if piece in special else score] for piece, score in model["vocab"]]


def _without_prefix(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` of a tokenizer that takes a text to go on, not to begin: no `▁` and no space before it."""

    def changed(step: dict[str, Any] | None) -> dict[str, Any] | None:
        if step is None or step["type"] == "Prepend":
            return None
        if step["type"] == "Metaspace":
            return step | {"prepend_scheme": "never"}
        if step["type"] == "ByteLevel":
            return step | {"add_prefix_space": False}
        if step["type"] == "Sequence":
            key = "normalizers" if "normalizers" in step else "pretokenizers"
            return step | {key: [kept for part in step[key] if (kept := changed(part)) is not None]}
        return step

    return {**content, **{part: changed(content[part]) for part in ("normalizer", "pre_tokenizer")}}
