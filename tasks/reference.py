"""Reference: token rows and the start model -> its summed log-probs, scored once.

in   train/, held_out/, model/
out  train.parquet, held_out.parquet   pair_id, ref_chosen_logps, ref_rejected_logps

`train + held_out = found + scored`: a pair that was scored before, in whatever run of this work folder, is found in
tasks/scores/logp_store.py. Of those found, `checked` are scored again and compared (tasks/scores/spot_checks.py).
"""

import json
from pathlib import Path

import polars as pl

from tasks.config import StageConfig
from tasks.errors import RecipeError
from tasks.manifest import Manifest
from tasks.scores.logp_store import LogpStore, pair_keys
from tasks.scores.scoring import Wanted, score_all
from tasks.scores.spot_checks import check_again, drawn
from tasks.store import Store, Workspace
from tasks.tokens.token_rows import read_token_rows
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

    Raises RecipeError when the precision is not that of the training, StageFailed when a log-prob of the store is not
    what the model gives now.
    """
    precision = config.precision or train.precision
    if precision != train.precision:
        raise RecipeError(
            f"reference.precision is {precision} and train.precision is {train.precision}: leave the first at null, "
            f"a reference scored in another precision makes false margins"
        )

    def build(work: Workspace) -> dict[str, int]:
        # The training compares like with like; the evaluation's log-probs are plain sums whatever the loss.
        weights = {"train": train.tail_weight, "held_out": 1.0}
        stores = {split: LogpStore.of(store.work_dir, _space(model, train, weights[split])) for split in SPLITS}
        rows = {split: _keyed(tokens.path(split)) for split in SPLITS}
        known = {split: stores[split].read(work.message) for split in SPLITS}
        new = {split: _unknown(rows[split], known[split]) for split in SPLITS}
        old = {split: drawn(rows[split].join(known[split], on="key"), store.run) for split in SPLITS}
        outs = {split: work.partial / f"{split}.parquet" for split in SPLITS}
        agains = {split: work.partial / f"{split}-again.parquet" for split in SPLITS}
        sets = [
            Wanted(tokens.path(split), files[split], frame["row"].to_list(), weights[split])
            for frames, files in ((old, agains), (new, outs)) for split, frame in frames.items() if frame.height
        ]  # fmt: skip
        if sets:
            score_all(
                work, model.path("model"), sets, precision=precision, ranks=train.ranks,
                tokens_per_pack=train.tokens_per_pack,
            )  # fmt: skip
        for split in SPLITS:
            if old[split].height:
                again = pl.read_parquet(agains[split])
                check_again(work.stage, old[split], again, precision, stores[split].folder)
        for split in SPLITS:
            if new[split].height:
                fresh = new[split].join(pl.read_parquet(outs[split]), on="pair_id", how="left", maintain_order="left")
                stores[split].add(fresh)
                known[split] = pl.concat([known[split], fresh.select(known[split].columns)])
            joined = rows[split].join(known[split], on="key", how="left", maintain_order="left")
            logps = joined.select("pair_id", ref_chosen_logps="chosen_logps", ref_rejected_logps="rejected_logps")
            logps.write_parquet(work.folder / f"{split}.parquet")
        counts = {split: frame.height for split, frame in rows.items()}
        scored = sum(frame.height for frame in new.values())
        found, checked = sum(counts.values()) - scored, sum(frame.height for frame in old.values())
        work.message(f"{scored} pairs scored, {found} found, {checked} of these scored again and found alike")
        return counts | {"scored": scored, "found": found, "checked": checked}

    identity = {"precision": precision, "layout": layout.VERSION, "tail_weight": train.tail_weight}
    return store.stage("reference", VERSION, identity, {"tokenize": tokens, "model": model}, build)


def _space(model: Manifest, train: TrainConfig, tail_weight: float) -> dict[str, object]:
    """What a log-prob depends on beside the token ids."""
    # The bytes of weights and config, not names or shapes: under ZeRO-3 all shapes are empty.
    files = {
        name: file.sha256 for name, file in model.files.items()
        if name.endswith(".safetensors") or name == "model/config.json"
    }  # fmt: skip
    model_type = json.loads(model.path("model/config.json").read_text(encoding="utf-8"))["model_type"]
    tag = layout.layout_tag(model_type, train.precision)
    packed = train.tokens_per_pack if train.precision == "bf16" else None  # see tasks/scores/scoring.py
    return {"files": files, "layout": tag, "tail_weight": tail_weight, "tokens_per_pack": packed}


def _keyed(folder: Path) -> pl.DataFrame:
    """`row, pair_id, key` of every token row."""
    rows = read_token_rows(folder)
    return rows.select(pl.int_range(pl.len()).alias("row"), "pair_id").with_columns(pair_keys(rows))


def _unknown(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The rows that must be scored; of rows with the same ids the first."""
    return rows.join(known, on="key", how="anti", maintain_order="left").unique(
        "key", keep="first", maintain_order=True
    )
