"""Publish: everything -> a model folder with its card, attribution and lineage.

out  model/              safetensors, tokenizer, chat template, README.md (the card)
     attribution.csv     one row a post used
     lineage.json        every stage, from the dump's checksum to the weights
     train_pair_ids.txt
     report.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from tasks.config import StageConfig
from tasks.manifest import Manifest
from tasks.store import Store

VERSION = 1  # bump when the bytes this stage writes would change


class PublishConfig(StageConfig):
    """What the model is called and how it is licensed."""

    name: str = Field("tulu-v2.5-dpo-13b-stackexchange-60k", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    """Name of the model in its card."""
    license: str = "apache-2.0"
    """Licence of the weights; the data's CC BY-SA is named beside it."""


def publish(
    store: Store, stages: Mapping[str, Manifest], sources: Sequence[Manifest], config: PublishConfig,
    recipe: Mapping[str, Any],
) -> Manifest:  # fmt: skip
    """The model folder. `stages` has every earlier stage by name; `recipe` is the whole recipe, for the card."""
    raise NotImplementedError
