"""Exact Jaccard similarity of texts, as sets of shingle hashes.

The sets lie in a file that is mapped into memory: the machine keeps what it has room for. Of each hash the upper 48
bits are kept, so that a number of 16 bits can stand beside them in one word: among a thousand shingles two different
ones are taken for the same in one comparison out of half a billion.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.duplicates.shingles import U64, blocks, shingled

AT_ONCE: Final = 1 << 20  # shingles compared at once
EDGES: Final = 1 << 16  # pairs of texts compared at once, at most
HASH: Final = np.uint64(48)  # bits
REST: Final = np.uint64(16)

Int = NDArray[np.int64]


class ShingleSets:
    """The sets of some texts, known by numbers below `count`."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._start = np.zeros(count, dtype=np.int64)
        self._size = np.zeros(count, dtype=np.int64)
        self._written = 0
        self._values: U64 = np.empty(0, dtype=np.uint64)

    def add(self, numbers: Int, texts: list[str]) -> None:
        """The sets of normalised texts that have at least one word."""
        with open(self._path, "ab") as file:
            for start, stop in blocks(texts):
                some = shingled(texts[start:stop])
                # Text and hash in one number: one sort brings together what is the same in the same text.
                text = np.repeat(np.arange(stop - start), np.diff(some.starts, append=some.hashes.size))
                said = (text.astype(np.uint64) << HASH) | (some.hashes >> REST)
                said.sort()
                said = said[np.append(True, said[1:] != said[:-1])]
                (said << REST).tofile(file)
                sizes = np.bincount((said >> HASH).astype(np.int64), minlength=stop - start)
                self._size[numbers[start:stop]] = sizes
                self._start[numbers[start:stop]] = self._written + np.cumsum(sizes) - sizes
                self._written += int(sizes.sum())

    def finish(self) -> None:
        """No more texts: open the sets for reading."""
        if self._written:
            self._values = np.memmap(self._path, dtype=np.uint64, mode="r")

    def similarity(self, left: Int, right: Int) -> NDArray[np.float64]:
        """The Jaccard similarity of text left[i] and text right[i], for each i."""
        sizes = self._size[left] + self._size[right]
        shared = np.zeros(left.size, dtype=np.int64)
        for start, stop in _pieces(sizes):
            shared[start:stop] = self._shared(left[start:stop], right[start:stop])
        similar: NDArray[np.float64] = shared / np.maximum(sizes - shared, 1)
        return similar

    def _shared(self, left: Int, right: Int) -> Int:
        """How many shingles the two texts of each edge have in common: one sort of hashes and numbers of edges."""
        count = left.size
        edges = np.concatenate((np.arange(count), np.arange(count)))
        texts = np.concatenate((left, right))
        sizes = self._size[texts]
        ends = np.cumsum(sizes)
        where = np.arange(int(ends[-1])) + np.repeat(self._start[texts] - (ends - sizes), sizes)
        marked = self._values[where] | np.repeat(edges, sizes).astype(np.uint64)
        marked.sort()
        twice = marked[1:][marked[1:] == marked[:-1]] & np.uint64(EDGES - 1)
        return np.bincount(twice.astype(np.int64), minlength=count)


def _pieces(sizes: Int) -> Iterable[tuple[int, int]]:
    """Ranges of at most EDGES edges and about AT_ONCE shingles."""
    start = 0
    before = np.concatenate(([0], np.cumsum(sizes)))
    while start < sizes.size:
        stop = int(np.searchsorted(before, before[start] + AT_ONCE, side="right")) - 1
        stop = min(max(stop, start + 1), start + EDGES, sizes.size)
        yield start, stop
        start = stop
