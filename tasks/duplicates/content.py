"""When two texts say the same: their normalised form, and the 128-bit key that stands for it.

Normalised is NFKC, case-folded, every run of white space one space. Keys stand for texts where texts would not fit in
memory; two different texts have the same xxh3 of 128 bits once in 2**128 tries, and xxh3 is specified and frozen.
"""

import unicodedata
from collections.abc import Iterable
from typing import Final

import numpy as np
import polars as pl
import xxhash


def normalised(text: str) -> str:
    """The text in NFKC, case-folded, white space folded and stripped."""
    if text.isascii():
        folded = text.lower()
    else:
        # Folding can undo NFKC (U+0345, for one), so it is done again: Unicode 3.13, definition D146.
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def content_key(text: str) -> bytes:
    """Sixteen bytes that stand for a normalised text."""
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


def key_series(keys: Iterable[bytes]) -> pl.Series:
    """Content keys as an unsigned 128-bit series: numbers compare and group faster than bytes."""
    halves = np.frombuffer(b"".join(keys), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    high = pl.Series(halves[:, 0]).cast(pl.UInt128)
    low = pl.Series(halves[:, 1]).cast(pl.UInt128)
    return high * pl.Series([1 << 64], dtype=pl.UInt128) + low


EMPTY: Final = key_series([content_key("")])
"""The key of a text that has nothing in it."""
