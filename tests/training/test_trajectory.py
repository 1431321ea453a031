"""Whole trainings: the same losses as TRL, and the same update however a batch is packed and shared out."""

from itertools import combinations
from pathlib import Path

import pytest
import torch

from benchmarks.trl_peer import train_with_trl
from tests.training.pairs import made_up_rows, related_rows
from tests.training.plain_loop import accumulate, reference_logps, train
from training.batch import batch_indices, pack_batch
from training.config import TrainConfig
from training.forward import load_model
from training.losses import PairLogps
from training.rows import TokenRow

# A rate at which the loss of the tiny model moves; a warm-up of four steps, clipping that bites.
CONFIG = TrainConfig(precision="fp32", learning_rate=2e-3, batch_size=4, warmup_ratio=0.2, tokens_per_pack=120)


@pytest.mark.parametrize(("loss", "beta", "steps"), [("sigmoid", 0.1, 50), ("dpo_norm", 2.0, 20), ("ipo", 0.5, 20)])
def test_losses_and_gradient_norms_of_every_step_are_those_of_trl(
    loss: str, beta: float, steps: int, tiny_llama: Path, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(5)
    lengths = [tuple(int(n) for n in torch.randint(1, 25, (3,), generator=generator)) for _ in range(steps * 4)]
    rows = made_up_rows(lengths, seed=6)
    config = CONFIG.model_copy(update={"loss": loss, "beta": beta})
    ordered = [rows[i] for step in range(steps) for i in batch_indices(len(rows), 4, 7, step)]

    ours = train(load_model(tiny_llama, precision="fp32", device="cpu"), rows, config, seed=7, steps=steps)
    theirs = train_with_trl(tiny_llama, ordered, config, work=tmp_path, micro_batch=2, precompute=loss != "ipo")

    assert max(ours.losses) - min(ours.losses) > 0.05  # it did train
    assert max(ours.grad_norms) > 1 if loss == "sigmoid" else True  # and was clipped
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-5)
    assert ours.grad_norms == pytest.approx(theirs.grad_norms, rel=1e-5 if steps == 20 else 1e-4)


def test_question_by_question_losses_are_those_of_trl_for_the_same_batches(tiny_llama: Path, tmp_path: Path) -> None:
    parts = [made_up_rows([(9, 20, 12), (1, 16, 7)], seed=seed) for seed in range(12)]
    rows = [
        TokenRow(f"{number}/{pair}", first.prompt_ids, *pair)
        for number, (first, second) in enumerate(parts)
        for answers in [(first.chosen_ids, first.rejected_ids, second.chosen_ids, second.rejected_ids)]
        for pair in combinations(answers, 2)
    ]
    config = CONFIG.model_copy(update={"order": "questions", "batch_size": 6})
    questions = tuple(at // 6 for at in range(len(rows)))
    ordered = [rows[i] for step in range(12) for i in batch_indices(72, 6, 7, step, questions)]
    assert sum(pack.tokens for pack in pack_batch(ordered[:6], 500, 1)[0]) == 9 + 20 + 12 + 16 + 7

    model = load_model(tiny_llama, precision="fp32", device="cpu")
    ours = train(model, rows, config, seed=7, steps=12, questions=questions)
    theirs = train_with_trl(tiny_llama, ordered, config, work=tmp_path, micro_batch=2, precompute=True)
    assert max(ours.losses) - min(ours.losses) > 0.05
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-5)
    assert ours.grad_norms == pytest.approx(theirs.grad_norms, rel=1e-5)


def test_the_first_loss_is_ln_2(tiny_llama: Path) -> None:
    run = train(load_model(tiny_llama, precision="fp32", device="cpu"), made_up_rows(), CONFIG, seed=0, steps=1)
    assert run.losses[0] == pytest.approx(0.6931472, abs=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_in_other_packs_leaves_the_first_loss_where_it_is(precision: str, tiny_llama: Path) -> None:
    model = load_model(tiny_llama, precision=precision, device="cpu")
    rows = made_up_rows()
    apart = CONFIG.model_copy(update={"tokens_per_pack": 1})
    reference = reference_logps(model, rows, apart)
    together = accumulate(model, rows, reference, CONFIG.model_copy(update={"tokens_per_pack": 5000}))
    tolerance = 1e-6 if precision == "fp32" else 5e-3
    assert together["loss"] == pytest.approx(0.6931472, abs=tolerance)


def test_packs_and_ranks_change_the_update_by_rounding_only(tiny_llama: Path) -> None:
    rows = [*made_up_rows()[:4], *related_rows()[:4]]
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    reference = reference_logps(model, rows, CONFIG)
    # Away from ln 2, so that a wrong weight of a pair shows.
    reference = PairLogps(reference.chosen - torch.linspace(-20, 20, 8), reference.rejected)
    updates = []
    for tokens, ranks in [(5000, 1), (1, 1), (120, 1), (60, 2), (1, 3), (300, 4)]:
        model.zero_grad()
        metrics = accumulate(model, rows, reference, CONFIG.model_copy(update={"tokens_per_pack": tokens}), ranks)
        grads = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).double()
        updates.append((metrics, grads))
    (expected, grad), *others = updates
    assert grad.norm() > 0
    for metrics, other in others:
        assert metrics == pytest.approx(expected, rel=1e-6, abs=1e-5)
        assert (other - grad).norm() <= 1e-6 * grad.norm()
