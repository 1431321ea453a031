"""Reference: token rows and the start model -> its summed log-probs, scored once.

in   train/, held_out/, model/
out  train.parquet, held_out.parquet   pair_id, ref_chosen_logps, ref_rejected_logps

`train + held_out = found + scored`: a pair that was scored before, in whatever run of this work folder, is found in
tasks/scores/logp_store.py. Of those found, `checked` are scored again and compared (tasks/scores/spot_checks.py).
"""

import polars as pl

from tasks.config import StageConfig
from tasks.errors import RecipeError
from tasks.manifest import Manifest
from tasks.scores.logp_space import keyed, space, unknown
from tasks.scores.logp_store import LogpStore
from tasks.scores.scoring import Wanted, score_all
from tasks.scores.spot_checks import check_again, drawn
from tasks.store import Store, Workspace
from training import layout
from training.config import Precision, TrainConfig

VERSION = 2  # bump when the bytes this stage writes would change

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
        stores = {split: LogpStore.of(store.work_dir, space(model, train, weights[split])) for split in SPLITS}
        with stores["train"].in_use(), stores["held_out"].in_use():
            return fill(work, stores, weights)

    def fill(work: Workspace, stores: dict[str, LogpStore], weights: dict[str, float]) -> dict[str, int]:
        rows = {split: keyed(tokens.path(split)) for split in SPLITS}
        known = {split: stores[split].read(work.message) for split in SPLITS}
        new = {split: unknown(rows[split], known[split]) for split in SPLITS}
        old = {split: drawn(rows[split].join(known[split], on="key"), store.run) for split in SPLITS}
        by_question = train.order == "questions"
        outs = {split: work.partial / f"{split}.parquet" for split in SPLITS}
        agains = {split: work.partial / f"{split}-again.parquet" for split in SPLITS}
        sets = [
            Wanted(tokens.path(split), files[split], frame["row"].to_list(), weights[split], by_question)
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

    identity: dict[str, object] = {
        "precision": precision, "layout": layout.VERSION, "tail_weight": train.tail_weight
    }  # fmt: skip
    if train.order != "pairs":
        identity["order"] = train.order
    return store.stage("reference", VERSION, identity, {"tokenize": tokens, "model": model}, build)
