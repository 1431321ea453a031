"""Attention over packs with a shared prompt, as transformers' attention registry wants it.

In a pack (training/pack.py) every completion attends to its prompt and itself, and to no other completion of the same
prompt or of another. What says so is the keyword argument `layout`, which travels through the model's own forward; no
mask over the whole pack is ever made.

Shapes: Q query heads, K key heads (Q a multiple of K), T tokens of the pack, D head size. A *sequence* is one
completion behind its prompt; its queries are the last rows of it that are not computed elsewhere.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from training.kernels import Heads, Kernel, Varlen, first_that_works, varlen
from training.pack import Pack, Tree
from training.segments import blockwise_attention, causal_bias

NAME = "prefstack_segments"
"""What `attn_implementation` is called."""


@dataclass(frozen=True)
class Layout:
    """Where prompts and completions of a pack stand, in the form that the device's attention reads."""

    trees: tuple[Tree, ...]
    varlen: Varlen | None = None
    """Set where a variable-length kernel serves the device and precision."""
    kernel: Kernel | None = None
    """That kernel."""

    @classmethod
    def of(cls, pack: Pack, dtype: torch.dtype, heads: Heads) -> "Layout":
        """The layout for a model whose activations are of `dtype`, on the pack's device."""
        device = pack.input_ids.device
        kernel = kernel_for(device, dtype, heads)
        return cls(pack.trees) if kernel is None else cls(pack.trees, varlen(pack.trees, device), kernel)


@lru_cache
def kernel_for(device: torch.device, dtype: torch.dtype, heads: Heads) -> Kernel | None:
    """The variable-length kernel for such a model; None where none works and `sdpa_attention` or, on a CPU,
    `blockwise_attention` is used instead."""
    # Flash attention is for 16-bit numbers.
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    return first_that_works(device, dtype, heads, sdpa_attention)


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
    if layout.varlen is not None and layout.kernel is not None:
        return layout.kernel(query, key, value, layout.varlen, scaling, sliding_window), None
    if query.device.type == "cpu":
        return blockwise_attention(query, key, value, layout.trees, scaling, sliding_window), None
    return sdpa_attention(query, key, value, layout.trees, scaling, sliding_window), None


def sdpa_attention(
    query: Tensor, key: Tensor, value: Tensor, trees: tuple[Tree, ...], scaling: float, window: int | None
) -> Tensor:
    """Plain PyTorch, a sequence at a time: for what has no kernel of its own, such as fp32 on a GPU."""
    lengths = [p.stop - p.start for tree in trees for p in (tree.prompt, *tree.completions())]
    parts = iter(zip(*(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), strict=True))
    out = []
    for tree in trees:
        prompt = next(parts)
        for completion in range(len(tree.ends)):
            own = next(parts)
            keys, values = (torch.cat((prompt[i], own[i]), 2) for i in (1, 2))
            queries = own[0] if completion else torch.cat((prompt[0], own[0]), 2)
            bias = causal_bias(queries.shape[2], keys.shape[2], window, query)
            attended = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=bias, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
            )
            out.append(attended.transpose(1, 2))
    return torch.cat(out, dim=1)
