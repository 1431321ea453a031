"""What a training writes down of every step, as it is found on the disk."""

import json
from importlib.util import find_spec

import pytest

from training import engine
from training.launch import launch
from training.metrics import PAIR_METRICS
from training.status import TrainerError


def test_a_training_writes_every_number_under_its_name(job_maker) -> None:
    board = find_spec("tensorboard") is not None
    job = job_maker("named", epochs=1, peak_tflops=0.1, tensorboard=board)
    launch("training.run", job.folder / "job.json", job.folder, ranks=1, log_file=job.folder / "train.log")
    metrics, perf = (
        [json.loads(line) for line in (job.folder / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "perf.log")
    )
    assert [line["step"] for line in metrics] == [line["step"] for line in perf] == [1, 2, 3, 4, 5]
    assert {*PAIR_METRICS, "learning_rate", "grad_norm", "epoch", "tokens"} <= set(metrics[0])
    measured = {"perf/effective_mfu", "perf/hardware_mfu", "perf/padding_share", "perf/rank_balance"}
    assert measured | {"tokens_per_second", "peak_rss", "seconds", "cpu_seconds"} <= set(perf[0])
    assert all(0 < line["perf/hardware_mfu"] < line["perf/effective_mfu"] for line in perf)  # prompts are shared
    if board:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(job.folder / "tensorboard")).Reload()
        assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
        losses = [event.value for event in events.Scalars("loss")]
        assert losses == pytest.approx([line["loss"] for line in metrics], rel=1e-6)
        assert "perf/hardware_mfu" in events.Tags()["scalars"]


def test_tensorboard_that_is_not_installed_is_said_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(TrainerError, match=r"train\.tensorboard asks for the package tensorboard"):
        engine.tensorboard(tmp_path / "tensorboard")
