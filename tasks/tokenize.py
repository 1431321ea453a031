"""Tokenize: pairs -> token ids, one row a pair, prompt once.

in   train.parquet, held_out.parquet, the model's tokenizer
out  train/, held_out/   datasets (save_to_disk): pair_id, prompt_ids, chosen_ids, rejected_ids
     dropped.parquet     pair_id, reason, place
"""

from typing import Literal

from pydantic import Field

from tasks.config import StageConfig
from tasks.manifest import Manifest
from tasks.store import Store

VERSION = 1  # bump when the bytes this stage writes would change


class TokenizeConfig(StageConfig):
    """How text becomes token ids."""

    template: Literal["tulu"] = "tulu"
    """Chat template around prompt and answer."""
    max_length: int = Field(2048, ge=8)
    """Tokens, prompt and answer together; longer answers are cut on the right, each side on its own."""


def tokenize(store: Store, sampled: Manifest, model: Manifest, config: TokenizeConfig) -> Manifest:
    """The token rows of both splits."""
    raise NotImplementedError
