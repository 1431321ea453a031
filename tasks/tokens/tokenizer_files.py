"""The tokenizer of a model folder, written so that every version of transformers reads the same one.

out  tokenizer.json, tokenizer_config.json, chat_template.jinja
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import InputError
from tasks.tokens.encoder import ROLES, Encoder
from tasks.tokens.template import chat_template, prompt_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SAMPLE = prompt_text("Why is the sky blue?")


def write_tokenizer(tokenizer: "Tokenizer", settings: Mapping[str, Any], folder: Path, name: str) -> None:
    """Write `tokenizer` and the Tulu chat template into `folder`.

    `settings` has the strings of the special tokens by role (`bos_token`, ...) and `model_max_length`; `name` is for
    the errors. Raises InputError when no chat template could render the ids that `Encoder` gives.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    template = chat_template(_begin(tokenizer, settings, name))
    tokenizer.save(str(folder / "tokenizer.json"))
    kept = {key: settings[key] for key in (*ROLES, "model_max_length") if settings.get(key) is not None}
    write_json(
        folder / "tokenizer_config.json",
        # The class that takes tokenizer.json as it is; others rebuild it after their own fashion.
        kept | {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"},
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _begin(tokenizer: "Tokenizer", settings: Mapping[str, Any], name: str) -> str:
    """What the chat template must render before the first marker for the ids to be `Encoder`'s."""
    encoder = Encoder.of(tokenizer, settings, name)
    wanted = encoder.begin + encoder.whole.encode(_SAMPLE).ids
    if not encoder.begin:
        return "''"
    bos = settings["bos_token"]
    # Some tokenizers put `▁` before a text but not after a special token: there the space has to be rendered.
    for gap, begin in (("", "bos_token"), (" ", "bos_token + ' '")):
        if tokenizer.encode(bos + gap + _SAMPLE, add_special_tokens=False).ids == wanted:
            return begin
    raise InputError(f"the tokenizer of {name} encodes text after {bos!r} in a way that no chat template can render")


def write_json(path: Path, value: object) -> None:
    """`value` as JSON, indented, in the order given."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
