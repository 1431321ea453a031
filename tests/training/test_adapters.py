"""LoRA: untrained adapters change nothing, training moves them alone, and it moves them as TRL with peft does."""

import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks import trl_peer
from tests.training.pairs import made_up_rows
from tests.training.plain_loop import train
from training import adapters
from training.batch import batch_indices
from training.config import LoraConfig, TrainConfig
from training.forward import load_model, pack_logps
from training.pack import make_pack
from training.status import TrainerError

LORA = LoraConfig(rank=4, alpha=8.0)
CONFIG = TrainConfig(
    precision="fp32", learning_rate=2e-2, batch_size=4, warmup_ratio=0.2, tokens_per_pack=120, lora=LORA
)  # fmt: skip
STEPS = 12


def adapted(folder: Path, lora: LoraConfig = LORA, seed: int = 0) -> Any:
    return load_model(folder, precision="fp32", device="cpu", lora=lora, seed=seed)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_untrained_adapters_leave_every_log_prob_as_it_was_to_the_bit(tiny_llama: Path, precision: Any) -> None:
    pack = make_pack(made_up_rows(), range(8))
    plain = load_model(tiny_llama, precision=precision, device="cpu")
    model = load_model(tiny_llama, precision=precision, device="cpu", lora=LORA)
    with torch.no_grad():
        for ours, start in zip(pack_logps(model, pack), pack_logps(plain, pack), strict=True):
            assert torch.equal(ours, start)


def test_only_the_adapters_are_trained_and_they_depend_on_the_seed(tiny_llama: Path) -> None:
    one, same, other = (
        {name: p for name, p in adapted(tiny_llama, seed=seed).named_parameters() if p.requires_grad}
        for seed in (1, 1, 2)
    )
    # Two layers of seven linear layers, two matrices each: rank times (inputs + outputs), 48 wide, 80 in the MLP.
    assert len(one) == 2 * 7 * 2 and all("lora_" in name for name in one)
    grouped = 48 // 6 * 2
    widths = 2 * (48 + 48) + 2 * (48 + grouped) + 3 * (48 + 80)
    assert sum(parameter.numel() for parameter in one.values()) == 2 * LORA.rank * widths
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_named_targets_alone_get_adapters(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, LoraConfig(targets=("q_proj", "v_proj")))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 8 and all("q_proj" in name or "v_proj" in name for name in trained)


def test_a_target_that_the_model_has_not_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(TrainerError, match=r"train.lora.targets is \('query',\): .*not found") as refused:
        adapted(tiny_llama, LoraConfig(targets=("query",)))
    assert refused.value.kind == "recipe"


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_the_head_and_the_embedding_are_refused_as_targets(tiny_llama: Path, layer: str) -> None:
    with pytest.raises(TrainerError, match="names the embedding or the head"):
        adapted(tiny_llama, LoraConfig(targets=("q_proj", layer)))


def test_without_peft_it_is_said_what_to_install(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(TrainerError, match=r"needs the package peft: pip install 'prefstack\[lora\]'"):
        adapted(tiny_llama)


def test_a_model_of_another_family_takes_adapters_too(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=97, n_positions=512, n_embd=48, n_layer=1, n_head=4, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = adapted(tmp_path)
    sum(side.sum() for side in pack_logps(model, make_pack(made_up_rows(), [0, 3]))).backward()
    grads = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert grads and all("lora_" in name for name in grads)


def test_a_merged_model_gives_what_the_adapters_gave_and_the_adapter_loads_alone(
    tiny_llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    wrapped = adapters.wrap(AutoModelForCausalLM.from_pretrained(tiny_llama), LORA)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in adapters.parameters_of(wrapped).items():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        ids = torch.randint(3, 97, (2, 20), generator=generator)
        expected = wrapped(ids).logits
        adapters.save(wrapped, tmp_path / "adapter")
        merged = adapters.merge(wrapped)(ids).logits
        start = AutoModelForCausalLM.from_pretrained(tiny_llama)
        assert (start(ids).logits - expected).abs().max() > 0.1
        beside = peft.PeftModel.from_pretrained(start, tmp_path / "adapter")(ids).logits
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(beside, expected, rtol=0, atol=1e-6)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    assert str(tiny_llama) not in (tmp_path / "adapter" / "adapter_config.json").read_text()


def test_a_dozen_steps_give_the_losses_and_gradient_norms_of_trl_with_peft(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    lengths = [tuple(int(n) for n in torch.randint(1, 25, (3,), generator=generator)) for _ in range(STEPS * 4)]
    rows = made_up_rows(lengths, seed=6)
    ordered = [rows[i] for step in range(STEPS) for i in batch_indices(len(rows), 4, 7, step)]
    model = adapted(tiny_llama)
    begun = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    class WithAdapters(trl_peer._TokenRowTrainer):
        """The same trainer, with adapters that begin where ours do."""

        def __init__(self, **settings: Any) -> None:
            lora = peft.LoraConfig(task_type="CAUSAL_LM", r=LORA.rank, lora_alpha=LORA.alpha,
                                   target_modules="all-linear")  # fmt: skip
            super().__init__(**settings, peft_config=lora)
            theirs = dict(self.model.base_model.model.named_parameters())
            with torch.no_grad():
                for name, value in begun.items():
                    theirs[name].copy_(value)

    monkeypatch.setattr(trl_peer, "_TokenRowTrainer", WithAdapters)
    ours = train(model, rows, CONFIG, seed=7, steps=STEPS)
    theirs = trl_peer.train_with_trl(tiny_llama, ordered, CONFIG, work=tmp_path, micro_batch=2, precompute=True)
    assert ours.losses[0] == pytest.approx(0.6931472, abs=1e-6)
    assert max(ours.losses) - min(ours.losses) > 0.05  # it did train
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-5)
    assert ours.grad_norms == pytest.approx(theirs.grad_norms, rel=1e-4)
