"""LoRA under every ZeRO stage: the losses of plain torch, checkpoints of adapters alone, an export that is merged."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from training.batch import batch_indices, pack_batch
from training.checkpoint import read_checkpoint
from training.forward import load_model, pack_logps
from training.jobs import TrainJob
from training.launch import launch
from training.losses import PairLogps, pair_losses
from training.reference import load_reference, pair_ids_of
from training.rows import load_rows
from training.schedule import learning_rate

STEPS, SAVED = 5, 3  # as in stage_ranks.py
STAGES = (0, 1, 2, 3)
SETTINGS: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8}, "learning_rate": 2e-2}


@pytest.fixture(scope="module")
def plain(job_maker) -> list[float]:
    """Losses of the same steps by torch alone."""
    job = job_maker("lora-plain", **SETTINGS)
    rows = load_rows(job.rows)
    reference = load_reference(job.reference, pair_ids_of(rows, job.rows))
    model = load_model(job.model, precision="fp32", device="cpu", lora=job.config.lora, seed=job.seed)
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        indices = batch_indices(len(rows), job.config.batch_size, job.seed, step)
        ((pack,),) = pack_batch([rows[index] for index in indices], 4096, 1)
        given = PairLogps(reference.chosen[indices][pack.pairs], reference.rejected[indices][pack.pairs])
        loss = pair_losses(job.config, pack_logps(model, pack), given, pack.completions).losses.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.param_groups[0]["lr"] = learning_rate(job.config, step, 10)
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    return losses


def train_all_stages(job: TrainJob) -> tuple[TrainJob, dict[str, list[list[float]]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        launch("stage_ranks", job.folder, job.folder, ranks=job.config.ranks, log_file=job.folder / "ranks.log")
    return job, json.loads((job.folder / "runs.json").read_text())


@pytest.fixture(scope="module")
def two_ranks(job_maker):
    return train_all_stages(job_maker("lora-two", ranks=2, **SETTINGS))


@pytest.fixture(scope="module")
def one_rank(job_maker, two_ranks):
    return train_all_stages(job_maker("lora-one", ranks=1, resume=f"from:{two_ranks[0].folder}", **SETTINGS))


@pytest.mark.parametrize("ranks", [1, 2])
def test_adapters_have_the_losses_of_plain_torch_at_every_stage(one_rank, two_ranks, plain, ranks):
    _, found = one_rank if ranks == 1 else two_ranks
    for stage in STAGES:
        assert [loss for loss, _ in found[f"whole-{stage}"]] == pytest.approx(plain, abs=1e-6)
    assert plain[0] == pytest.approx(0.6931472, abs=1e-6) and abs(plain[-1] - plain[0]) > 5e-3


def test_adapters_resume_bit_for_bit_at_their_stage_and_at_another(one_rank, two_ranks):
    _, found = two_ranks
    for stage in STAGES:
        rest = found[f"whole-{stage}"][SAVED:]
        assert found[f"same-{stage}"] == rest
        for (loss, _), (whole, _) in zip(found[f"other-{stage}"], rest, strict=True):
            assert loss == pytest.approx(whole, abs=1e-6)
    for (loss, _), (whole, _) in zip(one_rank[1]["other-3"], found["whole-3"][SAVED:], strict=True):
        assert loss == pytest.approx(whole, abs=1e-6)


def test_a_checkpoint_holds_the_adapters_and_nothing_of_the_start_model(two_ranks):
    checkpoint = read_checkpoint(two_ranks[0].folder / "fp32-3" / f"step-{SAVED:08d}", {})
    assert len(checkpoint.shards) == 28 and all("lora_" in name for name in checkpoint.shards)
    state = checkpoint.state("model.layers.0.mlp.up_proj.lora_A.default.weight")
    assert state.weight.shape == state.exp_avg.shape == (4, 48) and (state.exp_avg_sq > 0).any()


@pytest.mark.parametrize("stage", [0, 3])
def test_the_export_is_the_start_model_with_the_adapters_added(two_ranks, stage):
    job, _ = two_ranks
    exported = AutoModelForCausalLM.from_pretrained(job.folder / f"model-{stage}")
    start = AutoModelForCausalLM.from_pretrained(job.model)
    assert dict(exported.named_parameters()).keys() == dict(start.named_parameters()).keys()
    ids = torch.arange(3, 63).view(2, 30)
    with torch.no_grad():
        before, merged = start(ids).logits, exported(ids).logits
        beside = peft.PeftModel.from_pretrained(start, job.folder / f"model-{stage}-adapter")(ids).logits
    assert (merged - before).abs().max() > 1e-2
    torch.testing.assert_close(merged, beside, rtol=0, atol=1e-4)
    assert torch.equal(exported.model.norm.weight, start.model.norm.weight)
