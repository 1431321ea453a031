"""The head on completion positions equals log-softmax over all logits, whatever it keeps or works out again."""

import pytest
import torch
from torch import Tensor, nn

from training import head
from training.head import Scored, ScoringHead, completion_logps


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return (hidden @ weight.T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]


def some(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, 8, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(31, 8, generator=generator, dtype=dtype).requires_grad_()
    return hidden, weight, torch.randint(31, (rows,), generator=generator)


# Bytes of a row of logits: 31 values.
@pytest.mark.parametrize("kept_rows", [0, 5, 13, 100])
@pytest.mark.parametrize("chunk_rows", [1, 4, 100])
def test_values_and_gradients_are_those_of_log_softmax(
    kept_rows: int, chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "KEPT_BYTES", kept_rows * 31 * 8)
    monkeypatch.setattr(head, "CHUNK_BYTES", chunk_rows * 31 * 8)
    hidden, weight, targets = some(13)
    grad = torch.linspace(-1, 1, 13, dtype=torch.float64)
    results = []
    for function in (completion_logps, plain):
        values = function(hidden, weight, targets)
        results.append((values, *torch.autograd.grad(values, (hidden, weight), grad)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_a_second_backward_pass_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "KEPT_BYTES", 4 * 31 * 8)
    hidden, weight, targets = some(9)
    total = completion_logps(hidden, weight, targets).sum()
    first = torch.autograd.grad(total, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(total, (hidden, weight))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_logits_of_ten_thousand_neither_overflow_nor_vanish() -> None:
    hidden, weight = torch.tensor([[1e4], [-1e4]]), torch.tensor([[1.0], [0.0], [-1.0]])
    logps = completion_logps(hidden, weight, torch.tensor([0, 0]))
    torch.testing.assert_close(logps, torch.tensor([0.0, -2e4]))


def test_bf16_activations_are_scored_in_fp32() -> None:
    hidden, weight, targets = some(40, torch.bfloat16)
    logps = completion_logps(hidden, weight, targets)
    assert logps.dtype == torch.float32
    exact = plain(hidden.double(), weight.double(), targets)
    # What is left is the rounding of the logits themselves, 2^-9 of values up to 10.
    torch.testing.assert_close(logps.double(), exact, atol=0.05, rtol=0)
    ours = torch.autograd.grad(logps.sum(), (hidden, weight))
    theirs = torch.autograd.grad(exact.sum(), (hidden, weight))
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - other).norm() <= 0.02 * other.norm()


def test_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = some(6)
    kept = []
    monkeypatch.setattr(torch.autograd.function.FunctionCtx, "save_for_backward", lambda _, *saved: kept.append(saved))
    with torch.no_grad():
        completion_logps(hidden, weight, targets)
    assert [len(tensor) for saved in kept for tensor in saved if tensor.shape[-1] == 31] == [0]


def test_a_head_with_a_bias_is_refused_rather_than_scored_without_it() -> None:
    with pytest.raises(ValueError, match="a head with a bias is not scored here"):
        ScoringHead(nn.Linear(8, 31))


def test_outside_of_scoring_a_head_gives_logits() -> None:
    linear = nn.Linear(8, 31, bias=False)
    scoring = ScoringHead(linear)
    hidden = torch.randn(2, 3, 8)
    assert torch.equal(scoring(hidden), linear(hidden))
    with scoring.scoring(Scored(torch.tensor([4, 1]), torch.tensor([7, 9]))):
        logps = scoring(hidden)
    expected = linear(hidden).log_softmax(-1)
    torch.testing.assert_close(logps, torch.stack([expected[1, 1, 7], expected[0, 1, 9]])[None])
    assert torch.equal(scoring(hidden), linear(hidden))
