"""Sample: pairs -> exactly `size` train pairs and the held-out pairs, the same ones every time.

in   pairs.parquet (with cluster)
out  train.parquet, held_out.parquet   the same columns, in the order of their keyed rank
"""

from pydantic import NonNegativeInt, PositiveInt

from tasks.config import StageConfig
from tasks.manifest import Manifest
from tasks.store import Store

VERSION = 1  # bump when the bytes this stage writes would change


class SampleConfig(StageConfig):
    """How many pairs are drawn."""

    size: PositiveInt | None = 60_000
    """Train pairs; null = all that are not held out."""
    held_out: NonNegativeInt = 2_000
    """Pairs kept for evaluation, drawn first and independent of `size`."""


def sample(store: Store, deduped: Manifest, config: SampleConfig, seed: int) -> Manifest:
    """The train pairs and the held-out pairs; RecipeError when there are not enough."""
    raise NotImplementedError
