"""The head of a language model on the positions that count: hidden states and target ids -> log-probs of the targets.

Logits exist for completion positions only, some of them at a time; log-softmax is in fp32 or better.
Shapes: C completion positions, H hidden size, V vocabulary, N the positions of one chunk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_BYTES = 64 * 2**20
"""Logits that are worked on at a time."""
CACHED_BYTES = 2**20
"""Of a CPU core's cache, what the passes over a block of logits may take."""
KEPT_BYTES = 256 * 2**20
"""Exponentials that may wait for the backward pass; it works out again what does not fit in here."""


class Scored(NamedTuple):
    """Which positions of a forward pass are scored, and against which ids."""

    positions: Tensor  # (C,) int64, into the flattened (batch, time)
    targets: Tensor  # (C,) int64


class ScoringHead(nn.Linear):
    """A head that gives logits as ever, but inside `scoring` the log-probs of chosen targets.

    It stands in the place of the model's own and holds the same parameters under the same names, so its weight is
    read inside its own forward: that is where DeepSpeed's ZeRO-3 gathers it, once a forward and once a backward.
    """

    def __init__(self, head: nn.Linear):
        nn.Module.__init__(self)
        if "bias" in dict(head.named_parameters()):
            raise ValueError("a head with a bias is not scored here")
        self.in_features, self.out_features = head.in_features, head.out_features
        self.weight, self.bias = head.weight, head.bias
        self._scored: Scored | None = None

    @contextmanager
    def scoring(self, scored: Scored) -> Iterator[None]:
        """Within: the next forward gives (1, C) log-probs instead of logits."""
        self._scored = scored
        try:
            yield
        finally:
            self._scored = None

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Logits (B, T, V), or inside `scoring` log-probs (1, C)."""
        if self._scored is None:
            return F.linear(hidden_BTH, self.weight, self.bias)
        hidden_CH = hidden_BTH.flatten(0, -2).index_select(0, self._scored.positions)
        return completion_logps(hidden_CH, self.weight, self._scored.targets)[None]


def completion_logps(hidden_CH: Tensor, weight_VH: Tensor, targets_C: Tensor) -> Tensor:
    """Log-prob of each target under softmax(hidden @ weight.T): (C,), fp32 or better, differentiable."""
    differentiable = torch.is_grad_enabled() and (hidden_CH.requires_grad or weight_VH.requires_grad)
    row_bytes = weight_VH.shape[0] * _wide(hidden_CH.dtype).itemsize
    keep = min(len(hidden_CH), KEPT_BYTES // row_bytes) if differentiable else 0
    logps: Tensor = _CompletionLogps.apply(hidden_CH, weight_VH, targets_C, max(1, CHUNK_BYTES // row_bytes), keep)  # type: ignore[no-untyped-call]
    return logps


class _CompletionLogps(torch.autograd.Function):
    """log softmax at the targets.

    With E = exp(logits - max) and s its row sums, dlogp/dlogits = onehot - E / s, so that
    dhidden = g (W[target] - (E W) / s) and dW = scatter(g hidden) - E' (hidden g / s): the scaling by g / s is done
    on the narrow side of both products and E itself is read, never written, in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_CH: Tensor, weight_VH: Tensor, targets_C: Tensor, chunk: int, keep: int
    ) -> Tensor:  # fmt: skip
        wide = _wide(hidden_CH.dtype)
        kept_KV = hidden_CH.new_empty((keep, len(weight_VH)), dtype=wide)
        logps = hidden_CH.new_empty(len(hidden_CH), dtype=wide)
        top, total = torch.empty_like(logps), torch.empty_like(logps)
        for rows in _blocks(keep, len(hidden_CH), chunk):
            E_NV = _logits(hidden_CH[rows], weight_VH, kept_KV if rows.stop <= keep else None)
            logps[rows] = E_NV.gather(-1, targets_C[rows, None])[:, 0]
            _exponentiate(E_NV, top[rows], total[rows])
        logps -= top + total.log()
        ctx.save_for_backward(hidden_CH, weight_VH, targets_C, top, total, kept_KV)
        ctx.chunk = chunk
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_C,) = grads
        hidden_CH, weight_VH, targets_C, top, total, kept_KV = ctx.saved_tensors
        wide = _wide(hidden_CH.dtype)
        keep = len(kept_KV)
        blocks = _blocks(keep, len(hidden_CH), ctx.chunk)
        grad_hidden = torch.empty_like(hidden_CH) if ctx.needs_input_grad[0] else None
        grad_weight = None
        for rows in blocks:
            if rows.stop <= keep:
                E_NV = kept_KV
            else:
                E_NV = _logits(hidden_CH[rows], weight_VH, None).sub_(top[rows, None]).exp_()
            E_NV = E_NV.to(hidden_CH.dtype)
            scale = (grad_C[rows] / total[rows])[:, None]
            if grad_hidden is not None:
                pulled = (E_NV @ weight_VH).to(wide) * scale
                grad_hidden[rows] = grad_C[rows, None] * weight_VH[targets_C[rows]] - pulled
            if ctx.needs_input_grad[1]:
                scaled_NH = (hidden_CH[rows] * -scale).to(hidden_CH.dtype)
                if grad_weight is None and len(blocks) == 1:
                    grad_weight = E_NV.T @ scaled_NH
                elif grad_weight is None:
                    grad_weight = (E_NV.T @ scaled_NH).to(wide)
                else:
                    grad_weight += E_NV.T @ scaled_NH
        if grad_weight is not None:
            grad_weight.index_add_(0, targets_C, (hidden_CH * grad_C[:, None]).to(grad_weight.dtype))
            grad_weight = grad_weight.to(weight_VH.dtype)
        return grad_hidden, grad_weight, None, None, None


def _logits(hidden_NH: Tensor, weight_VH: Tensor, out: Tensor | None) -> Tensor:
    """(N, V) in fp32 or better; the products are added up in fp32 before any rounding where the device can."""
    wide = _wide(hidden_NH.dtype)
    if hidden_NH.dtype == wide:
        return torch.mm(hidden_NH, weight_VH.T) if out is None else torch.mm(hidden_NH, weight_VH.T, out=out)
    if hidden_NH.is_cuda:
        logits = torch.mm(hidden_NH, weight_VH.T, out_dtype=wide)
    else:
        logits = torch.mm(hidden_NH, weight_VH.T)
    return logits.to(wide) if out is None else out.copy_(logits)  # either widens


def _wide(dtype: torch.dtype) -> torch.dtype:
    """fp64 for fp64, fp32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _exponentiate(logits_NV: Tensor, top_N: Tensor, total_N: Tensor) -> None:
    """exp(logits - max) in place; max and sum of each row into `top_N` and `total_N`."""
    # On a CPU few enough rows at a time for them to stay in its cache over the four passes.
    size = len(logits_NV) if logits_NV.is_cuda else max(1, CACHED_BYTES // (logits_NV[0].nbytes))
    for at in range(0, len(logits_NV), size):
        rows = slice(at, at + size)
        top_N[rows] = logits_NV[rows].amax(-1)
        total_N[rows] = logits_NV[rows].sub_(top_N[rows, None]).exp_().sum(-1)


def _blocks(keep: int, stop: int, size: int) -> list[slice]:
    """The kept rows in one, then the others `size` at a time."""
    first = [slice(0, keep)] if keep else []
    return first + [slice(at, min(at + size, stop)) for at in range(keep, stop, size)]
