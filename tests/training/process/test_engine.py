"""Every ZeRO stage is plain torch, to rounding; a checkpoint belongs to no stage; the export is what was trained."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM

from training.batch import batch_indices, pack_batch
from training.checkpoint import read_checkpoint
from training.config import TrainConfig
from training.forward import load_model, pack_logps
from training.jobs import TrainJob
from training.launch import launch
from training.losses import PairLogps, pair_losses
from training.reference import load_reference, pair_ids_of
from training.rows import load_rows
from training.schedule import learning_rate
from training.zero import effective_stage, settings

STEPS, SAVED = 5, 3  # as in stage_ranks.py
STAGES = (0, 1, 2, 3)


class Runs(NamedTuple):
    """What stage_ranks.py found: [loss, gradient norm] of each step of each run."""

    found: dict[str, list[list[float]]]
    job: TrainJob


@pytest.fixture(scope="module")
def plain(job_maker) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """The same steps by torch alone, one pack a batch: losses and gradient norms, and the weights at the end."""
    job = job_maker("plain")
    config, rows = job.config, load_rows(job.rows)
    reference = load_reference(job.reference, pair_ids_of(rows, job.rows))
    model = load_model(job.model, precision="fp32", device="cpu")
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    shown = []
    for step in range(STEPS):
        indices = batch_indices(len(rows), config.batch_size, job.seed, step)
        ((pack,),) = pack_batch([rows[index] for index in indices], 4096, 1)
        given = PairLogps(reference.chosen[indices][pack.pairs], reference.rejected[indices][pack.pairs])
        loss = pair_losses(config, pack_logps(model, pack), given, pack.completions).losses.mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.param_groups[0]["lr"] = learning_rate(config, step, 10)
        adam.step()
        adam.zero_grad()
        shown.append([loss.item(), norm.item()])
    return shown, {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def train_all_stages(job: TrainJob) -> Runs:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        launch("stage_ranks", job.folder, job.folder, ranks=job.config.ranks, log_file=job.folder / "ranks.log")
    return Runs(json.loads((job.folder / "runs.json").read_text()), job)


@pytest.fixture(scope="module")
def two_ranks(job_maker) -> Runs:
    return train_all_stages(job_maker("two-ranks", ranks=2))


@pytest.fixture(scope="module")
def one_rank(job_maker, two_ranks) -> Runs:
    return train_all_stages(job_maker("one-rank", ranks=1, resume=f"from:{two_ranks.job.folder}"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_stage_has_the_losses_of_plain_torch(one_rank, two_ranks, plain, ranks):
    expected, _ = plain
    found = (one_rank if ranks == 1 else two_ranks).found
    for stage in STAGES:
        for (loss, norm), (plain_loss, plain_norm) in zip(found[f"whole-{stage}"], expected, strict=True):
            assert loss == pytest.approx(plain_loss, abs=1e-6)
            assert norm == pytest.approx(plain_norm, rel=1e-4)
    assert abs(expected[-1][0] - expected[0][0]) > 5e-3  # and they move


def test_a_resume_at_the_same_stage_repeats_the_losses_bit_for_bit(two_ranks):
    for stage in STAGES:
        assert two_ranks.found[f"same-{stage}"] == two_ranks.found[f"whole-{stage}"][SAVED:]


def test_a_checkpoint_goes_on_at_another_stage(two_ranks):
    for stage in STAGES:
        rest = two_ranks.found[f"whole-{stage}"][SAVED:]
        for (loss, _), (whole, _) in zip(two_ranks.found[f"other-{stage}"], rest, strict=True):
            assert loss == pytest.approx(whole, abs=1e-6)


def test_a_checkpoint_of_two_ranks_goes_on_at_one(one_rank, two_ranks):
    rest = two_ranks.found["whole-3"][SAVED:]
    for (loss, _), (whole, _) in zip(one_rank.found["other-3"], rest, strict=True):
        assert loss == pytest.approx(whole, abs=1e-6)


def test_a_checkpoint_is_laid_out_alike_at_every_stage(two_ranks):
    layouts = []
    for stage in STAGES:
        checkpoint = read_checkpoint(two_ranks.job.folder / f"fp32-{stage}" / f"step-{SAVED:08d}", {})
        layouts.append((checkpoint.step, checkpoint.shards))
        moments = checkpoint.state("model.layers.0.mlp.up_proj.weight")
        assert moments.weight.shape == moments.exp_avg.shape == moments.exp_avg_sq.shape == (80, 48)
        assert (moments.exp_avg_sq > 0).any()
    assert all(layout == layouts[0] for layout in layouts)


def test_bf16_resumes_bit_for_bit_since_the_fp32_master_is_what_is_saved(two_ranks):
    for stage in (1, 2, 3):
        whole = two_ranks.found[f"bf16-{stage}"]
        assert two_ranks.found[f"bf16-resumed-{stage}"] == whole[SAVED:]
        for (loss, _), (fp32, _) in zip(whole, two_ranks.found["whole-2"], strict=True):
            assert loss == pytest.approx(fp32, abs=0.02)


def test_a_bf16_training_exports_bf16(two_ranks):
    assert AutoModelForCausalLM.from_pretrained(two_ranks.job.folder / "model-bf16").dtype == torch.bfloat16


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_offloaded_optimizer_makes_the_same_updates(one_rank, two_ranks, ranks):
    found = (one_rank if ranks == 1 else two_ranks).found
    for stage in (1, 2, 3):
        for (loss, norm), (whole, whole_norm) in zip(
            found[f"fp32-{stage}-offload"], found[f"whole-{stage}"], strict=True
        ):
            assert loss == pytest.approx(whole, abs=1e-6)
            assert norm == pytest.approx(whole_norm, rel=1e-5)


def test_an_offloaded_optimizer_adds_gradients_of_bf16_up_in_fp32(two_ranks):
    # At stage 3; below it DeepSpeed does not, and the config refuses it.
    for (loss, norm), (whole, whole_norm) in zip(
        two_ranks.found["bf16-3-offload"], two_ranks.found["bf16-3"], strict=True
    ):
        assert loss == pytest.approx(whole, abs=1e-6)
        assert norm == pytest.approx(whole_norm, rel=1e-5)
    with pytest.raises(ValueError, match="offload optimizer with precision bf16 needs zero_stage 3"):
        TrainConfig(offload="optimizer", zero_stage=2, precision="bf16")
    with pytest.raises(ValueError, match="offload optimizer needs zero_stage 1 or more"):
        TrainConfig(offload="optimizer", zero_stage=0, precision="fp32")


def test_a_checkpoint_knows_no_offload(two_ranks):
    for name in ("fp32-1-offload", "fp32-2-offload", "fp32-3-offload", "bf16-3-offload"):
        rest = two_ranks.found[name][SAVED:]
        assert two_ranks.found[f"{name}-same"] == rest
        for (loss, _), (whole, _) in zip(two_ranks.found[f"{name}-back"], rest, strict=True):
            assert loss == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("stage", [0, 3])
def test_the_export_holds_the_trained_weights(two_ranks, plain, stage):
    _, weights = plain
    exported = dict(AutoModelForCausalLM.from_pretrained(two_ranks.job.folder / f"model-{stage}").named_parameters())
    assert exported.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(exported[name].detach(), weight, atol=2e-5, rtol=0)


def test_the_engine_is_freed_before_the_export_is_written(two_ranks, plain):
    _, weights = plain
    count = sum(weight.numel() for weight in weights.values())
    held = json.loads((two_ranks.job.folder / "held.json").read_text())
    offloaded = {"fp32-1-offload", "fp32-2-offload", "fp32-3-offload", "bf16-3-offload"}
    assert held.keys() == {"fp32-0", "fp32-1", "fp32-2", "fp32-3", "bf16-1", "bf16-2", "bf16-3"} | offloaded
    for before, after in held.values():
        # A rank that exports nothing: a share of weights, master and two moments before, less than a byte a parameter
        # afterwards (the model's rotary table, and reference log-probs).
        assert before > 8 * count and after < count


def test_every_tensor_that_is_gathered_for_the_export_is_said(two_ranks, plain):
    _, weights = plain
    said = [tuple(one.values()) for one in json.loads((two_ranks.job.folder / "said.json").read_text())]
    total = len(weights)
    first = [(n, 3, "pairs scored") for n in (1, 2, 3)] + [(n, total, "tensors gathered") for n in range(1, total + 1)]
    assert said[: len(first)] == first


def test_bf16_has_no_stage_0():
    assert effective_stage(0, "bf16") == 1
    assert [effective_stage(stage, "fp32") for stage in STAGES] == [0, 1, 2, 3]


def test_no_clipping_is_said_as_zero_and_every_batch_number_agrees():
    config = TrainConfig(max_grad_norm=None, zero_stage=2, precision="fp32")
    written = settings(config, ranks=4, device="cpu")
    assert written["gradient_clipping"] == 0.0
    assert written["train_batch_size"] == 4
    assert settings(TrainConfig(zero_stage=2, precision="fp32"), ranks=1, device="cpu")["gradient_clipping"] == 1.0


def test_offload_is_written_out_and_locks_pages_on_a_gpu_alone():
    config = TrainConfig(offload="optimizer", zero_stage=3)
    for device, locked in (("cpu", False), ("cuda", True)):
        found = settings(config, ranks=2, device=device)["zero_optimization"]["offload_optimizer"]
        assert (found["device"], found["pin_memory"]) == ("cpu", locked)
    assert "offload_optimizer" not in settings(TrainConfig(), ranks=2, device="cuda")["zero_optimization"]
    assert config.identity() == TrainConfig().identity()
