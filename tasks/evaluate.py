"""Evaluate: tuned model and held-out rows -> metrics with intervals, and plots.

in   model/ (trained), held_out/, held_out.parquet (reference), held_out.parquet (sample)
out  rows.parquet     one row a held-out pair, its log-probs and margin
     metrics.json
     plots/
"""

from pydantic import Field, PositiveInt

from tasks.config import StageConfig
from tasks.ingest import SourceConfig
from tasks.manifest import Manifest
from tasks.store import Store
from training.config import TrainConfig

VERSION = 1  # bump when the bytes this stage writes would change


class EvaluateConfig(StageConfig):
    """How the tuned model is judged."""

    bootstrap: PositiveInt = 1000
    """Resamples of questions behind each interval."""
    sources: list[SourceConfig] = Field(default_factory=list)
    """Held-out pairs from elsewhere, where the sample keeps none."""


def evaluate(
    store: Store, trained: Manifest, tokens: Manifest, reference: Manifest, sampled: Manifest,
    config: EvaluateConfig, train: TrainConfig, seed: int,
) -> Manifest:  # fmt: skip
    """Metrics of the tuned model beside the start model and the baselines that a sceptic asks for."""
    raise NotImplementedError
