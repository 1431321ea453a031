"""The shared-prompt forward gives what a plain forward gives, and nothing leaks from one sequence to another."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.training.pairs import (
    VOCABULARY,
    in_batch_order,
    made_up_rows,
    plain_logps,
    plain_model,
    plain_sums,
    related_rows,
)
from training.batch import pack_batch
from training.forward import check_ids, check_lengths, load_model, pack_logps
from training.head import ScoringHead
from training.losses import PairLogps
from training.pack import Pack, make_pack
from training.rows import load_rows
from training.status import TrainerError

SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2,
)  # fmt: skip

SHORT = {"max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
LONGROPE = {
    "rope_type": "longrope", "factor": 8.0, "rope_theta": 1e4, "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
}  # fmt: skip


def scored(model: PreTrainedModel, packs: list[Pack]) -> PairLogps:
    logps = [pack_logps(model, pack) for pack in packs]
    return PairLogps(*(in_batch_order(packs, [values[side] for values in logps]) for side in range(2)))


def gradients(model: torch.nn.Module, logps: PairLogps) -> dict[str, Tensor]:
    """Of a sum that weights every pair and both sides differently, so that a swap would show."""
    model.zero_grad()
    weights = torch.linspace(0.5, 1.5, len(logps.chosen))
    (weights * (logps.chosen - 0.7 * logps.rejected)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], relative: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert (ours[name] - expected).norm() <= relative * expected.norm(), name
        assert torch.cosine_similarity(ours[name].flatten().double(), expected.flatten().double(), 0) >= 1 - 1e-9, name


@pytest.mark.parametrize("model_folder", ["tiny_llama", "tiny_untied_llama"])
def test_packed_pairs_score_as_each_sequence_alone(model_folder: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model_folder)
    rows = made_up_rows()
    ours, plain = load_model(folder, precision="fp32", device="cpu"), plain_model(folder)
    logps, expected = scored(ours, pack_batch(rows, 200, 1)[0]), plain_sums(plain, rows)
    for side in range(2):
        torch.testing.assert_close(logps[side], expected[side], atol=1e-4, rtol=0)
    assert_same_gradients(gradients(ours, logps), gradients(plain, expected))


@pytest.mark.parametrize("model_folder", ["tiny_llama", "tiny_untied_llama"])
def test_pairs_that_share_prompts_and_answers_score_as_each_sequence_alone(
    model_folder: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model_folder)
    rows = related_rows()
    ours, plain = load_model(folder, precision="fp32", device="cpu"), plain_model(folder)
    packs = pack_batch(rows, 500, 1)[0]
    assert sum(pack.tokens for pack in packs) < sum(row.tokens for row in rows) * 2 / 3
    logps, expected = scored(ours, packs), plain_sums(plain, rows)
    for side in range(2):
        torch.testing.assert_close(logps[side], expected[side], atol=1e-4, rtol=0)
    assert_same_gradients(gradients(ours, logps), gradients(plain, expected))


@pytest.mark.parametrize("tail_weight", [1.0, 0.25])
def test_a_shared_answer_counts_as_far_as_each_pair_wants_it(tail_weight: float, tiny_llama: Path) -> None:
    rows = related_rows()
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    together = pack_logps(model, make_pack(rows, range(len(rows))), tail_weight=tail_weight)
    order = make_pack(rows, range(len(rows))).pairs.tolist()
    for at, row in enumerate(order):
        alone = pack_logps(model, make_pack(rows, [row]), tail_weight=tail_weight)
        for side in range(2):
            torch.testing.assert_close(together[side][at], alone[side][0], atol=1e-4, rtol=0)


def test_each_token_is_within_a_millionth(tiny_llama: Path) -> None:
    row = made_up_rows([(6, 1, 1)])[0]
    ours, plain = load_model(tiny_llama, precision="fp32", device="cpu"), plain_model(tiny_llama)
    logps = pack_logps(ours, make_pack([row], [0]))
    chosen, rejected = plain_logps(plain, row)
    torch.testing.assert_close(logps.chosen, chosen, atol=2e-6, rtol=0)
    torch.testing.assert_close(logps.rejected, rejected, atol=2e-6, rtol=0)


def test_one_pack_or_many_give_the_same(tiny_llama: Path) -> None:
    rows = made_up_rows()
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    together = scored(model, [make_pack(rows, range(len(rows)))])
    apart = scored(model, [make_pack(rows, [i]) for i in range(len(rows))])
    torch.testing.assert_close(together.chosen, apart.chosen, atol=1e-4, rtol=0)
    torch.testing.assert_close(together.rejected, apart.rejected, atol=1e-4, rtol=0)


def _mistral(folder: Path) -> None:
    MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=20)).save_pretrained(folder)


def _qwen2(folder: Path) -> None:
    Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True)).save_pretrained(folder)


def _qwen3(folder: Path) -> None:
    Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)).save_pretrained(folder)


@pytest.mark.parametrize("write", [_mistral, _qwen2, _qwen3])
def test_the_other_families_score_alike_a_sliding_window_included(write, tmp_path: Path) -> None:
    torch.manual_seed(1)
    write(tmp_path)
    rows = made_up_rows()
    ours, plain = load_model(tmp_path, precision="fp32", device="cpu"), plain_model(tmp_path)
    assert isinstance(ours.get_output_embeddings(), ScoringHead)
    logps, expected = scored(ours, pack_batch(rows, 300, 1)[0]), plain_sums(plain, rows)
    torch.testing.assert_close(logps.chosen, expected.chosen, atol=2e-4, rtol=0)
    torch.testing.assert_close(logps.rejected, expected.rejected, atol=2e-4, rtol=0)
    assert_same_gradients(gradients(ours, logps), gradients(plain, expected))


def test_a_model_of_another_family_is_padded_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(2)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    rows = [*made_up_rows(), *related_rows()]
    ours = load_model(tmp_path, precision="fp32", device="cpu")
    assert "gpt2 have no shared-prompt path" in caplog.text
    plain = plain_model(tmp_path).eval()  # GPT-2 has dropout, which ours must not have although it is in training mode
    logps, expected = scored(ours, pack_batch(rows, 300, 1)[0]), plain_sums(plain, rows)
    torch.testing.assert_close(logps.chosen, expected.chosen, atol=2e-4, rtol=0)
    torch.testing.assert_close(logps.rejected, expected.rejected, atol=2e-4, rtol=0)
    assert_same_gradients(gradients(ours, logps), gradients(plain, expected))


def test_a_model_that_lacks_weights_is_refused_and_not_filled_up_at_random(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=4)).save_pretrained(
        tmp_path / "gpt2"
    )
    Qwen2ForCausalLM(Qwen2Config(**SHAPE)).save_pretrained(tmp_path / "qwen2")
    lost = {"gpt2": "transformer.h.0.ln_1.weight", "qwen2": "model.layers.1.self_attn.q_proj.bias"}
    for family, name in lost.items():
        path = tmp_path / family / "model.safetensors"
        state = load_file(path)
        del state[name]
        save_file(state, path, metadata={"format": "pt"})
        with pytest.raises(TrainerError, match=f"lacks 1 of the weights .* {name}$") as refused:
            load_model(tmp_path / family, precision="fp32", device="cpu")
        assert refused.value.kind == "model"


def test_ids_that_the_model_has_no_embedding_of_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    rows = {"pair_id": ["a"], "prompt_ids": [[5]], "chosen_ids": [[VOCABULARY]], "rejected_ids": [[7]]}
    Dataset.from_dict(rows).save_to_disk(tmp_path)
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    with pytest.raises(TrainerError, match=f"holds the token id {VOCABULARY} .* ids below {VOCABULARY}:") as refused:
        check_ids(model, load_rows(tmp_path), tmp_path)
    assert refused.value.kind == "data"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=1, n_head=4)), "learned"),
        (LlamaForCausalLM(LlamaConfig(**SHAPE | SHORT, rope_parameters=DYNAMIC)), "rope type dynamic depend"),
        (LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LONGROPE)), "rope type longrope depend"),
    ],
)
def test_rows_beyond_what_a_models_positions_can_tell_apart_are_refused(
    model: PreTrainedModel, said: str, tmp_path: Path
) -> None:
    for longest, refused in ((64, False), (65, True)):
        rows = {"pair_id": ["a"], "prompt_ids": [[5] * 40], "chosen_ids": [[6]], "rejected_ids": [[7] * (longest - 40)]}
        Dataset.from_dict(rows).save_to_disk(tmp_path / str(longest))
        loaded = load_rows(tmp_path / str(longest))
        if refused:
            with pytest.raises(TrainerError, match=f"has 65 tokens, and .*{said}.* 64: lower tokenize.max_length"):
                check_lengths(model, loaded, tmp_path)
        else:
            check_lengths(model, loaded, tmp_path)


def test_no_other_model_is_asked_how_long_its_rows_are(tiny_llama: Path, tmp_path: Path) -> None:
    rows = {"pair_id": ["a"], "prompt_ids": [[5] * 4000], "chosen_ids": [[6]], "rejected_ids": [[7]]}
    Dataset.from_dict(rows).save_to_disk(tmp_path)
    check_lengths(load_model(tiny_llama, precision="fp32", device="cpu"), load_rows(tmp_path), tmp_path)


def test_rejected_tokens_of_one_pair_reach_no_other_sequence(tiny_llama: Path) -> None:
    rows = made_up_rows()
    changed = list(rows)
    changed[4] = rows[4]._replace(rejected_ids=rows[4].rejected_ids[::-1])
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    everything = range(len(rows))
    before, after = (pack_logps(model, make_pack(some, everything)) for some in (rows, changed))
    assert torch.equal(before.chosen, after.chosen)
    others = [i for i in everything if i != 4]
    assert torch.equal(before.rejected[others], after.rejected[others])
    assert before.rejected[4] != after.rejected[4]


def test_the_gradient_of_one_pair_reaches_its_own_tokens_only(tiny_llama: Path) -> None:
    rows = made_up_rows()
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    embedded = []
    model.get_input_embeddings().register_forward_hook(lambda _m, _i, out: (out.retain_grad(), embedded.append(out))[0])
    pack = make_pack(rows, range(len(rows)))
    pack_logps(model, pack).rejected[4].backward()
    start, prompt_end, (chosen_end, rejected_end) = pack.trees[4]
    touched = embedded[0].grad[0].abs().sum(-1) > 0
    expected = torch.zeros_like(touched)
    expected[start:prompt_end] = True
    expected[chosen_end : rejected_end - 1] = True  # the last token predicts nothing
    assert torch.equal(touched, expected)


def test_gradients_of_an_fp64_model_are_its_finite_differences(tiny_untied_llama: Path) -> None:
    rows = made_up_rows([(3, 4, 2), (2, 1, 70)])
    model = load_model(tiny_untied_llama, precision="fp32", device="cpu").double()
    pack = make_pack(rows, [0, 1])

    def value() -> Tensor:
        logps = pack_logps(model, pack)
        return (logps.chosen - 0.5 * logps.rejected).sum()

    value().backward()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        analytic = (parameter.grad * direction).sum()
        with torch.no_grad():
            step = 1e-5
            parameter += step * direction
            above = value()
            parameter -= 2 * step * direction
            below = value()
            parameter += step * direction
        torch.testing.assert_close(analytic, (above - below) / (2 * step), rtol=1e-6, atol=1e-7, msg=name)


def test_the_same_call_twice_gives_the_same_bits(tiny_llama: Path) -> None:
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    pack = make_pack(made_up_rows(), range(8))
    first, second = scored(model, [pack]), scored(model, [pack])
    assert torch.equal(first.chosen, second.chosen)
    grads = [gradients(model, logps) for logps in (first, second)]
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_a_state_dict_keeps_the_names_of_transformers(tiny_llama: Path, tmp_path: Path) -> None:
    ours, plain = load_model(tiny_llama, precision="fp32", device="cpu"), plain_model(tiny_llama)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    ours.save_pretrained(tmp_path)
    saved = plain_model(tmp_path).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in plain.state_dict().items())


def test_recomputing_activations_changes_no_gradient(tiny_llama: Path) -> None:
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    pack = make_pack(made_up_rows(), range(8))
    kept = gradients(model, pack_logps(model, pack))
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert_same_gradients(gradients(model, pack_logps(model, pack)), kept, relative=1e-6)


def test_bf16_errs_without_bias_and_less_than_six_hundredths_of_a_nat_per_root_token(tiny_llama: Path) -> None:
    rows = made_up_rows([(10, 60, 60)] * 24)
    packs = pack_batch(rows, 600, 1)[0]
    exact, rounded = (
        torch.cat(list(scored(load_model(tiny_llama, precision=precision, device="cpu"), packs))).detach()
        for precision in ("fp32", "bf16")
    )
    assert rounded.dtype == torch.float32
    error = (rounded - exact).double()
    assert error.abs().max() > 0
    assert error.std() <= 0.06 * 60**0.5
    assert error.mean().abs() <= 3 * error.std() / len(error) ** 0.5
