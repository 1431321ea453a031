"""Attention of a pack on the CPU in fp32 or fp64: matrix products over the query heads that share a key head.

At the lengths of answers PyTorch's flash kernel for CPUs does less than half of the operations a second that its matrix
product does. Here the queries of a group stand under one another, so that a block of them takes one product with its
keys and one with its values, and nothing is repeated for a group's sake. Every block has its own end of the keys. What
the queries take of each key is worked out again in the backward pass: it would be larger than all else that a layer
keeps.

Shapes as in training/attention.py; G key heads, H = Q / G query heads each, N queries of a block, S keys that it sees.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from training.segments import Bounds, blocks, causal_bias, sequences, spans

_softmax_backward = torch.ops.aten._softmax_backward_data.out

QUERIES = 64
"""Rows of a block: its scores stay in a core's cache. Half of the square is worked out for nothing."""


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, bounds: Bounds, scaling: float, window: int | None
) -> Tensor:
    """query (1, Q, T, D), key and value (1, K, T, D) -> (1, T, Q, D), for the pairs at `bounds`.

    `window` is how many of the last keys a query sees, its own position with them; None is all.
    """
    out: Tensor = _GroupedAttention.apply(query, key, value, bounds, scaling, window)  # type: ignore[no-untyped-call]
    return out


class _GroupedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bounds: Bounds, scaling: float, window: int | None
    ) -> Tensor:
        _, heads, tokens, size = query.shape
        out = query.new_empty(1, tokens, heads, size)
        room = _room(query, bounds)
        for rows, first, keys, values in sequences(key, value, bounds):
            keys_GDS = keys[0].transpose(1, 2).contiguous()
            for block, seen in blocks(rows, first, window, QUERIES):
                queries = _grouped(query[0, :, block], len(keys_GDS)).mul_(scaling)
                weights = _weights(queries, keys_GDS[:, :, seen], block.stop - block.start, window, room)
                attended = torch.bmm(weights, values[0, :, seen])
                out[0, block] = attended.view(heads, -1, size).transpose(0, 1)
        ctx.save_for_backward(query, key, value)
        ctx.given = (bounds, scaling, window)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        bounds, scaling, window = ctx.given
        grad_out = grads[0][0].transpose(0, 1)
        grad_query, grad_key, grad_value = (
            torch.zeros_like(tensor.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
            for tensor in (query, key, value)
        )
        room, more_room = _room(query, bounds), _room(query, bounds)
        every = [span for bound in bounds for span in spans(bound)]
        for (rows, first, keys, values), (prompt, completion) in zip(sequences(key, value, bounds), every, strict=True):
            keys, values = keys[0].contiguous(), values[0]
            keys_GDS, values_GDS = (tensor.transpose(1, 2).contiguous() for tensor in (keys, values))
            grad_keys, grad_values = torch.zeros_like(keys), keys.new_zeros(values.shape)
            for block, seen in blocks(rows, first, window, QUERIES):
                queries = _grouped(query[0, :, block], len(keys)).mul_(scaling)
                weights = _weights(queries, keys_GDS[:, :, seen], block.stop - block.start, window, room)
                pulled = _grouped(grad_out[:, block], len(keys))
                grad_values[:, seen].baddbmm_(weights.transpose(1, 2), pulled)
                scores = torch.bmm(pulled, values_GDS[:, :, seen], out=_within(more_room, weights.shape))
                _softmax_backward(scores, weights, -1, weights.dtype, grad_input=scores)
                grad_keys[:, seen].baddbmm_(scores.transpose(1, 2), queries)
                grad_query[0, :, block] = torch.bmm(scores, keys[:, seen]).mul_(scaling).view_as(query[0, :, block])
            at = prompt.stop - prompt.start
            for whole, part in ((grad_key[0], grad_keys), (grad_value[0], grad_values)):
                whole[:, prompt] += part[:, :at]
                whole[:, completion] += part[:, at:]
        return grad_query, grad_key, grad_value, None, None, None


def _grouped(heads_QND: Tensor, groups: int) -> Tensor:
    """(G, H * N, D), a copy: the queries of the heads of a group under one another."""
    copy = heads_QND.clone(memory_format=torch.contiguous_format)
    return copy.view(groups, -1, heads_QND.shape[-1])


@cache
def _triangle(dtype: torch.dtype) -> Tensor:
    # Whoever asks first may be scoring: a tensor of its inference mode would be of no use in training.
    with torch.inference_mode(False):
        return causal_bias(QUERIES, QUERIES, None, torch.empty(0, dtype=dtype))


def _room(query: Tensor, bounds: Bounds) -> Tensor:
    """For the scores of any block, taken once: it stays in the cache from block to block."""
    longest = max(
        max(chosen_end - start, rejected_end - chosen_end + prompt_end - start)
        for start, prompt_end, chosen_end, rejected_end in bounds
    )
    return query.new_empty(query.shape[1] * QUERIES * longest)


def _within(room: Tensor, shape: torch.Size) -> Tensor:
    return room[: shape.numel()].view(shape)


def _weights(queries: Tensor, keys_GDS: Tensor, rows: int, window: int | None, room: Tensor) -> Tensor:
    """(G, H * N, S), in `room`: how much each query takes of each key; 0 of those that it does not see."""
    groups, _, seen = keys_GDS.shape
    scores = torch.bmm(queries, keys_GDS, out=_within(room, torch.Size((groups, queries.shape[1], seen))))
    by_head = scores.view(groups, -1, rows, seen)
    if window is None:  # all keys before the block's own are seen by all of it
        by_head[..., seen - rows :].add_(_triangle(queries.dtype)[:rows, :rows])
    else:
        by_head.add_(causal_bias(rows, seen, window, queries))
    return torch.softmax(scores, -1, out=scores)
