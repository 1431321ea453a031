"""An export is written in shards, read back, and refused where it is not the model that was trained."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.pairs import made_up_rows, plain_sums
from training import export
from training.config import Precision
from training.export import Export
from training.losses import PairLogps
from training.status import Progress, TrainerError

ROWS = made_up_rows()[:3]


@pytest.fixture
def trained(tiny_llama: Path) -> Callable[..., Export]:
    """A policy whose weights have moved away from the start model's."""

    def make(precision: Precision = "fp32", dtype: torch.dtype = torch.float32) -> Export:
        model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=dtype)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator).to(dtype)
            logps = plain_sums(model, ROWS)
        return Export(model, tiny_llama, precision, ROWS, logps)

    return make


def test_a_model_above_the_limit_is_written_in_shards_with_an_index(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_SHARD", "50KB")
    one = trained()
    one.write(tmp_path / "model", adapter=tmp_path / "adapter")
    shards = sorted((tmp_path / "model").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert len(shards) > 2 and set(index["weight_map"].values()) == {shard.name for shard in shards}
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for ours, theirs in zip(one.model.parameters(), read.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_every_file_tensor_and_pair_of_an_export_is_said_so_that_a_slow_disk_is_no_standstill(
    trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "MAX_SHARD", "50KB")
    one, said = trained(), []
    one.write(tmp_path / "model", adapter=tmp_path / "adapter", say=said.append)
    files = len(list((tmp_path / "model").glob("model-*.safetensors")))
    tensors = len(list(one.model.parameters()))
    parts = [("files of the model written", files), ("tensors read back", tensors), ("tensors compared", tensors)]
    parts.append(("pairs scored", 3))
    assert files > 2
    assert said == [Progress(n, total, unit) for unit, total in parts for n in range(1, total + 1)]


@pytest.mark.parametrize(
    ("precision", "dtype", "nat"),
    [
        # Per root token: 1e-4 of an fp32 model, 0.4 of one that is written in bf16, even if it was trained in fp32.
        ("fp32", torch.float32, 1e-4),
        ("bf16", torch.bfloat16, 0.4),
        ("fp32", torch.bfloat16, 0.4),
    ],
)
def test_another_log_prob_than_in_training_is_refused_by_pair(trained, tmp_path, precision, dtype, nat):
    one = trained(precision, dtype)
    off = nat * len(ROWS[2].rejected_ids) ** 0.5
    one.write(tmp_path / "alike", adapter=tmp_path / "adapter")
    moved = one.logps.rejected + torch.tensor([0.0, 0.0, 2.1 * off])
    with pytest.raises(TrainerError, match=rf"rejected answer of pair {ROWS[2].pair_id} a log-prob of") as refused:
        replace(one, logps=PairLogps(one.logps.chosen, moved)).write(tmp_path / "other", adapter=tmp_path / "adapter")
    assert refused.value.kind == "export" and str(tmp_path / "other") in str(refused.value)


def test_log_probs_that_are_no_numbers_are_no_match(trained, tmp_path):
    one = trained()
    lost = PairLogps(torch.full((3,), torch.nan), one.logps.rejected)
    with pytest.raises(TrainerError, match="which was nan in training"):
        replace(one, logps=lost).write(tmp_path / "model", adapter=tmp_path / "adapter")


def test_a_pair_that_had_no_log_prob_in_training_has_none_to_compare(trained, tmp_path, monkeypatch):
    one = trained()
    gone = PairLogps(torch.tensor([-torch.inf, *one.logps.chosen[1:].tolist()]), one.logps.rejected)
    monkeypatch.setattr(export, "_logps", lambda *_: gone)
    replace(one, logps=gone).write(tmp_path / "model", adapter=tmp_path / "adapter")
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_weights_that_do_not_read_back_are_a_fault_of_the_disk(trained, tmp_path, monkeypatch):
    one = trained()
    monkeypatch.setattr(export, "load_model", lambda folder, **_: AutoModelForCausalLM.from_pretrained(one.start))
    with pytest.raises(TrainerError, match=r"loads with another model\.embed_tokens\.weight") as refused:
        one.write(tmp_path / "model", adapter=tmp_path / "adapter")
    assert refused.value.kind == "disk"
