"""Every implementation of the attention gives what a mask over the whole pack would give, gradients included."""

import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import MistralConfig

from tests.training.pairs import made_up_rows, related_rows
from training import attention, kernels, segments
from training.pack import Pack, make_pack

HEADS, KEY_HEADS, SIZE = 6, 2, 8


def drawn(tokens: int) -> list[Tensor]:
    """Query, key and value in fp64, laid out as a model's projections leave them."""
    generator = torch.Generator().manual_seed(tokens)
    return [
        torch.randn(1, tokens, heads, SIZE, generator=generator, dtype=torch.float64).transpose(1, 2).requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def masked_attention(query: Tensor, key: Tensor, value: Tensor, pack: Pack, window: int | None) -> Tensor:
    """All tokens against all, with the mask written out from the meaning of a pack."""
    tokens = pack.tokens
    tree, part = torch.zeros(tokens, dtype=torch.long), torch.zeros(tokens, dtype=torch.long)
    for number, (start, prompt_end, ends) in enumerate(pack.trees):
        tree[start : ends[-1]] = number
        for completion, (begin, end) in enumerate(pairwise((prompt_end, *ends)), 1):
            part[begin:end] = completion
    at = pack.position_ids
    sees = (tree[:, None] == tree) & ((part[:, None] == part) | (part == 0)) & (at[:, None] >= at)
    if window is not None:
        sees &= at[:, None] - at < window
    return F.scaled_dot_product_attention(query, key, value, attn_mask=sees, scale=0.3, enable_gqa=True).transpose(1, 2)


def with_gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out, *torch.autograd.grad((out * weights).sum(), inputs)]


def flash_by_hand(
    query: Tensor, key: Tensor, value: Tensor, query_bounds: Tensor, key_bounds: Tensor, longest_query: int,
    longest_key: int, *, scale: float, window_size: tuple[int, int], enable_gqa: bool,
) -> Tensor:  # fmt: skip
    """What the CUDA kernel is documented to do: causal, aligned to the end of the keys, `left` keys before its own."""
    left, right = window_size
    assert right == 0
    out = []
    for (a, b), (c, d) in zip(query_bounds.unfold(0, 2, 1).tolist(), key_bounds.unfold(0, 2, 1).tolist(), strict=True):
        assert b - a <= longest_query and d - c <= longest_key
        q_at, k_at = torch.arange(d - c - (b - a), d - c)[:, None], torch.arange(d - c)
        sees = (k_at <= q_at) if left == -1 else (k_at <= q_at) & (k_at >= q_at - left)
        parts = (part.transpose(0, 1) for part in (query[a:b], key[c:d], value[c:d]))
        out.append(F.scaled_dot_product_attention(*parts, attn_mask=sees, scale=scale, enable_gqa=enable_gqa))
    return torch.cat(out, dim=1).transpose(0, 1)


@pytest.mark.parametrize("window", [None, 20, 1])
@pytest.mark.parametrize("kind", ["blockwise", "sdpa", "varlen"])
def test_each_token_sees_its_own_sequence_and_what_came_before(
    kind: str, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "varlen_attn", flash_by_hand)
    pack = make_pack([*made_up_rows(), *related_rows()], range(15))
    inputs = drawn(pack.tokens)
    match kind:
        case "blockwise":
            out = segments.blockwise_attention(*inputs, pack.trees, 0.3, window)
        case "sdpa":
            out = attention.sdpa_attention(*inputs, pack.trees, 0.3, window)
        case "varlen":
            out = kernels.torch_varlen(*inputs, kernels.varlen(pack.trees, torch.device("cpu")), 0.3, window)
    expected = with_gradients(masked_attention(*inputs, pack, window), inputs)
    for ours, theirs in zip(with_gradients(out, inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 140)] * 3), min_size=1, max_size=4))
def test_blocks_of_any_length_join_without_a_seam(lengths: list[tuple[int, int, int]]) -> None:
    pack = make_pack(made_up_rows(lengths), range(len(lengths)))
    inputs = drawn(pack.tokens)
    ours = with_gradients(segments.blockwise_attention(*inputs, pack.trees, 0.3, None), inputs)
    expected = with_gradients(masked_attention(*inputs, pack, None), inputs)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_flash_attn_is_called_as_torchs_own_kernel_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_attn_varlen_func(
        *given: Any, softmax_scale: float, causal: bool, window_size: tuple[int, int], deterministic: bool
    ) -> Tensor:
        assert causal and deterministic == torch.are_deterministic_algorithms_enabled()
        return flash_by_hand(*given, scale=softmax_scale, window_size=(window_size[0], 0), enable_gqa=True)

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func))
    pack = make_pack(made_up_rows(), range(8))
    inputs, layout = drawn(pack.tokens), kernels.varlen(pack.trees, torch.device("cpu"))
    for window in (None, 20):
        expected = masked_attention(*inputs, pack, window)
        torch.testing.assert_close(kernels.flash_attn_varlen(*inputs, layout, 0.3, window), expected)
    # As training/run.py asks for it: its backward pass would else add up in another order each time.
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    torch.testing.assert_close(kernels.flash_attn_varlen(*inputs, layout, 0.3, window), expected)


def refuses(*_: Any) -> Tensor:
    raise RuntimeError("no kernel image is available for execution on the device\nmore of it")


def loses(*given: Any) -> Tensor:
    return kernels.torch_varlen(*given) * torch.nan


def aligned_to_the_start(
    query: Tensor, key: Tensor, value: Tensor, varlen: kernels.Varlen, scaling: float, window: int | None
) -> Tensor:
    """Causal as flash-attn was before 2.1: the first query sees the first key, whatever the lengths."""
    keys = key[:, :, varlen.key_index]
    out = []
    for (a, b), (c, d) in zip(
        pairwise(varlen.query_bounds.tolist()), pairwise(varlen.key_bounds.tolist()), strict=True
    ):
        sees = torch.ones(b - a, d - c, dtype=torch.bool).tril()
        values = value[:, :, varlen.key_index][:, :, c:d]
        out.append(F.scaled_dot_product_attention(query[:, :, a:b], keys[:, :, c:d], values, attn_mask=sees,
                                                  scale=scaling, enable_gqa=True))  # fmt: skip
    return torch.cat(out, 2).transpose(1, 2)


def test_the_first_kernel_that_works_and_is_right_is_taken_and_the_others_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(kernels, "varlen_attn", flash_by_hand)
    heads, device = kernels.Heads(HEADS, KEY_HEADS, SIZE), torch.device("cpu")
    ways = {"broken": refuses, "old": aligned_to_the_start, "lost": loses, "torch": kernels.torch_varlen}
    monkeypatch.setattr(kernels, "KERNELS", ways)
    for dtype in (torch.bfloat16, torch.float64):
        for without_gradients in (False, True):
            with torch.inference_mode(without_gradients):
                found = kernels.first_that_works(device, dtype, heads, attention.sdpa_attention)
            assert found is kernels.torch_varlen
    said = "\n".join(caplog.messages)
    assert "attention kernel broken is not used: no kernel image is available for execution on the device" in said
    assert "attention kernel old is not used: it does not give what plain attention gives" in said
    assert "attention kernel lost is not used: it does not give what plain attention gives" in said
    assert "attention kernel torch is used" in said

    monkeypatch.setattr(kernels, "KERNELS", {"broken": refuses, "old": aligned_to_the_start})
    caplog.clear()
    assert kernels.first_that_works(device, torch.float64, heads, attention.sdpa_attention) is None
    assert "no attention kernel for packs works here: plain attention is used, a sequence at a time" in caplog.messages


def test_a_kernel_that_knows_no_window_is_not_taken_for_a_model_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def knows_no_window(*given: Any) -> Tensor:
        return kernels.torch_varlen(*given[:-1], None)

    monkeypatch.setattr(kernels, "varlen_attn", flash_by_hand)
    monkeypatch.setattr(kernels, "KERNELS", {"whole": knows_no_window, "torch": kernels.torch_varlen})
    for windowed, taken in ((False, knows_no_window), (True, kernels.torch_varlen)):
        heads = kernels.Heads(HEADS, KEY_HEADS, SIZE, windowed)
        found = kernels.first_that_works(torch.device("cpu"), torch.bfloat16, heads, attention.sdpa_attention)
        assert found is taken
    assert kernels.Heads.of(MistralConfig(sliding_window=7)).windowed
    assert not kernels.Heads.of(MistralConfig(sliding_window=None)).windowed


def test_a_torch_without_the_kernel_and_no_flash_attn_leave_plain_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "varlen_attn", None)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    heads = kernels.Heads(HEADS, KEY_HEADS, SIZE)
    found = kernels.first_that_works(torch.device("cpu"), torch.bfloat16, heads, attention.sdpa_attention)
    assert found is None


def test_a_cpu_asks_for_no_kernel_and_fp32_neither() -> None:
    heads = kernels.Heads(HEADS, KEY_HEADS, SIZE)
    pack = make_pack(made_up_rows(), range(8))
    assert attention.Layout.of(pack, torch.bfloat16, heads) == attention.Layout(pack.trees)
    assert attention.kernel_for(torch.device("cuda", 0), torch.float32, heads) is None
