"""What a log-prob depends on: the space of the store that it is kept in, and the keys of the rows there.

in   a stage folder with a model, token rows
"""

import json
from pathlib import Path

import polars as pl

from tasks.errors import InputError
from tasks.manifest import Manifest
from tasks.scores.logp_store import pair_keys
from tasks.tokens.token_rows import read_token_rows
from training import layout
from training.config import TrainConfig


def space(model: Manifest, train: TrainConfig, tail_weight: float) -> dict[str, object]:
    """What a log-prob depends on beside the token ids.

    Raises InputError where the model's config.json is not one.
    """
    # The bytes of weights and config, not names or shapes: under ZeRO-3 all shapes are empty.
    files = {
        name: file.sha256 for name, file in model.files.items()
        if name.endswith(".safetensors") or name == "model/config.json"
    }  # fmt: skip
    tag = layout.layout_tag(_model_type(model.path("model/config.json")), train.precision)
    # Rounding again: what is scored question by question is not mixed with what is scored pair by pair.
    together = {"order": train.order} if train.order != "pairs" else {}
    packed = train.tokens_per_pack if train.precision == "bf16" else None  # see tasks/scores/scoring.py
    return {"files": files, "layout": tag, "tail_weight": tail_weight, "tokens_per_pack": packed, **together}


def _model_type(config: Path) -> str:
    try:
        found = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{config} is damaged: it names no model_type ({type(error).__name__}: {error})") from error
    if not isinstance(found, str):
        raise InputError(f"{config} is damaged: its model_type is {found!r}")
    return found


def keyed(folder: Path) -> pl.DataFrame:
    """`row, pair_id, key` of every token row."""
    rows = read_token_rows(folder)
    return rows.select(pl.int_range(pl.len()).alias("row"), "pair_id").with_columns(pair_keys(rows))


def unknown(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The rows that must be scored; of rows with the same ids the first."""
    return rows.join(known, on="key", how="anti", maintain_order="left").unique(
        "key", keep="first", maintain_order=True
    )
