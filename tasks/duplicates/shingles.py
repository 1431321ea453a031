"""Texts as sets of word shingles, each a 64-bit hash that is our own and written down here.

A shingle is five words in a row of a normalised text (content.py), a text of fewer words is one shingle. The hash
of a stretch of bytes is a polynomial over 2**64, so that one running sum over a block of texts gives the hash of every
stretch of it by one subtraction: no Python object for a word, nor for a shingle. It does not change between versions of
any library, because it is none's.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

WORDS: Final = 5  # in a shingle
BLOCK: Final = 1 << 17  # characters of text hashed together: what is needed for it stays in the processor's cache
TEXTS: Final = 1 << 15  # in a block, so that 16 bits hold the number of a text in it

_BASE: Final = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE: Final = pow(_BASE, -1, 1 << 64)

U64 = NDArray[np.uint64]


class Shingled(NamedTuple):
    """The shingles of some texts, one text after the other, repetitions and all."""

    hashes: U64
    starts: NDArray[np.int64]
    """Where in `hashes` each text begins."""


def shingled(texts: Sequence[str], size: int = WORDS) -> Shingled:
    """The shingles, `size` words each, of normalised texts that are not empty, in the order of their words."""
    blob = np.frombuffer(("\n".join(texts) + "\n").encode("utf-8", "surrogatepass"), dtype=np.uint8)
    powers, inverses = _powers(1 << int(blob.size).bit_length())
    running = np.zeros(blob.size + 1, dtype=np.uint64)
    np.cumsum(blob * powers[: blob.size], out=running[1:])

    gap = (blob == 0x20) | (blob == 0x0A)  # normalised: no other white space, and never two in a row
    ends = np.flatnonzero(gap)
    begins = np.concatenate(([0], ends[:-1] + 1))
    last_word = np.flatnonzero(blob[ends] == 0x0A)  # the number of the last word of each text
    first_word = np.concatenate(([0], last_word[:-1] + 1))

    words = last_word + 1 - first_word
    counts = np.maximum(words - (size - 1), 1)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    first = np.arange(int(counts.sum())) + np.repeat(first_word - starts, counts)
    final = np.minimum(first + (size - 1), np.repeat(last_word, counts))
    begin = begins[first]
    return Shingled(_mixed((running[ends[final]] - running[begin]) * inverses[begin]), starts)


def blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of `texts` that have about BLOCK characters each, and at most TEXTS texts."""
    start = size = 0
    for place, text in enumerate(texts):
        size += len(text)
        if size >= BLOCK or place + 1 - start == TEXTS:
            yield start, place + 1
            start, size = place + 1, 0
    if start < len(texts):
        yield start, len(texts)


@cache
def _powers(size: int) -> tuple[U64, U64]:
    """The first `size` powers of the base and of its inverse, modulo 2**64."""
    both = []
    for base in (_BASE, _INVERSE):
        row = np.full(size, base, dtype=np.uint64)
        row[0] = 1
        both.append(np.cumprod(row, out=row))
    return both[0], both[1]


def _mixed(hashes: U64) -> U64:
    """Every bit made to depend on every bit: the finalizer of MurmurHash3."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hashes ^= hashes >> np.uint64(33)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(33)
    return hashes
