"""Dedupe: pairs -> pairs no two of which say the same thing, with a reason for every drop.

in   pairs.parquet
out  pairs.parquet     the same columns and `cluster`
     dropped.parquet   pair_id, reason, place, kept_pair_id
"""

from pydantic import Field

from tasks.config import StageConfig
from tasks.manifest import Manifest
from tasks.store import Store

VERSION = 1  # bump when the bytes this stage writes would change


class DedupeConfig(StageConfig):
    """What counts as saying the same."""

    exact: bool = True
    """Drop a pair whose normalised prompt, chosen and rejected text another pair has."""
    near: bool = False
    """Drop near duplicates too (MinHash, verified by exact Jaccard)."""
    threshold: float = Field(0.8, gt=0.0, le=1.0)
    """Jaccard similarity of word shingles from which two texts are near duplicates."""


def dedupe(store: Store, pairs: Manifest, config: DedupeConfig, seed: int) -> Manifest:
    """The pairs that stay, each with the cluster that a split must not divide."""
    raise NotImplementedError
