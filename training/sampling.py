"""The next token, drawn so that an answer depends on nothing but its own prompt: greedily, or by keyed noise.

Shapes: B sequences, V vocabulary.

A token that is drawn from softmax(logits) is also the largest of logits + Gumbel noise (Gumbel 1954; Maddison et al.
2014). The noise of a prompt is keyed by (seed, key of the prompt): a batch has no generator in common, so the other
prompts in it change nothing, an interrupted generation goes on as it would have, and two models that are asked the
same meet the same chances, which makes their difference surer.
"""

from collections.abc import Sequence

import torch
import xxhash
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from training.status import TrainerError


class KeyedSampling(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Logits whose largest is a draw from softmax(logits / temperature) among the likeliest `top_p` of them."""

    def __init__(self, keys: Sequence[str], *, seed: int, temperature: float, top_p: float) -> None:
        self._warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(temperature)]
        if top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(top_p))
        self._streams = [torch.Generator().manual_seed(prompt_seed(seed, key)) for key in keys]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        warped_BV = scores.float()
        for warper in self._warpers:
            warped_BV = warper(input_ids, warped_BV)
        # Drawn on the CPU: a device's generator gives other numbers than the CPU's.
        uniform_BV = torch.stack([torch.rand(scores.shape[-1], generator=stream) for stream in self._streams])
        tiny = torch.finfo(torch.float32).tiny
        waits_BV = (-torch.log(uniform_BV.clamp_min(tiny))).clamp_min(tiny)  # exponential, above 0
        gumbel_BV = -torch.log(waits_BV)
        return warped_BV + gumbel_BV.to(scores.device)


class Finite(LogitsProcessor):  # type: ignore[misc]
    """The logits unchanged; TrainerError of kind `nonfinite` that names the prompt where they are no numbers."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # The largest is NaN where any is, and infinite where one is +inf; a logit of -inf is a forbidden token.
        bad = (~torch.isfinite(scores.amax(dim=-1))).nonzero()
        if len(bad):
            key = self._keys[int(bad[0])]
            raise TrainerError("nonfinite", f"the logits after the prompt of pair {key} are no numbers")
        return scores


def prompt_seed(seed: int, key: str) -> int:
    """The seed of one prompt's chances, from 0 to 2**63 - 1."""
    digest = xxhash.xxh3_64_intdigest(f"generate\0{key}".encode(), seed=seed & 0xFFFFFFFFFFFFFFFF)
    return digest & 0x7FFFFFFFFFFFFFFF
