"""Variable-length flash attention for packs: what there is on this machine, and which of it may be used.

A kernel is tried on a small pack before it is trusted, gradients included: whether it was built for the device, takes
the head size, and aligns its causal mask to the end of the keys is told by the result and by no version number.
Shapes as in training/attention.py; S keys of all sequences behind one another.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from training.pack import Tree

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


class Heads(NamedTuple):
    """What of a model's shape a kernel may refuse."""

    query: int
    key: int
    size: int
    windowed: bool = False
    """Whether some layer sees a window of the keys only."""

    @classmethod
    def of(cls, config: Any) -> "Heads":
        """Those of a Llama-like config.json."""
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        windowed = getattr(config, "sliding_window", None) is not None
        return cls(config.num_attention_heads, config.num_key_value_heads, size, windowed)


class Varlen(NamedTuple):
    """What a variable-length kernel reads: the keys of each sequence gathered behind one another."""

    key_index: Tensor  # (S,) int64 into the pack: prompt and completion of each sequence
    query_bounds: Tensor  # (K + 1,) int32
    key_bounds: Tensor  # (K + 1,) int32
    longest_query: int
    longest_key: int


Kernel = Callable[[Tensor, Tensor, Tensor, Varlen, float, int | None], Tensor]
Plain = Callable[[Tensor, Tensor, Tensor, tuple[Tree, ...], float, int | None], Tensor]


def varlen(trees: Sequence[Tree], device: torch.device) -> Varlen:
    """What a variable-length kernel reads of a pack with these trees."""
    keys: list[int] = []
    queries: list[int] = [0]
    bounds: list[int] = [0]
    for tree in trees:
        for completion in tree.completions():
            keys += [*range(tree.start, tree.prompt_end), *range(completion.start, completion.stop)]
            bounds.append(len(keys))
            # The prompt queries with the first completion.
            queries.append(completion.stop)
    return Varlen(
        torch.tensor(keys, device=device),
        torch.tensor(queries, dtype=torch.int32, device=device),
        torch.tensor(bounds, dtype=torch.int32, device=device),
        max(b - a for a, b in pairwise(queries)),
        max(b - a for a, b in pairwise(bounds)),
    )


def torch_varlen(
    query: Tensor, key: Tensor, value: Tensor, varlen: Varlen, scaling: float, window: int | None
) -> Tensor:
    """PyTorch's own."""
    if varlen_attn is None:
        raise ImportError("this torch has no torch.nn.attention.varlen")
    out = varlen_attn(
        *_rows(query, key, value, varlen), varlen.query_bounds, varlen.key_bounds, varlen.longest_query,
        varlen.longest_key, scale=scaling, window_size=(-1, 0) if window is None else (window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(out, Tensor)  # a pair only where the log-sum-exp is asked for
    return out[None]


def flash_attn_varlen(
    query: Tensor, key: Tensor, value: Tensor, varlen: Varlen, scaling: float, window: int | None
) -> Tensor:
    """That of the package flash-attn, where it is installed."""
    from flash_attn import flash_attn_varlen_func

    out: Tensor = flash_attn_varlen_func(
        *_rows(query, key, value, varlen), varlen.query_bounds, varlen.key_bounds, varlen.longest_query,
        varlen.longest_key, softmax_scale=scaling, causal=True,
        window_size=(-1, -1) if window is None else (window - 1, 0),
        # Its backward pass adds up in any order unless it is told not to; PyTorch's own reads this by itself.
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    return out[None]


KERNELS: Final[dict[str, Kernel]] = {"torch varlen": torch_varlen, "flash-attn": flash_attn_varlen}


def _rows(query: Tensor, key: Tensor, value: Tensor, varlen: Varlen) -> tuple[Tensor, Tensor, Tensor]:
    """(T, Q, D), (S, K, D), (S, K, D)."""
    # The mask is aligned to the end of the keys, so the shorter query side needs no prompt of its own.
    keys, values = (part[0].transpose(0, 1).index_select(0, varlen.key_index) for part in (key, value))
    return query[0].transpose(0, 1), keys, values


def first_that_works(device: torch.device, dtype: torch.dtype, heads: Heads, plain: Plain) -> Kernel | None:
    """The first of KERNELS that gives what `plain` gives on `device`; says which it is, and why the others are not."""
    for name, kernel in KERNELS.items():
        fault = _fault(kernel, device, dtype, heads, plain)
        if fault is None:
            log.info("attention kernel %s is used", name)
            return kernel
        log.info("attention kernel %s is not used: %s", name, fault)
    log.warning("no attention kernel for packs works here: plain attention is used, a sequence at a time")
    return None


_TRIED: Final = (Tree(0, 5, (12, 14, 18)), Tree(18, 20, (21, 37)))  # unequal, so that a mask aligned to the start shows
_WINDOW: Final = 4  # shorter than each of them


def _fault(kernel: Kernel, device: torch.device, dtype: torch.dtype, heads: Heads, plain: Plain) -> str | None:
    """What is wrong with `kernel`, in a line; None where nothing is."""
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> Tensor:
        values = torch.randn(1, _TRIED[-1].ends[-1], count, heads.size, generator=generator)
        return values.to(device, dtype).transpose(1, 2).requires_grad_()

    scaling = heads.size**-0.5
    try:
        # Whoever asks first may be scoring, without gradients; training must get the same answer.
        with torch.inference_mode(False), torch.enable_grad():
            query, key, value = drawn(heads.query), drawn(heads.key), drawn(heads.key)
            inputs = [query, key, value]
            found, wanted = [], []
            for window in (None, _WINDOW) if heads.windowed else (None,):
                out = kernel(query, key, value, varlen(_TRIED, device), scaling, window)
                expected = plain(query, key, value, _TRIED, scaling, window)
                found += [out, *torch.autograd.grad(out.float().square().sum(), inputs)]
                wanted += [expected, *torch.autograd.grad(expected.float().square().sum(), inputs)]
    except Exception as error:  # kernels that were built for another machine fail in every way
        return next(iter(str(error).splitlines()), type(error).__name__)
    # An eighth of the largest value: rounding of 16 bits is far below it, a wrong mask far above. A NaN is not below.
    alike = all(
        float((a - b).detach().abs().max() / b.detach().abs().max()) < 1 / 8 for a, b in zip(found, wanted, strict=True)
    )
    return None if alike else "it does not give what plain attention gives"
