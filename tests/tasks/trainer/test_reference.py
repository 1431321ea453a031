"""The reference is scored once: not again for another learning rate, and a grown sample scores what is new."""

import os

import polars as pl
import pytest
import torch

from tasks.errors import RecipeError, StageFailed
from tasks.reference import ReferenceConfig, reference
from tasks.scores.scoring import PARTS_SCHEMA, Wanted, _forget_if_other, _inputs, _parts, score_all
from tasks.store import Silent, Store, Workspace
from training.config import TrainConfig
from training.forward import load_model, pack_logps
from training.pack import make_pack
from training.rows import load_rows

TRAIN = TrainConfig(precision="fp32", ranks=2, batch_size=4)


def test_every_pair_has_its_log_probs_in_the_order_of_the_rows_and_a_sweep_scores_nothing(store, tokens_of, model_of):
    tokens, model = tokens_of(store, 6, 3), model_of(store, 0)
    first = reference(store, tokens, model, ReferenceConfig(), TRAIN)
    assert first.counts == {"train": 6, "held_out": 3, "scored": 9, "found": 0, "checked": 0}
    scorer = load_model(model.path("model"), precision="fp32", device="cpu")
    for split in ("train", "held_out"):
        found = pl.read_parquet(first.path(f"{split}.parquet"))
        assert found.columns == ["pair_id", "ref_chosen_logps", "ref_rejected_logps"]
        for row, (pair_id, chosen, rejected) in zip(load_rows(tokens.path(split)), found.rows(), strict=True):
            with torch.no_grad():
                logps = pack_logps(scorer, make_pack([row], [0]))
            assert pair_id == row.pair_id
            assert (chosen, rejected) == pytest.approx((logps.chosen.item(), logps.rejected.item()), abs=1e-4)

    moved = TRAIN.model_copy(update={"learning_rate": 1e-3, "beta": 0.5, "epochs": 1, "ranks": 1, "zero_stage": 0})
    assert reference(store, tokens, model, ReferenceConfig(), moved).reused

    # The same ids in a larger sample: only the new ones are scored, and to the bits of a sample scored at once.
    grown = reference(store, tokens_of(store, 10, 3), model, ReferenceConfig(), TRAIN)
    assert grown.counts == {"train": 10, "held_out": 3, "scored": 4, "found": 9, "checked": 7}
    elsewhere = Store(store.work_dir.parent / "elsewhere")
    at_once = reference(elsewhere, tokens_of(elsewhere, 10, 3), model_of(elsewhere, 0), ReferenceConfig(), TRAIN)
    assert at_once.counts["scored"] == 13
    assert at_once.files == grown.files


def test_questions_are_scored_whole_and_give_what_each_pair_gives_alone(store, tokens_of, model_of):
    tokens, model = tokens_of(store, 12, 4, 4), model_of(store, 0)
    together = TRAIN.model_copy(update={"order": "questions"})
    ours = reference(store, tokens, model, ReferenceConfig(), together)
    assert ours.counts == {"train": 12, "held_out": 4, "scored": 16, "found": 0, "checked": 0}
    # Rounding differs, so that the two are kept apart.
    alone = reference(store, tokens, model, ReferenceConfig(), TRAIN)
    assert alone.counts["scored"] == 16
    for split in ("train", "held_out"):
        one, other = (pl.read_parquet(stage.path(f"{split}.parquet")) for stage in (ours, alone))
        assert one["pair_id"].to_list() == other["pair_id"].to_list()
        for side in ("ref_chosen_logps", "ref_rejected_logps"):
            assert one[side].to_list() == pytest.approx(other[side].to_list(), abs=1e-4)


def test_another_precision_than_the_trainings_is_refused(store, tokens_of, model_of):
    tokens, model = tokens_of(store, 6, 3), model_of(store, 0)
    with pytest.raises(RecipeError, match=r"reference.precision is bf16 and train.precision is fp32"):
        reference(store, tokens, model, ReferenceConfig(precision="bf16"), TRAIN)


def test_a_plan_reads_nothing(store, tokens_of, model_of):
    plan = Store(store.work_dir, plan=True)
    found = reference(plan, tokens_of(plan, 6, 3), model_of(plan, 0), ReferenceConfig(), TRAIN)
    assert found.planned and not store.work_dir.exists()


def test_a_log_prob_that_is_no_number_is_named_with_its_pair(store, tokens_of, model_of, tmp_path):
    tokens, model = tokens_of(store, 6, 0), model_of(store, 0)
    wanted = Wanted(tokens.path("train"), tmp_path / "out.parquet", [1, 3])
    work = Workspace("reference", tmp_path / "out", tmp_path / "partial", Silent())
    # What ranks have scored before an interruption; nothing is left to be scored.
    _forget_if_other(work.partial / "scoring", _inputs(model.path("model"), [wanted], "fp32"))
    parts = _parts(work.partial / "scoring", wanted)
    parts.mkdir()
    rows = [(1, -3.0, float("nan"), 4, 5), (3, -3.0, -4.0, 4, 5)]
    pl.DataFrame(rows, schema=PARTS_SCHEMA, orient="row").write_parquet(parts / "0000000001.parquet")
    with pytest.raises(StageFailed, match=r"log-probs of 1 of 2 pairs are not finite, the first .* pair train/1;"):
        score_all(work, model.path("model"), [wanted], precision="fp32", ranks=1, tokens_per_pack=None)
    assert not wanted.out.exists()


def test_parts_of_other_weights_are_forgotten(store, tokens_of, model_of, tmp_path):
    tokens, model = tokens_of(store, 6, 0), model_of(store, 0)
    wanted = Wanted(tokens.path("train"), tmp_path / "out.parquet")
    folder = tmp_path / "scoring"
    _forget_if_other(folder, _inputs(model.path("model"), [wanted], "fp32"))
    (folder / "kept").touch()
    _forget_if_other(folder, _inputs(model.path("model"), [wanted], "fp32"))
    assert (folder / "kept").exists()
    os.utime(model.path("model/model.safetensors"))  # built again under the same name
    _forget_if_other(folder, _inputs(model.path("model"), [wanted], "fp32"))
    assert not (folder / "kept").exists()
