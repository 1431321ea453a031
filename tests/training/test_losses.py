"""Losses against numbers worked out by hand, against TRL's own code, and at the ends of the number line."""

import math
import types
from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from trl import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from training.config import TrainConfig
from training.losses import LossTerms, PairLogps, dpo_loss, pair_losses
from training.pack import PairTokens

LN2 = math.log(2)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def one_pair(config: TrainConfig) -> LossTerms:
    """Log-ratios +2 of four tokens and -3 of two: summed 2 - (-3) = 5, averaged 0.5 - (-1.5) = 2."""
    policy, reference = PairLogps(column(-8.0), column(-13.0)), PairLogps(column(-10.0), column(-10.0))
    return pair_losses(config, policy, reference, PairTokens(torch.tensor([4]), torch.tensor([2])))


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TrainConfig(), softplus(-0.5)),  # beta 0.1
        (TrainConfig(label_smoothing=0.1), 0.9 * softplus(-0.5) + 0.1 * softplus(0.5)),
        (TrainConfig(loss="dpo_norm", beta=5.0), softplus(-10.0)),
        (TrainConfig(loss="robust", label_smoothing=0.1), (0.9 * softplus(-0.5) - 0.1 * softplus(0.5)) / 0.8),
        (TrainConfig(loss="ipo", beta=0.5), (2 - 1) ** 2),
        (TrainConfig(loss="ipo_sum", beta=0.5), (5 - 1) ** 2),
        # averaged log-probs -2 and -6.5: 2 * 4.5 - 0.5
        (TrainConfig(loss="simpo", beta=2.0), softplus(-8.5)),
        (TrainConfig(sft_weight=0.5), softplus(-0.5) + 0.5 * 2.0),
    ],
    ids=lambda value: value.loss if isinstance(value, TrainConfig) else "",
)
def test_one_pair_costs_what_it_does_by_hand(config: TrainConfig, expected: float) -> None:
    torch.testing.assert_close(one_pair(config).losses, column(expected), rtol=1e-12, atol=0)


def test_rewards_are_beta_times_the_logratios() -> None:
    terms = one_pair(TrainConfig())
    torch.testing.assert_close(terms.chosen_rewards, column(0.2), rtol=1e-12, atol=0)
    torch.testing.assert_close(terms.rejected_rewards, column(-0.3), rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", ["sigmoid", "dpo_norm", "robust", "ld"])
def test_a_policy_equal_to_its_reference_costs_ln_2(loss: str) -> None:
    logps = PairLogps(torch.tensor([-312.7, -0.1]), torch.tensor([-801.3, -55.5]))
    tokens = PairTokens(torch.tensor([200, 1]), torch.tensor([411, 30]))
    losses = pair_losses(TrainConfig(loss=loss), logps, logps, tokens).losses
    torch.testing.assert_close(losses, torch.full((2,), LN2), atol=1e-6, rtol=0)


@given(z=st.floats(-1e4, 1e4), label_smoothing=st.floats(0, 0.49))
def test_losses_stay_finite_however_far_policy_and_reference_are_apart(z: float, label_smoothing: float) -> None:
    policy = PairLogps(torch.tensor([z], requires_grad=True), torch.tensor([0.0]))
    zero = PairLogps(torch.zeros(1), torch.zeros(1))
    losses = dpo_loss(policy, zero, beta=1.0, label_smoothing=label_smoothing).losses
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    # d/dz = sigmoid(z) - 1 + label_smoothing
    expected = 1 / (1 + math.exp(-z)) - 1 + label_smoothing if z > -700 else label_smoothing - 1
    assert policy.chosen.grad.item() == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(*[st.floats(-500, 0)] * 4), min_size=1, max_size=5), st.floats(0.01, 1))
def test_swapping_both_sides_changes_the_sign_of_the_margin(rows: list[tuple[float, ...]], beta: float) -> None:
    pc, pr, rc, rr = torch.tensor(rows, dtype=torch.float64).T
    ahead = dpo_loss(PairLogps(pc, pr), PairLogps(rc, rr), beta=beta).losses
    behind = dpo_loss(PairLogps(pr, pc), PairLogps(rr, rc), beta=beta).losses
    z = beta * ((pc - rc) - (pr - rr))
    # log sigmoid(-z) = log sigmoid(z) - z
    torch.testing.assert_close(behind - ahead, z, rtol=1e-9, atol=1e-9)


class _Scored(torch.nn.Module):
    """A model in the eyes of TRL's loss: it answers with log-probs that were made up."""

    is_gradient_checkpointing = False

    def __init__(self, per_token: Tensor):
        super().__init__()
        self.per_token = per_token

    def forward(self, **_given: object) -> FusedCausalLMOutput:
        zeros = torch.zeros_like(self.per_token)
        return FusedCausalLMOutput(
            log_probs=self.per_token, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), log_sum_sq_probs=zeros
        )


def trl_loss(loss_type: str, policy: list[Tensor], reference: list[Tensor], **settings: float | None) -> float:
    """The loss of TRL's own code for per-token log-probs of chosen and rejected of a few pairs, one row a side."""
    width = max(map(len, policy))
    mask = torch.zeros(len(policy), width + 1, dtype=torch.long)  # one prompt token first
    padded = [torch.zeros(len(policy), width, dtype=torch.float64) for _ in range(2)]
    for row, sides in enumerate(zip(policy, reference, strict=True)):
        mask[row, 1 : 1 + len(sides[0])] = 1
        for side in range(2):
            padded[side][row, : len(sides[side])] = sides[side]
    given = {"beta": 0.1, "label_smoothing": 0.0, "ld_alpha": None} | settings
    trainer = types.SimpleNamespace(
        model=_Scored(padded[0]), ref_model=_Scored(padded[1]), precompute_ref_logps=False, aux_loss_enabled=False,
        args=types.SimpleNamespace(gradient_checkpointing_kwargs=None), f_divergence_type="reverse_kl",
        loss_types=[loss_type], loss_weights=[1.0], use_weighting=False, _total_train_tokens=0, _tp_size=1,
        _metrics={"train": defaultdict(list)},
        accelerator=types.SimpleNamespace(device="cpu", gather_for_metrics=lambda x: x, gather=lambda x: x), **given,
    )  # fmt: skip
    inputs = {"input_ids": mask.clone(), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    return float(DPOTrainer._compute_loss(trainer, trainer.model, inputs, return_outputs=False))


@pytest.mark.parametrize(
    ("config", "trl", "settings"),
    [
        (TrainConfig(), "sigmoid", {}),
        (TrainConfig(loss="dpo_norm", beta=5.0), "sigmoid_norm", {"beta": 5.0}),
        (TrainConfig(loss="robust", label_smoothing=0.2), "robust", {"label_smoothing": 0.2}),
        (TrainConfig(loss="ipo", beta=0.3), "ipo", {"beta": 0.3}),
        (TrainConfig(loss="ld", ld_alpha=0.3), "sigmoid", {"ld_alpha": 0.3}),
    ],
    ids=lambda value: value.loss if isinstance(value, TrainConfig) else "",
)
def test_losses_equal_trls(config: TrainConfig, trl: str, settings: dict[str, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = PairTokens(torch.tensor([3, 9, 5]), torch.tensor([7, 2, 5]))
    policy, reference = (
        [-4 * torch.rand(int(n), generator=generator, dtype=torch.float64) for side in lengths for n in side]
        for _ in range(2)
    )

    def summed(per_token: list[Tensor]) -> PairLogps:
        sums = []
        for at, side in enumerate(per_token):
            shared = min(len(side), len(per_token[(at + 3) % 6]))
            sums.append(side[:shared].sum() + config.tail_weight * side[shared:].sum())
        return PairLogps(torch.stack(sums[:3]), torch.stack(sums[3:]))

    ours = pair_losses(config, summed(policy), summed(reference), lengths).losses.mean().item()
    assert ours == pytest.approx(trl_loss(trl, policy, reference, **settings), rel=1e-6)


@pytest.mark.parametrize("betas", [(0.9, 1.0), (1.5, 0.999), (-0.1, 0.999)])
def test_decays_that_adam_would_not_take_are_refused_with_the_recipe(betas: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="adam_betas"):
        TrainConfig(adam_betas=betas)


def test_smoothing_a_loss_that_has_no_smoothed_form_is_refused() -> None:
    with pytest.raises(ValidationError, match="label_smoothing must be 0 with loss ipo"):
        TrainConfig(loss="ipo", label_smoothing=0.1)
