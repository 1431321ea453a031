"""What a log-prob depends on: the space of the store that it is kept in, and the keys of the rows there.

in   a stage folder with a model, token rows
"""

import json
from pathlib import Path

import polars as pl

from tasks.manifest import Manifest
from tasks.scores.logp_store import pair_keys
from tasks.tokens.token_rows import read_token_rows
from training import layout
from training.config import TrainConfig


def space(model: Manifest, train: TrainConfig, tail_weight: float) -> dict[str, object]:
    """What a log-prob depends on beside the token ids."""
    # The bytes of weights and config, not names or shapes: under ZeRO-3 all shapes are empty.
    files = {
        name: file.sha256 for name, file in model.files.items()
        if name.endswith(".safetensors") or name == "model/config.json"
    }  # fmt: skip
    model_type = json.loads(model.path("model/config.json").read_text(encoding="utf-8"))["model_type"]
    tag = layout.layout_tag(model_type, train.precision)
    # Rounding again: what is scored question by question is not mixed with what is scored pair by pair.
    together = {"order": train.order} if train.order != "pairs" else {}
    packed = train.tokens_per_pack if train.precision == "bf16" else None  # see tasks/scores/scoring.py
    return {"files": files, "layout": tag, "tail_weight": tail_weight, "tokens_per_pack": packed, **together}


def keyed(folder: Path) -> pl.DataFrame:
    """`row, pair_id, key` of every token row."""
    rows = read_token_rows(folder)
    return rows.select(pl.int_range(pl.len()).alias("row"), "pair_id").with_columns(pair_keys(rows))


def unknown(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The rows that must be scored; of rows with the same ids the first."""
    return rows.join(known, on="key", how="anti", maintain_order="left").unique(
        "key", keep="first", maintain_order=True
    )
