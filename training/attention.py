"""Attention over packs with a shared prompt, as transformers' attention registry wants it.

In a pack (training/batch.py) the chosen completion attends to its prompt and itself, the rejected one to the same
prompt and itself, and no pair sees another. What says so is the keyword argument `layout`, which travels through the
model's own forward; no mask over the whole pack is ever made.

Shapes: Q query heads, K key heads (Q a multiple of K), T tokens of the pack, D head size. A *sequence* is one
completion behind its prompt; its queries are the last rows of it that are not computed elsewhere.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from training.batch import Pack
from training.segments import blockwise_attention, causal_bias

NAME = "prefstack_segments"
"""What `attn_implementation` is called."""


class Varlen(NamedTuple):
    """What a variable-length kernel reads: the keys of each sequence gathered behind one another."""

    key_index: Tensor  # (S,) int64 into the pack: prompt chosen prompt rejected, pair after pair
    query_bounds: Tensor  # (2P + 1,) int32
    key_bounds: Tensor  # (2P + 1,) int32
    longest_query: int
    longest_key: int


@dataclass(frozen=True)
class Layout:
    """Where the pairs of a pack stand, in the form that the device's attention reads."""

    bounds: tuple[tuple[int, int, int, int], ...]
    """Start of the prompt, its end, the end of chosen, the end of rejected; one a pair."""
    varlen: Varlen | None
    """Set where a variable-length kernel serves the device and precision."""

    @classmethod
    def of(cls, pack: Pack, dtype: torch.dtype) -> "Layout":
        """The layout for a model whose activations are of `dtype`, on the pack's device."""
        device = pack.input_ids.device
        return cls(pack.segments, varlen(pack, device) if _has_varlen_kernel(device, dtype) else None)


def _has_varlen_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Flash attention is there for 16-bit numbers on NVIDIA's Ampere and later."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


def varlen(pack: Pack, device: torch.device) -> Varlen:
    """What a variable-length kernel reads of `pack`."""
    keys: list[int] = []
    queries: list[int] = [0]
    bounds: list[int] = [0]
    for start, prompt_end, chosen_end, rejected_end in pack.segments:
        keys += range(start, chosen_end)
        bounds.append(len(keys))
        keys += [*range(start, prompt_end), *range(chosen_end, rejected_end)]
        bounds.append(len(keys))
        queries += [chosen_end, rejected_end]
    return Varlen(
        torch.tensor(keys, device=device),
        torch.tensor(queries, dtype=torch.int32, device=device),
        torch.tensor(bounds, dtype=torch.int32, device=device),
        max(b - a for a, b in pairwise(queries)),
        max(b - a for a, b in pairwise(bounds)),
    )


def register() -> None:
    """Make the attention known to transformers under `NAME`; calling it again changes nothing.

    Only the attention: where there is no mask function of that name, transformers makes no mask, and does not look
    into the position ids for packed sequences first, for which it would wait for the device in every forward pass.
    """
    AttentionInterface.register(NAME, segment_attention)


def segment_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    layout: Layout, scaling: float, sliding_window: int | None = None, **_kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of one pack. query (1, Q, T, D), key and value (1, K, T, D) -> (1, T, Q, D).

    What else transformers passes along (dropout, caches) has no meaning here and is not looked at.
    """
    if layout.varlen is not None:
        return varlen_attention(query, key, value, layout.varlen, scaling, sliding_window), None
    if query.device.type == "cpu":
        return blockwise_attention(query, key, value, layout.bounds, scaling, sliding_window), None
    return sdpa_attention(query, key, value, layout.bounds, scaling, sliding_window), None


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, varlen: Varlen, scaling: float, window: int | None
) -> Tensor:
    """One call of a flash kernel for all sequences; shapes and values as of `segment_attention`."""
    # The kernel aligns the causal mask to the end of the keys, so the shorter query side needs no prompt of its own.
    out = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1).index_select(0, varlen.key_index),
        value[0].transpose(0, 1).index_select(0, varlen.key_index),
        varlen.query_bounds, varlen.key_bounds, varlen.longest_query, varlen.longest_key,
        scale=scaling, window_size=(-1, 0) if window is None else (window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(out, Tensor)  # a pair only where the log-sum-exp is asked for
    return out[None]


def sdpa_attention(
    query: Tensor, key: Tensor, value: Tensor, bounds: tuple[tuple[int, int, int, int], ...], scaling: float,
    window: int | None,
) -> Tensor:  # fmt: skip
    """Plain PyTorch, a sequence at a time: for what has no kernel of its own, such as fp32 on a GPU."""
    lengths = [n for a, b, c, d in bounds for n in (b - a, c - b, d - c)]
    parts = [torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)]
    out = []
    for at in range(0, len(lengths), 3):
        prompt, chosen, rejected = ([part[at + side] for part in parts] for side in range(3))
        for queries, completion in ((torch.cat((prompt[0], chosen[0]), 2), chosen), (rejected[0], rejected)):
            keys, values = (torch.cat((prompt[i], completion[i]), 2) for i in (1, 2))
            bias = causal_bias(queries.shape[2], keys.shape[2], window, query)
            attended = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=bias, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
            )
            out.append(attended.transpose(1, 2))
    return torch.cat(out, dim=1)
