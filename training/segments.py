"""Attention of a pack on the CPU: a block of queries at a time, each with the keys that it may see and no others.

PyTorch's flash kernel for CPUs computes every key of a chunk of 512, causal or not; at the lengths of answers that is
twice the work. Calling it for 64 queries at a time, each with its own end of the keys, leaves out what the mask would
throw away. Forward and backward call the kernel directly, since slices of keys that overlap would cost autograd a
whole buffer of zeros each.

Shapes as in training/attention.py.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from training.pack import Tree

QUERIES = 64
"""Rows of a block: what the kernel works on at once at these lengths."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def blockwise_attention(
    query: Tensor, key: Tensor, value: Tensor, trees: Sequence[Tree], scaling: float, window: int | None
) -> Tensor:
    """query (1, Q, T, D), key and value (1, K, T, D) -> (1, T, Q, D), for the prompts and completions at `trees`.

    `window` is how many of the last keys a query sees, its own position with them; None is all.
    """
    out: Tensor = _BlockwiseAttention.apply(query, key, value, trees, scaling, window)  # type: ignore[no-untyped-call]
    return out


def causal_bias(queries: int, keys: int, window: int | None, like: Tensor) -> Tensor:
    """(queries, keys) of 0 and -inf: the last query sees the last key, the one before it all but that."""
    bias = torch.full((queries, keys), float("-inf"), dtype=like.dtype, device=like.device).triu_(keys - queries + 1)
    if window is not None and keys > window:
        bias += torch.full_like(bias, float("-inf")).tril_(keys - queries - window)
    return bias


class _BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, trees: Sequence[Tree], scaling: float, window: int | None
    ) -> Tensor:
        _, heads, tokens, size = query.shape
        out = query.new_empty(1, tokens, heads, size)
        # The kernel gives its log-sum-exp in fp32, or in fp64 for fp64.
        lse = query.new_empty(1, heads, tokens, dtype=torch.float64 if query.dtype == torch.float64 else torch.float32)
        for rows, first, keys, values in _sequences(key, value, trees):
            for block, seen in _blocks(rows, first, window):
                bias = causal_bias(block.stop - block.start, seen.stop - seen.start, window, query)
                attended, block_lse = _forward(
                    query[:, :, block], keys[:, :, seen], values[:, :, seen], attn_mask=bias, scale=scaling
                )
                out[:, block] = attended.transpose(1, 2)
                lse[:, :, block] = block_lse
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.given = (trees, scaling, window)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        trees, scaling, window = ctx.given
        (grad_out,) = (grad.transpose(1, 2) for grad in grads)
        out = out.transpose(1, 2)
        grad_query, grad_key, grad_value = (
            torch.zeros_like(tensor.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
            for tensor in (query, key, value)
        )
        spans = [(tree.prompt, part) for tree in trees for part in tree.completions()]
        for (rows, first, keys, values), (prompt, completion) in zip(_sequences(key, value, trees), spans, strict=True):
            grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
            for block, seen in _blocks(rows, first, window):
                bias = causal_bias(block.stop - block.start, seen.stop - seen.start, window, query)
                dq, dk, dv = _backward(
                    grad_out[:, :, block], query[:, :, block], keys[:, :, seen], values[:, :, seen], out[:, :, block],
                    lse[:, :, block], 0.0, False, attn_mask=bias, scale=scaling,
                )  # fmt: skip
                grad_query[:, :, block] = dq
                grad_keys[:, :, seen] += dk
                grad_values[:, :, seen] += dv
            at = prompt.stop - prompt.start
            for whole, part in ((grad_key, grad_keys), (grad_value, grad_values)):
                whole[:, :, prompt] += part[:, :, :at]
                whole[:, :, completion] += part[:, :, at:]
        return grad_query, grad_key, grad_value, None, None, None


def _sequences(key: Tensor, value: Tensor, trees: Sequence[Tree]) -> Iterator[tuple[slice, int, Tensor, Tensor]]:
    """The sequences of a pack: which rows of the pack query, the position of the first of them, keys and values.

    The prompt queries with its first completion, and its keys and values serve the others too.
    """
    for tree in trees:
        first, *others = tree.completions()
        whole = slice(tree.start, first.stop)
        yield whole, 0, key[:, :, whole], value[:, :, whole]
        for completion in others:
            keys, values = (
                torch.cat((tensor[:, :, tree.prompt], tensor[:, :, completion]), dim=2) for tensor in (key, value)
            )
            yield completion, tree.prompt_end - tree.start, keys, values


def _blocks(rows: slice, first: int, window: int | None) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries (rows of the pack) with the keys they see (positions in the sequence)."""
    for at in range(rows.start, rows.stop, QUERIES):
        stop = min(at + QUERIES, rows.stop)
        begin, end = first + at - rows.start, first + stop - rows.start
        yield slice(at, stop), slice(0 if window is None else max(0, begin - window + 1), end)
