"""How log-probs were computed, as a short text: values of two layouts differ by rounding, so they are never mixed.

In bf16 a policy in one layout against a reference in another starts with false margins of tenths of a nat. The tag is
part of the key of the reference store. Nothing here loads torch.
"""

from collections.abc import Mapping
from typing import Final

from training.config import Precision

# Raised when a change of the forward pass may change a log-prob by rounding.
VERSION = 1

# How far two sums of log-probs of the same model may be apart, in nat per square root of the tokens summed over. fp32
# sums differ by a tenth of that from machine to machine and layout to layout; in bf16 the standard deviation from one
# packing to another is 0.07.
TOLERANCE: Final[Mapping[Precision, float]] = {"fp32": 1e-4, "bf16": 0.4}

SHARED_PROMPT_MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Values of `model_type` in a model's config.json whose attention is known to read nothing but the pack's segments."""


def shares_prompt(model_type: str) -> bool:
    """Whether a model's prompt is computed once for both completions; if not, each is computed with a prompt of its
    own, padded to the longest of the pack."""
    return model_type in SHARED_PROMPT_MODELS


def layout_tag(model_type: str, precision: Precision) -> str:
    """What the log-probs of such a model depend on beside weights and ids."""
    return f"v{VERSION}-{'shared-prompt' if shares_prompt(model_type) else 'padded'}-{precision}"
