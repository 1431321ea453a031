"""Norm and gated MLP of Llama-like models with the same numbers and fewer copies.

Written out step by step these layers keep every intermediate value for the backward pass. Here the norm keeps its
input and one number a row, the MLP the two projections and not their product; the rest is worked out again where it
is needed, at a fraction of a matrix product. The modules stand in the place of transformers' own and hold the same
parameters under the same names.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralMLP, MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP, Qwen3RMSNorm

_NORMS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
_MLPS = (LlamaMLP, MistralMLP, Qwen2MLP, Qwen3MLP)


def make_lean(model: nn.Module) -> None:
    """Put the modules of this file in the place of those that they equal; an MLP with an adapter at its end stays."""
    for name, module in list(model.named_modules()):
        if isinstance(module, _NORMS):
            model.set_submodule(name, LeanRMSNorm(module.weight, module.variance_epsilon))
        elif isinstance(module, _MLPS) and module.config.hidden_act == "silu" and type(module.down_proj) is nn.Linear:
            model.set_submodule(name, LeanMLP(module.gate_proj, module.up_proj, module.down_proj))


class LeanRMSNorm(nn.Module):
    """x / sqrt(mean(x²) + epsilon) * weight over the last dimension, worked out in fp32 or better."""

    def __init__(self, weight: nn.Parameter, epsilon: float):
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        normed: Tensor = _RMSNorm.apply(hidden, self.weight, self.epsilon)  # type: ignore[no-untyped-call]
        return normed


class LeanMLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, gate_proj: nn.Module, up_proj: nn.Module, down_proj: nn.Linear):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate_proj, up_proj, GatedDown(down_proj)

    def forward(self, hidden: Tensor) -> Tensor:
        down: Tensor = self.down_proj(self.gate_proj(hidden), self.up_proj(hidden))
        return down


class GatedDown(nn.Module):
    """The projection back, which takes gate and up apart so that their product need not be kept."""

    def __init__(self, down: nn.Linear):
        super().__init__()
        self.weight, self.bias = down.weight, down.bias

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        down: Tensor = _GatedDown.apply(gate, up, self.weight)  # type: ignore[no-untyped-call]
        return down if self.bias is None else down + self.bias


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        x = hidden.to(wide)
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight, inverse)
        normed: Tensor = (x * inverse).mul_(weight.to(wide))
        return normed.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, inverse = ctx.saved_tensors
        grad = grads[0].to(inverse.dtype)
        normed = hidden.to(inverse.dtype) * inverse
        # The same product serves both sums, over the rows for the weight and along them for the norm.
        both = grad * normed
        grad_weight = both.flatten(0, -2).sum(0).to(weight.dtype)
        wide_weight = weight.to(inverse.dtype)
        along = (both @ wide_weight).div_(both.shape[-1]).unsqueeze(-1)
        grad_hidden = (grad * wide_weight).addcmul_(normed, along, value=-1).mul_(inverse).to(hidden.dtype)
        return grad_hidden, grad_weight, None


class _GatedDown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return F.linear(F.silu(gate).mul_(up), weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        (grad,) = grads
        opened = F.silu(gate)
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = grad.flatten(0, -2).T @ (opened * up).flatten(0, -2)
        pulled = grad @ weight
        grad_up = opened.mul_(pulled)
        return torch.ops.aten.silu_backward(pulled.mul_(up), gate), grad_up, grad_weight
