"""The shape of a Llama-like model as its config.json gives it: what memory and time are worked out from.

Nothing here loads torch: a plan reads it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.layout import shares_prompt


@dataclass(frozen=True)
class ModelShape:
    """Sizes in elements. Biases are left out: no model of these families has more than a ten-thousandth in them."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    """Whether the head is the embedding."""

    @property
    def query_size(self) -> int:
        """Width of the queries, and of what attention gives."""
        return self.heads * self.head_size

    @property
    def key_size(self) -> int:
        """Width of the keys, and of the values."""
        return self.key_heads * self.head_size

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; the largest tensor of the model."""
        return self.vocabulary * self.hidden

    @property
    def matrices(self) -> int:
        """Parameters of a layer that activations are multiplied with."""
        return self.hidden * (2 * self.query_size + 2 * self.key_size + 3 * self.mlp)

    @property
    def layer(self) -> int:
        """Parameters of a layer, its two norms with them."""
        return self.matrices + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the model, a tied head once."""
        return self.layers * self.layer + self.hidden + self.embedding * (1 if self.tied else 2)

    def forward_flops(self, tokens: float, attended: float, scored: float) -> float:
        """Of one forward pass over `tokens`, with `attended` pairs of query and key and `scored` positions of the head.

        A multiplication and an addition are two; norms and the like are not counted. A backward pass is twice that.
        """
        blocks = 2 * self.layers * self.matrices * tokens
        return blocks + 4 * self.query_size * self.layers * attended + 2 * self.embedding * scored


# Shapes of models that recipes name and that may not be here yet.
_LLAMA_2_7B: Final = ModelShape(4096, 11008, 32, 32, 32, 128, 32000, tied=False)
_LLAMA_2_13B: Final = ModelShape(5120, 13824, 40, 40, 40, 128, 32000, tied=False)
_TULU_7B: Final = ModelShape(4096, 11008, 32, 32, 32, 128, 32001, tied=False)  # a padding token more than Llama 2
_TULU_13B: Final = ModelShape(5120, 13824, 40, 40, 40, 128, 32001, tied=False)
KNOWN: Final[Mapping[str, ModelShape]] = {
    "smollm2-135m-instruct": ModelShape(576, 1536, 30, 9, 3, 64, 49152, tied=True),
    "allenai/tulu-2-7b": _TULU_7B,
    "allenai/tulu-2-13b": _TULU_13B,
    "meta-llama/Llama-2-7b-hf": _LLAMA_2_7B,
    "meta-llama/Llama-2-13b-hf": _LLAMA_2_13B,
    "meta-llama/Llama-3.2-1B": ModelShape(2048, 8192, 16, 32, 8, 64, 128256, tied=True),
    "meta-llama/Llama-3.2-3B": ModelShape(3072, 8192, 28, 24, 8, 128, 128256, tied=True),
    "meta-llama/Llama-3.1-8B": ModelShape(4096, 14336, 32, 32, 8, 128, 128256, tied=False),
}


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape in a model's config.json; None for a family whose layers are not Llama's."""
    if not shares_prompt(str(config.get("model_type"))):
        return None
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return ModelShape(
        hidden=hidden, mlp=int(config["intermediate_size"]), layers=int(config["num_hidden_layers"]), heads=heads,
        key_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or hidden // heads),
        vocabulary=int(config["vocab_size"]), tied=bool(config.get("tie_word_embeddings", False)),
    )  # fmt: skip


def shape_in(folder: Path) -> ModelShape | None:
    """The shape of the model in `folder`."""
    return shape_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def known_shape(model: str) -> ModelShape | None:
    """The shape of a model by its name; a hub id may have its revision behind it."""
    return KNOWN.get(model.partition("@")[0])
