"""Randomness that can be repeated: a stable 64-bit hash of (seed, purpose, id).

xxh3 is specified and frozen (xxHash 0.8.0 and later); Python's `hash` is salted in each process and polars' own
hash promises nothing between versions. A purpose of its own for the cap on a question, the held-out draw, the keeper
of a duplicate cluster and the sample keeps the draws independent: with one key for all, a pair that survived the
cap would be likelier to be sampled.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import polars as pl
import xxhash

Purpose = Literal["cap", "held_out", "keeper", "sample", "demo", "bootstrap", "check", "generate"]


def keyed_rank(seed: int, purpose: Purpose, name: str) -> int:
    """A number in [0, 2**64) that looks random and depends on nothing but the three arguments."""
    return xxhash.xxh3_64_intdigest(f"{purpose}\0{name}".encode(), seed=seed & 0xFFFFFFFFFFFFFFFF)


def keyed_ranks(seed: int, purpose: Purpose, names: Iterable[str]) -> pl.Series:
    """`keyed_rank` of each name, as an unsigned 64-bit series."""
    prefix = f"{purpose}\0"
    digest = xxhash.xxh3_64_intdigest
    if not isinstance(names, pl.Series):
        names = pl.Series(list(names), dtype=pl.String)
    whole_names = pl.select((pl.lit(prefix) + names).cast(pl.Binary)).to_series().to_list()
    keys = [digest(name, seed & 0xFFFFFFFFFFFFFFFF) for name in whole_names]
    return pl.Series("rank", np.array(keys, dtype=np.uint64))
