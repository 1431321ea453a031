"""Reference: token rows and the start model -> its summed log-probs, scored once.

in   train/, held_out/, model/
out  train.parquet, held_out.parquet   pair_id, ref_chosen_logps, ref_rejected_logps
"""

from tasks.config import StageConfig
from tasks.manifest import Manifest
from tasks.store import Store
from training.config import Precision, TrainConfig

VERSION = 1  # bump when the bytes this stage writes would change


class ReferenceConfig(StageConfig):
    """How the reference is scored."""

    precision: Precision | None = None
    """null = train's; anything else than train's is refused, since it would make false margins."""


def reference(store: Store, tokens: Manifest, model: Manifest, config: ReferenceConfig, train: TrainConfig) -> Manifest:
    """Log-probs of every train and held-out completion under the start model."""
    raise NotImplementedError
