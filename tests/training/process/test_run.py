"""A training as users meet it: killed, stopped, damaged, and at the end the same bytes as one that nobody disturbed."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from training.batch import batch_indices
from training.checkpoint import find_checkpoint, read_checkpoint
from training.failures import RanksFailed
from training.jobs import TrainJob
from training.launch import launch
from training.reference import pair_ids_of
from training.rows import load_rows
from training.status import Outcome, Progress, TrainerError, read_failures

LONG = {"epochs": 16, "save_every": 10, "ranks": 2, "zero_stage": 2}  # 80 steps


def run(job: TrainJob, on_progress: Callable[[Progress], None] | None = None) -> Outcome:
    return launch(
        "training.run", job.folder / "job.json", job.folder, ranks=job.config.ranks,
        log_file=job.folder / "train.log", on_progress=on_progress,
    )  # fmt: skip


def ranks_of(job: TrainJob) -> dict[int, psutil.Process]:
    """The living processes of a training, by rank."""
    found = {}
    for child in psutil.Process().children():
        # One that has ended and is not yet waited for, or ends while it is asked, has neither arguments nor a rank.
        with suppress(psutil.NoSuchProcess):
            if str(job.folder / "job.json") in child.cmdline():
                found[int(child.environ()["RANK"])] = child
    return found


def signal_once(job: TrainJob, rank: int, number: int, at: int) -> Callable[[Progress], None]:
    """Signal one rank when the training has made `at` steps."""
    sent: list[int] = []

    def on_progress(progress: Progress) -> None:
        if progress.done >= at and not sent:
            sent.append(progress.done)
            os.kill(ranks_of(job)[rank].pid, number)

    return on_progress


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def undisturbed(job_maker) -> TrainJob:
    job = job_maker("undisturbed", **LONG)
    assert run(job).state == "finished"
    return job


@pytest.fixture(scope="module")
def disturbed(job_maker) -> tuple[TrainJob, dict[str, object]]:
    """Killed after step 25 or so, stopped on request after step 50 or so, its newest checkpoint damaged, finished."""
    job = job_maker("disturbed", **LONG)
    seen: dict[str, object] = {}
    with pytest.raises(RanksFailed) as killed:
        run(job, signal_once(job, 1, signal.SIGKILL, at=25))
    seen["killed"] = killed.value
    seen["left after the kill"] = ranks_of(job)
    with pytest.raises(RanksFailed) as stopped:
        run(job, signal_once(job, 1, signal.SIGTERM, at=50))
    seen["stopped"] = stopped.value
    newest = sorted((job.folder / "checkpoints").glob("step-*"))[-1]
    seen["newest"] = newest
    flip_a_byte(newest / "state-00000.safetensors")
    seen["outcome"] = run(job)
    return job, seen


def test_a_killed_rank_ends_the_training_for_now(disturbed):
    _, seen = disturbed
    assert seen["killed"].kind == "killed" and seen["killed"].transient
    assert "rank 1 was killed by SIGKILL" in str(seen["killed"])
    assert seen["left after the kill"] == {}


def test_one_rank_that_is_asked_to_stop_stops_all_with_a_checkpoint(disturbed):
    _, seen = disturbed
    assert seen["stopped"].kind == "stopped" and seen["stopped"].transient
    step = int(seen["newest"].name.removeprefix("step-"))
    assert 50 <= step < 80
    assert f"stopped on request after step {step}" in str(seen["stopped"])


def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_taken(disturbed):
    _, seen = disturbed
    facts = seen["outcome"].facts
    (refusal,) = facts["refused_checkpoints"]
    assert str(seen["newest"]) in refusal and "state-00000.safetensors has other bytes" in refusal
    before = int(seen["newest"].name.removeprefix("step-"))
    assert 0 < facts["resumed_from_step"] < before and facts["resumed_from_step"] % 10 == 0


def test_a_disturbed_training_ends_with_the_same_bytes(disturbed, undisturbed):
    job, _ = disturbed
    metrics = (job.folder / "metrics.jsonl").read_bytes()
    assert metrics == (undisturbed.folder / "metrics.jsonl").read_bytes()
    assert digests(job.export) == digests(undisturbed.export)


def test_metrics_are_one_object_a_step_under_known_names(undisturbed):
    lines = [json.loads(line) for line in (undisturbed.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 81))
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert lines[0]["learning_rate"] == 0.0 and lines[8]["learning_rate"] == pytest.approx(1e-3)
    assert lines[-1]["loss"] < 0.1 and lines[-1]["rewards/accuracies"] == 1.0
    assert lines[4]["epoch"] == 1.0
    expected = {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "rewards/margins", "logps/chosen"}
    assert expected <= lines[0].keys()
    assert not any("second" in key or "perf" in key for key in lines[0])
    assert (undisturbed.folder / "perf.log").read_text().count("tokens_per_second") == 80


def test_the_export_is_a_model_with_the_start_models_companions(undisturbed, tiny_llama):
    exported = AutoModelForCausalLM.from_pretrained(undisturbed.export)
    start = AutoModelForCausalLM.from_pretrained(tiny_llama)
    moved = [(a - b).abs().max().item() for a, b in zip(exported.parameters(), start.parameters(), strict=True)]
    assert min(moved) > 0 and exported.dtype == start.dtype
    assert exported.lm_head.weight.data_ptr() == exported.model.embed_tokens.weight.data_ptr()


def test_two_checkpoints_are_kept_and_the_pointer_names_the_newest(undisturbed):
    folder = undisturbed.folder / "checkpoints"
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-00000060", "step-00000070"]
    assert (folder / "latest").read_text() == "step-00000070\n"
    assert not list(folder.glob(".writing-*"))


def identity(job: TrainJob) -> dict[str, object]:
    newest = sorted((job.folder / "checkpoints").glob("step-*"))[-1]
    found: dict[str, object] = json.loads((newest / "checkpoint.json").read_text())["identity"]
    return found


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: flip_a_byte(place / "state-00000.safetensors"), "state-00000.safetensors has other bytes"),
        (lambda place: os.truncate(place / "state-00000.safetensors", 100), "has 100 bytes and should have"),
        (lambda place: (place / "metrics.jsonl").unlink(), "metrics.jsonl cannot be read"),
        (lambda place: (place / "checkpoint.json").write_text('{"step": 7'), "checkpoint.json cannot be read"),
        (lambda place: (place / "checkpoint.json").write_text("[]"), "checkpoint.json cannot be read"),
    ],
)
def test_a_torn_checkpoint_is_refused_by_name(undisturbed, tmp_path, damage, words):
    shutil.copytree(undisturbed.folder / "checkpoints", tmp_path / "checkpoints")
    newest, before = tmp_path / "checkpoints" / "step-00000070", tmp_path / "checkpoints" / "step-00000060"
    damage(newest)
    with pytest.raises(TrainerError, match="is refused") as refused:
        read_checkpoint(newest, identity(undisturbed))
    assert str(newest) in str(refused.value) and words in str(refused.value)
    found, refusals = find_checkpoint(tmp_path / "checkpoints", identity(undisturbed))
    assert found is not None and found.folder == before
    assert refusals == [str(refused.value)]


def test_a_checkpoint_that_was_just_written_stays_beside_later_ones_that_were_refused(job_maker):
    job = job_maker("both-damaged", epochs=12, save_every=40, ranks=1)  # 60 steps
    with pytest.raises(RanksFailed):
        run(job, signal_once(job, 0, signal.SIGTERM, at=45))
    damaged = sorted(job.checkpoints.glob("step-*"))
    assert len(damaged) == 2
    for place in damaged:
        flip_a_byte(place / "state-00000.safetensors")
    with pytest.raises(RanksFailed) as stopped:
        run(job, signal_once(job, 0, signal.SIGTERM, at=7))
    found, refused = find_checkpoint(job.checkpoints, identity(job))
    assert found is not None and f"stopped on request after step {found.step};" in stopped.value.message
    assert 7 <= found.step < 40 and not refused
    assert list(job.checkpoints.glob("step-*")) == [found.folder]


def test_a_checkpoint_of_other_numerics_is_refused(undisturbed):
    other = identity(undisturbed) | {"seed": 8}
    with pytest.raises(TrainerError, match="of a training with other seed"):
        read_checkpoint(undisturbed.folder / "checkpoints" / "step-00000070", other)


@pytest.fixture(scope="module")
def refused(job_maker, tiny_llama, reference, tmp_path_factory) -> dict[str, TrainJob]:
    """Trainings of broken weights, which stop or go on, and one with another model's reference: each a program of its
    own, side by side."""
    place = tmp_path_factory.mktemp("refused")
    shutil.copytree(tiny_llama, place / "broken")
    weights = load_file(place / "broken" / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, place / "broken" / "model.safetensors", metadata={"format": "pt"})
    table = pq.read_table(reference)
    moved = table.set_column(1, "ref_chosen_logps", [[value + 0.5 for value in table["ref_chosen_logps"].to_pylist()]])
    pq.write_table(moved, place / "moved.parquet")
    jobs = {
        "broken weights": job_maker("nan", model=place / "broken"),
        "moved reference": job_maker("wrong-reference", reference=place / "moved.parquet"),
        "all left out": job_maker(
            "all-left-out", model=place / "broken", nonfinite="skip", epochs=1, max_skipped_in_a_row=5
        ),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "training.run", str(job.folder / "job.json")], stderr=subprocess.DEVNULL
        )
        for job in jobs.values()
    ]
    assert [process.wait() for process in started] == [1, 1, 1]
    return jobs


def test_broken_weights_stop_the_first_step_and_name_its_pairs(refused):
    job = refused["broken weights"]
    (failure,) = read_failures(job.folder)
    assert (failure.kind, failure.step) == ("nonfinite", 1)
    named = json.loads((job.folder / "nonfinite.json").read_text())
    assert named["step"] == 1 and len(named["pair_ids"]) == 4
    assert named["pair_ids"][0] in failure.message
    batch, rows = job.folder / "nonfinite.safetensors", load_rows(job.rows)
    assert str(batch) in failure.message
    expected = {}
    for row in (rows[index] for index in batch_indices(20, 4, 7, 0)):
        expected[f"prompt_ids/{row.pair_id}"] = row.prompt_ids
        expected[f"chosen_ids/{row.pair_id}"] = row.chosen_ids
        expected[f"rejected_ids/{row.pair_id}"] = row.rejected_ids
    assert {name: ids.tolist() for name, ids in load_file(batch).items()} == expected
    assert not job.export.exists() and not list(job.checkpoints.glob("step-*"))


def test_a_training_whose_steps_were_all_left_out_has_failed_and_writes_no_model(refused):
    job = refused["all left out"]
    (failure,) = read_failures(job.folder)
    assert (failure.kind, failure.step) == ("nonfinite", 5)
    assert "all 5 steps were left out" in failure.message and str(job.skipped) in failure.message
    assert len(job.skipped.read_text().splitlines()) == 5
    assert not job.export.exists() and not (job.folder / "outcome.json").exists()


def test_a_reference_of_another_model_is_refused_before_the_first_update(refused):
    job = refused["moved reference"]
    (failure,) = read_failures(job.folder)
    assert failure.kind == "reference"
    assert str(job.reference) in failure.message and "must be 0.693147" in failure.message
    assert (job.folder / "metrics.jsonl").read_text() == ""


@pytest.fixture(scope="module")
def moved_away(reference, tmp_path_factory) -> Path:
    """Reference log-probs of two pairs far from anything: no loss of them is finite, though its gradient is."""
    columns = pq.read_table(reference).to_pydict()
    for pair in FAR:
        columns["ref_chosen_logps"][pair], columns["ref_rejected_logps"][pair] = 3e38, -3e38
    place: Path = tmp_path_factory.mktemp("far") / "far.parquet"
    pq.write_table(pa.table(columns), place)
    return place


# Pairs of the third and the fourth batch of the first epoch: of 20 pairs, with seed 7.
FAR = [batch_indices(20, 4, 7, step)[0] for step in (2, 3)]


def test_steps_whose_loss_is_not_finite_are_left_out_named_and_survive_a_resume(job_maker, moved_away):
    settings = {"reference": moved_away, "nonfinite": "skip", "save_every": 4, "ranks": 1}
    calm, job = job_maker("skips-calm", **settings), job_maker("skips", **settings)
    run(calm)
    with pytest.raises(RanksFailed):
        run(job, signal_once(job, 0, signal.SIGTERM, at=4))
    outcome = run(job)
    named = [json.loads(line) for line in job.skipped.read_text().splitlines()]
    concerned = {(entry["step"], entry["value"], *entry["pair_ids"]) for entry in named}
    assert {(3, "the loss", f"made/{FAR[0]}"), (4, "the loss", f"made/{FAR[1]}")} <= concerned
    assert outcome.facts["skipped_steps"] == len(named) in (3, 4)  # in the second epoch they may share a batch
    lines = [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [n for n in range(1, 11) if n not in {entry["step"] for entry in named}]
    assert [line["optim/skipped_steps"] for line in lines[:3]] == [0, 0, 2]
    assert (calm.folder / "metrics.jsonl").read_bytes() == (job.folder / "metrics.jsonl").read_bytes()
    assert calm.skipped.read_bytes() == job.skipped.read_bytes()
    # The schedule counts a step that was left out: one of warm-up, then a line to 0.
    assert lines[2]["learning_rate"] == pytest.approx(1e-3 * (1 - 3 / 9))


def test_one_step_too_many_in_a_row_stops_the_training(job_maker, moved_away):
    job = job_maker("skips-two", reference=moved_away, nonfinite="skip", max_skipped_in_a_row=1, ranks=1)
    with pytest.raises(RanksFailed, match=r"step 4: the loss is not .* and 2 steps in a row would be left out") as told:
        run(job)
    assert told.value.kind == "nonfinite" and not told.value.transient
    assert json.loads((job.folder / "nonfinite.json").read_text())["pair_ids"] == [f"made/{FAR[1]}"]


def test_an_empty_completion_is_named_before_anything_is_loaded(tmp_path):
    rows = [
        {"pair_id": f"made/{n}", "prompt_ids": [5, 6], "chosen_ids": [] if n in (3, 5) else [7], "rejected_ids": [8, 9]}
        for n in range(8)
    ]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "rows"))
    with pytest.raises(TrainerError, match=r"2 of 8 pairs in .* an empty prompt or answer, .* first made/3") as refused:
        pair_ids_of(load_rows(tmp_path / "rows"), tmp_path / "rows")
    assert refused.value.kind == "data"


def test_a_job_that_is_none_is_said_in_a_line(tmp_path):
    (tmp_path / "job.json").write_text('{"model": 3}')
    done = subprocess.run(
        [sys.executable, "-m", "training.run", str(tmp_path / "job.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is not a training job" in done.stderr and "Traceback" not in done.stderr
