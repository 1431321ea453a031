"""What the reference stage finds and what it scores: exact counts, and no value of another model, layout or disk.

The scorer is one that counts: `test_reference.py` shows that the real one gives the model's own log-probs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from datasets import Dataset, load_from_disk
from datasets.fingerprint import Hasher
from transformers import LlamaForCausalLM
from trl.trainer.utils import hash_module

from tasks import reference as stage
from tasks.errors import StageFailed
from tasks.manifest import Manifest
from tasks.reference import ReferenceConfig, reference
from tasks.scores.logp_space import space
from tasks.scores.logp_store import LogpStore
from tasks.scores.scoring import Wanted
from tasks.scores.spot_checks import CHECKED, check_again, drawn
from tasks.store import Silent, Store, Workspace
from tasks.tokens.token_rows import read_token_rows
from training.config import TrainConfig

TRAIN = TrainConfig(precision="fp32", ranks=1, batch_size=4)


class Said(Silent):
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, stage: str, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Row numbers of every set that was scored; a pair's log-probs are minus its tokens."""
    asked: list[list[int]] = []

    def score_all(work: Workspace, model: Path, sets: Sequence[Wanted], **_: Any) -> None:
        for one in sets:
            rows = read_token_rows(one.rows)[list(one.only or ())]
            asked.append(list(one.only or ()))
            sizes = [rows.get_column(f"{side}_ids").list.len().cast(pl.Int64) for side in ("chosen", "rejected")]
            pl.DataFrame(
                [rows.get_column("pair_id"), *(-size.cast(pl.Float64) for size in sizes), *sizes],
                schema=["pair_id", "chosen_logps", "rejected_logps", "chosen_tokens", "rejected_tokens"],
            ).write_parquet(one.out)

    monkeypatch.setattr(stage, "score_all", score_all)
    return asked


def again(store: Store, run: str, report: Said | None = None) -> Store:
    """The same work folder in a run that builds the reference anew."""
    return Store(store.work_dir, run=run, force=frozenset({"reference"}), report=report or Silent())


def tokens_as(store: Store, change: Callable[[dict[str, Any]], dict[str, Any]], name: str) -> Manifest:
    """Six token rows that were tokenized in another way."""
    base = [
        {"pair_id": f"train/{n}", "prompt_ids": [5, n, 7], "chosen_ids": [*range(3, 9 + n)], "rejected_ids": [8] * 9}
        for n in range(6)
    ]

    def build(work: Workspace) -> dict[str, int]:
        Dataset.from_list([change(dict(row)) for row in base]).save_to_disk(str(work.folder / "train"))
        return {}

    return store.stage("tokenize", 1, {"name": name}, {}, build)


def test_another_rate_beta_or_number_of_epochs_scores_nothing(store, model_of, scored):
    tokens, model = tokens_as(store, dict, "plain"), model_of(store, 0)
    assert reference(store, tokens, model, ReferenceConfig(), TRAIN).counts["scored"] == 6
    scored.clear()
    for moved in ({"learning_rate": 1e-3}, {"beta": 0.5}, {"epochs": 9}, {"batch_size": 2}, {"ranks": 2}):
        config = TRAIN.model_copy(update=moved)
        assert reference(store, tokens, model, ReferenceConfig(), config).reused
        found = reference(again(store, str(moved)), tokens, model, ReferenceConfig(), config)
        assert found.counts == {"train": 6, "held_out": 0, "scored": 0, "found": 6, "checked": CHECKED}
    assert all(len(rows) == CHECKED for rows in scored)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("template", lambda row: row | {"prompt_ids": [9, *row["prompt_ids"]]}),
        ("max_length", lambda row: row | {key: row[key][:4] for key in ("chosen_ids", "rejected_ids")}),
    ],
)
def test_another_template_or_length_cap_scores_every_pair(store, model_of, scored, name, change):
    model = model_of(store, 0)
    reference(store, tokens_as(store, dict, "plain"), model, ReferenceConfig(), TRAIN)
    found = reference(store, tokens_as(store, change, name), model, ReferenceConfig(), TRAIN)
    assert (found.counts["scored"], found.counts["found"]) == (6, 0)


def test_other_weights_precision_or_layout_score_every_pair(store, model_of, scored, monkeypatch):
    tokens, model = tokens_as(store, dict, "plain"), model_of(store, 0)
    reference(store, tokens, model, ReferenceConfig(), TRAIN)
    for train in (TRAIN.model_copy(update={"precision": "bf16"}), TRAIN.model_copy(update={"loss": "ld"})):
        assert reference(store, tokens, model, ReferenceConfig(), train).counts["scored"] == 6
    other = reference(store, tokens, model_of(store, 1), ReferenceConfig(), TRAIN)
    assert (other.counts["scored"], other.counts["found"]) == (6, 0)
    monkeypatch.setattr(stage.layout, "VERSION", stage.layout.VERSION + 1)
    assert reference(store, tokens, model, ReferenceConfig(), TRAIN).counts["scored"] == 6


def test_a_byte_flipped_in_the_store_is_said_and_its_pairs_are_scored_again(store, model_of, scored):
    tokens, model = tokens_as(store, dict, "plain"), model_of(store, 0)
    first = reference(store, tokens, model, ReferenceConfig(), TRAIN)
    (shard,) = (store.work_dir / "logps").glob("*/*.parquet")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    said = Said()
    second = reference(again(store, "second", said), tokens, model, ReferenceConfig(), TRAIN)
    assert second.counts["scored"] == 6 and second.files == first.files
    assert any(str(shard) in text and "scored again" in text for text in said.texts)
    assert reference(again(store, "third"), tokens, model, ReferenceConfig(), TRAIN).counts["scored"] == 0


def test_a_stored_value_that_the_model_does_not_give_stops_the_stage_and_is_named(store, model_of, scored):
    tokens, model = tokens_as(store, dict, "plain"), model_of(store, 0)
    reference(store, tokens, model, ReferenceConfig(), TRAIN)
    kept = LogpStore.of(store.work_dir, space(model, TRAIN, 1.0))
    moved = kept.read().with_columns(pl.col("rejected_logps") - 0.25)
    for shard in kept.folder.glob("*.parquet"):
        shard.unlink()
    kept.add(moved)
    with pytest.raises(
        StageFailed, match=r"4 of 4 pairs .* rejected log-prob is -9.2500 in .* and -9.0000 now"
    ) as told:
        reference(again(store, "second"), tokens, model, ReferenceConfig(), TRAIN)
    assert str(kept.folder) in str(told.value)


def spot(tokens: int, was: float, now: float, precision: str) -> None:
    found = pl.DataFrame({"pair_id": ["a"], "chosen_logps": [was], "rejected_logps": [-1.0]})
    scored = {"pair_id": ["a"], "chosen_logps": [now], "rejected_logps": [-1.0]}
    again = pl.DataFrame({**scored, "chosen_tokens": [tokens], "rejected_tokens": [1]})
    check_again("reference", found, again, precision, Path("logps/space"))


def test_the_tolerance_grows_with_the_root_of_the_tokens():
    # 100 tokens: 10 * 1e-4 nat in fp32, 10 * 0.4 in bf16.
    spot(100, -50.0, -50.0009, "fp32")
    spot(100, -50.0, -53.9, "bf16")
    for tokens, now, precision in ((100, -50.0011, "fp32"), (1, -50.0002, "fp32"), (100, -54.1, "bf16")):
        with pytest.raises(StageFailed, match="1 of 1 pairs"):
            spot(tokens, -50.0, now, precision)
    with pytest.raises(StageFailed, match="is nan in"):
        spot(100, float("nan"), -50.0, "bf16")


def test_other_rows_are_checked_in_another_run_and_the_same_in_a_retry():
    found = pl.DataFrame({"row": range(50), "key": [f"{n:032x}" for n in range(50)]})
    one, retry, other = (drawn(found, run).get_column("row").to_list() for run in ("one", "one", "other"))
    assert one == retry and len(one) == CHECKED and one != other
    assert drawn(found.head(2), "one").height == 2


def test_trls_key_confuses_two_models_under_zero_3_and_ours_does_not(store, model_of, scored):
    """TRL 1.16 hashes the tensors of a live model; ZeRO-3 leaves every one of them empty on the module."""
    tokens, models = tokens_as(store, dict, "plain"), [model_of(store, seed) for seed in (0, 1)]
    dataset = load_from_disk(str(tokens.path("train")))

    def trls_cache_file(model: Manifest, zero_stage: int) -> str:
        live = LlamaForCausalLM.from_pretrained(model.path("model"))
        if zero_stage == 3:
            for parameter in live.parameters():
                parameter.data = torch.empty(0, dtype=parameter.dtype)  # what deepspeed.zero.Init leaves of it
        return dataset._get_cache_file_path(Hasher.hash((dataset._fingerprint, hash_module(live))))

    assert trls_cache_file(models[0], 2) != trls_cache_file(models[1], 2)
    assert trls_cache_file(models[0], 3) == trls_cache_file(models[1], 3)  # the mistake

    ours = [space(model, TRAIN.model_copy(update={"zero_stage": 3}), 1.0) for model in models]
    assert LogpStore.of(store.work_dir, ours[0]).folder != LogpStore.of(store.work_dir, ours[1]).folder
    for model in models:
        counts = reference(store, tokens, model, ReferenceConfig(), TRAIN).counts
        assert (counts["scored"], counts["found"]) == (6, 0)
    # Nothing but the weights tells these two models apart.
    assert models[0].path("model/config.json").read_bytes() == models[1].path("model/config.json").read_bytes()
