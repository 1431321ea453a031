"""The train stage: what it counts, what it writes, and that an interrupted one goes on."""

import json

import pytest

from tasks.errors import InputError, RecipeError, StageFailed, Surroundings, TransientStageFailure
from tasks.reference import ReferenceConfig, reference
from tasks.scores.ranks import _typed
from tasks.store import Silent, Store
from tasks.train import train
from training.config import LoraConfig, TrainConfig
from training.failures import RanksFailed

CONFIG = TrainConfig(
    precision="fp32", ranks=1, batch_size=4, epochs=20, learning_rate=1e-3, zero_stage=1, save_every=5
)  # fmt: skip


class CancelledAt(Silent):
    """A report that is interrupted, as Prefect interrupts a task, when so many steps are done."""

    def __init__(self, steps: int):
        self.steps = steps

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
        if unit == "steps" and done >= self.steps:
            raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_where_it_stopped_and_counts_add_up(store, tokens_of, model_of):
    tokens, model = tokens_of(store, 18, 0), model_of(store, 0)
    scored = reference(store, tokens, model, ReferenceConfig(), CONFIG)
    with pytest.raises(KeyboardInterrupt):
        train(Store(store.work_dir, report=CancelledAt(20)), tokens, scored, model, CONFIG, 7)
    (partial,) = (store.work_dir / "partial").glob("train-*")
    assert sorted(partial.glob("training/checkpoints/step-*"))

    # Another number of ranks or a save in other places is the same training.
    trained = train(store, tokens, scored, model, CONFIG.model_copy(update={"save_every": 50}), 7)
    assert trained.provenance["resumed_from_step"] >= 20
    assert not partial.exists()
    # 18 pairs are 4 batches of 4; 2 pairs an epoch are left over.
    assert trained.counts["steps"] == 80
    assert trained.counts["pairs"] + trained.counts["dropped.incomplete_batch"] == 18 * 20
    assert trained.counts["dropped.incomplete_batch"] == 2 * 20
    lines = [json.loads(line) for line in trained.path("metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 81))
    assert trained.counts["tokens"] == sum(line["tokens"] for line in lines)
    assert {"metrics.jsonl", "perf.log", "train.log", "model/model.safetensors"} <= trained.files.keys()
    assert trained.path("model/chat_template.jinja").read_text() == "{{ messages }}"
    facts = {"ranks": 1, "threads": 1, "zero_stage": 1, "precision": "fp32", "device": "cpu"}
    assert facts.items() <= trained.provenance.items()
    again = train(store, tokens, scored, model, CONFIG.model_copy(update={"ranks": 4, "zero_stage": 3}), 7)
    assert again.reused


def test_adapters_train_on_the_start_models_reference_and_end_in_a_whole_model(store, tokens_of, model_of):
    tokens, model = tokens_of(store, 8, 0), model_of(store, 0)
    config = CONFIG.model_copy(update={"epochs": 2, "lora": LoraConfig(rank=2, alpha=4.0)})
    scored = reference(store, tokens, model, ReferenceConfig(), CONFIG)
    assert reference(store, tokens, model, ReferenceConfig(), config).reused
    trained = train(store, tokens, scored, model, config, 7)
    assert {
        "model/model.safetensors", "model/config.json", "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    } <= trained.files.keys()  # fmt: skip
    # Two layers of seven linear layers, 48 wide, 16 for keys and values, 80 in the MLP: rank * (inputs + outputs).
    assert trained.provenance["trained_parameters"] == 2 * 2 * (2 * 96 + 2 * 64 + 3 * 128)
    assert trained.counts["skipped_steps"] == 0
    first = json.loads(trained.path("metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)


def test_fewer_pairs_than_a_batch_are_told_before_anything_starts(store, tokens_of, model_of):
    tokens, model = tokens_of(store, 3, 0), model_of(store, 0)
    with pytest.raises(RecipeError, match=r"train.batch_size is 4 and there are 3 train pairs"):
        train(store, tokens, tokens, model, CONFIG, 7)


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("nonfinite", StageFailed, 5),
        ("memory", StageFailed, 5),
        ("reference", StageFailed, 5),
        ("bug", StageFailed, 5),
        ("recipe", RecipeError, 2),
        ("model", InputError, 3),
        ("disk", Surroundings, 1),
        ("killed", TransientStageFailure, 5),
        ("stalled", TransientStageFailure, 5),
        ("stopped", TransientStageFailure, 5),
        ("device", TransientStageFailure, 5),
        ("rendezvous", TransientStageFailure, 5),
        ("peer", TransientStageFailure, 5),
    ],
)
def test_failures_are_told_by_whose_move_is_next(tmp_path, kind, error, status):
    told = _typed("train", RanksFailed(kind, "rank 0, step 3: what happened", tmp_path / "train.log"))
    assert type(told) is error and told.status == status
    assert str(told) == f"train: rank 0, step 3: what happened (log: {tmp_path / 'train.log'})"
