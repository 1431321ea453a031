"""Which texts may be near duplicates: MinHash signatures, cut into bands.

The share of equal places in two signatures is about the Jaccard similarity of the two sets of shingles. A band is a few
places hashed to one number, its key; two texts are candidates when they have the key of any band in common. Each band
lies in a file of its own and is looked at by itself: eight bytes a text in memory, not a signature.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.duplicates.content import key_series
from tasks.duplicates.shingles import U64, Shingled, blocks, shingled

MISSED: Final = 0.002  # share of the pairs at the very threshold that may share no band
PLACES: Final = 64  # in a signature, at most, where that is enough


class Bands(NamedTuple):
    """How a signature is cut."""

    number: int
    rows: int  # places in a band


def bands_for(threshold: float) -> Bands:
    """The most selective cut that still finds pairs at the threshold: all but MISSED of them.

    A pair of similarity s shares a band with probability 1 - (1 - s**rows)**count.
    """
    found = Bands(1, 1)
    for rows in range(1, PLACES + 1):
        shared = threshold**rows
        count = 1 if shared == 1 else math.ceil(math.log(MISSED) / math.log1p(-shared))
        if count * rows > PLACES and rows > 1:
            break
        found = Bands(count, rows)
    return found


class Sketches:
    """The bands of texts of one kind, gathered batch by batch. A text may be added more than once."""

    def __init__(self, folder: Path, threshold: float) -> None:
        self.bands = bands_for(threshold)
        self.folder = folder
        self._keys: list[bytes] = []
        self._sizes: list[NDArray[np.int64]] = []
        generator = np.random.PCG64(0)  # its stream is promised by NumPy, unlike that of Generator's methods
        places = self.bands.number * self.bands.rows
        self._flips, factors = (generator.random_raw(2 * places) >> np.uint64(32)).astype(np.uint32).reshape(2, -1)
        self._factors = factors | np.uint32(1)

    def add(self, texts: Mapping[bytes, str]) -> None:
        """Take normalised texts by their content keys; texts without a word are left out."""
        said = [text for text in texts.values() if text]
        self._keys.append(b"".join(key for key, text in texts.items() if text))
        bands = np.empty((self.bands.number, len(said)), dtype=np.uint64)
        for start, stop in blocks(said):
            some = shingled(said[start:stop])
            self._sizes.append(np.diff(some.starts, append=some.hashes.size))
            bands[:, start:stop] = self._bands_of(some)
        for band, keys in enumerate(bands):
            with open(self._path(band), "ab") as file:
                keys.tofile(file)

    def _bands_of(self, some: Shingled) -> U64:
        """The key of each band (down) of each text (across)."""
        values = (some.hashes >> np.uint64(32)).astype(np.uint32)
        scratch = np.empty_like(values)
        keys = np.zeros((self.bands.number, some.starts.size), dtype=np.uint64)
        for place, (flip, factor) in enumerate(zip(self._flips, self._factors, strict=True)):
            # An odd factor permutes the 32-bit numbers; the flips make each place's permutation one of its own.
            np.bitwise_xor(values, flip, out=scratch)
            np.multiply(scratch, factor, out=scratch)
            key = keys[place // self.bands.rows]
            key ^= np.minimum.reduceat(scratch, some.starts)
            key *= np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        return keys

    def finish(self) -> pl.DataFrame:
        """`key` (content key, each once), `entry` (a place of it in the bands), `shingles` (how many, with repeats)."""
        keys = key_series([b"".join(self._keys)])
        sizes = np.concatenate([np.empty(0, dtype=np.int64), *self._sizes])
        frame = pl.DataFrame({"key": keys, "shingles": sizes}).with_row_index("entry")
        return frame.unique("key")

    def buckets(self, entries: NDArray[np.uint32]) -> Iterator[pl.DataFrame]:
        """For each band `key` and `text`: the texts (places in `entries`) that share the band with another one."""
        for band in range(self.bands.number):
            path = self._path(band)  # there is none where there was no text
            keys = np.fromfile(path, dtype=np.uint64)[entries] if path.exists() else np.empty(0, dtype=np.uint64)
            frame = pl.DataFrame({"key": keys, "text": np.arange(entries.size, dtype=np.uint32)})
            yield frame.filter(pl.col("key").is_duplicated()).sort("key", "text")

    def _path(self, band: int) -> Path:
        return self.folder / f"band-{band:03}"
