"""The folder that is published, checked before its card is written: would somebody who loads it get this model?

in   model/ (trained), token rows and pairs of the train split
out  generation_config.json mended where it would not stop the model; errors where the folder cannot be right
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any, Final

import polars as pl

from tasks.errors import StageFailed
from tasks.tokens.tokenizer_files import write_json

ROWS: Final = 8  # rendered and compared, of the first SEEN
SEEN: Final = 256


def check_model_folder(model: Path, rows: Path, pairs: Path) -> int:
    """Check `model` and give the number of rows whose chat rendering was compared with what was trained on.

    Raises StageFailed naming what is missing or rendered otherwise.
    """
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (model / name).is_file():
            raise StageFailed(f"publish: the trained model has no {name}: it cannot be loaded; force train")
    if not list(model.glob("*.safetensors")):
        raise StageFailed("publish: the trained model has no safetensors: it cannot be loaded; force train")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    if not tokenizer.chat_template:
        raise StageFailed("publish: the trained model has no chat template: nobody could prompt it as it was trained")
    complete_generation_config(model, tokenizer.bos_token_id, tokenizer.eos_token_id)
    return compare_template(tokenizer, rows, pairs)


def complete_generation_config(model: Path, begin: int | None, end: int) -> None:
    """Write generation_config.json where it is missing, and add `end`, which training taught, where it stops otherwise.

    The file may be a second name of the trained model's own: it is replaced, never changed in place.
    """
    path = model / "generation_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stops = settings.get("eos_token_id")
    known = stops if isinstance(stops, list) else [] if stops is None else [stops]
    if path.is_file() and end in known:
        return
    if begin is not None:
        settings.setdefault("bos_token_id", begin)
    settings["eos_token_id"] = [end, *known] if known else end
    path.unlink(missing_ok=True)
    write_json(path, settings)


def compare_template(tokenizer: Any, rows: Path, pairs: Path) -> int:
    """How many of the first rows were compared: none that is cut, or whose text names a special token, can be.

    (The chat template takes the string of a special token in a text for the token itself; training did not.)
    """
    from datasets import load_from_disk

    candidates = {row["pair_id"]: row for row in islice(load_from_disk(str(rows)), SEEN)}
    wanted = pl.scan_parquet(pairs).filter(pl.col("pair_id").is_in(list(candidates)))
    special = set(tokenizer.get_added_vocab()) | set(tokenizer.all_special_tokens)
    compared = 0
    for pair in wanted.select("pair_id", "prompt", "chosen").sort("pair_id").collect().iter_rows(named=True):
        row = candidates[pair["pair_id"]]
        if row["chosen_ids"][-1] != tokenizer.eos_token_id or any(
            token in pair[side] for token in special for side in ("prompt", "chosen")
        ):
            continue
        asked = [{"role": "user", "content": pair["prompt"]}]
        told = [*asked, {"role": "assistant", "content": pair["chosen"]}]
        rendered = tokenizer.apply_chat_template(told, return_dict=False)
        begun = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(told, tokenize=False)
        if list(rendered) != [*row["prompt_ids"], *row["chosen_ids"]] or not whole.startswith(begun):
            raise StageFailed(
                f"publish: the model's chat template renders pair {pair['pair_id']} as other tokens than those that it "
                "was trained on; it was changed, or the tokenizer was"
            )
        compared += 1
        if compared == ROWS:
            break
    return compared
