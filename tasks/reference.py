"""Reference: token rows and the start model -> its summed log-probs, scored once.

in   train/, held_out/, model/
out  train.parquet, held_out.parquet   pair_id, ref_chosen_logps, ref_rejected_logps

`train + held_out = found + scored`: a pair that was scored before, in whatever run of this work folder, is found in
tasks/logp_store.py.
"""

import json
from pathlib import Path

import polars as pl

from tasks.config import StageConfig
from tasks.errors import RecipeError
from tasks.logp_store import LogpStore, pair_keys
from tasks.manifest import Manifest
from tasks.scoring import score
from tasks.store import Store, Workspace
from tasks.token_rows import read_token_rows
from training import layout
from training.config import Precision, TrainConfig

VERSION = 1  # bump when the bytes this stage writes would change

SPLITS = ("train", "held_out")


class ReferenceConfig(StageConfig):
    """How the reference is scored."""

    precision: Precision | None = None
    """null = train's; anything else than train's is refused, since it would make false margins."""


def reference(store: Store, tokens: Manifest, model: Manifest, config: ReferenceConfig, train: TrainConfig) -> Manifest:
    """Log-probs of every train and held-out completion under the start model.

    Raises RecipeError when the precision is not that of the training.
    """
    precision = config.precision or train.precision
    if precision != train.precision:
        raise RecipeError(
            f"reference.precision is {precision} and train.precision is {train.precision}: leave the first at null, "
            f"a reference scored in another precision makes false margins"
        )

    def build(work: Workspace) -> dict[str, int]:
        model_type = json.loads(model.path("model/config.json").read_text(encoding="utf-8"))["model_type"]
        # The bytes of weights and config, not their names or shapes: under ZeRO-3 all shapes are empty.
        files = {
            name: file.sha256 for name, file in model.files.items() if name.endswith((".safetensors", "config.json"))
        }
        space = {"files": files, "layout": layout.layout_tag(model_type, precision)}
        if precision == "bf16":
            space["tokens_per_pack"] = train.tokens_per_pack
        known = LogpStore.of(store.work_dir, space)
        counts = {"train": 0, "held_out": 0, "found": 0, "scored": 0}
        for split in SPLITS:
            found, scored = _score_split(work, known, model.path("model"), tokens.path(split), split, precision, train)
            counts |= {split: found + scored, "found": counts["found"] + found, "scored": counts["scored"] + scored}
        work.message(f"{counts['scored']} pairs scored, {counts['found']} found")
        return counts

    identity = {"precision": precision, "layout": layout.VERSION}
    return store.stage("reference", VERSION, identity, {"tokenize": tokens, "model": model}, build)


def _score_split(
    work: Workspace, known: LogpStore, model: Path, rows: Path, split: str, precision: Precision, train: TrainConfig
) -> tuple[int, int]:
    """Write one split's log-probs; how many pairs were found and how many scored."""
    frame = read_token_rows(rows)
    wanted = frame.select("pair_id", pair_keys(frame)).with_row_index("row")
    before = known.read()
    new = wanted.join(before, on="key", how="anti").unique("key", keep="first").sort("row")
    if new.height:
        out = work.partial / f"{split}.parquet"
        score(
            work, model, rows, out, precision=precision, ranks=train.ranks,
            tokens_per_pack=train.tokens_per_pack if precision == "bf16" else None,
            only=new.get_column("row").to_list(),
        )  # fmt: skip
        fresh = new.join(pl.read_parquet(out), on="pair_id", how="left", maintain_order="left")
        known.add(fresh)
        before = pl.concat([before, fresh.select(before.columns)])
    values = wanted.join(before, on="key", how="left", maintain_order="left")
    values.select(
        "pair_id", ref_chosen_logps="chosen_logps", ref_rejected_logps="rejected_logps"
    ).write_parquet(work.folder / f"{split}.parquet")  # fmt: skip
    return frame.height - new.height, new.height
