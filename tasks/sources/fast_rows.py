"""The rows of a byte range in the layout that dumps have, found by their quotes in a few passes of numpy.

in   the bytes from one `<row` to the next range's
out  what tasks/sources/rows.py makes of them with a parser, in less time; or None, where they are not laid out so

Every byte is accounted for. Values stand between double quotes; what is between them is one of a few strings such as
` Score=` or ` /><row Id=`, compared whole; `<` and line ends stand in those strings alone; every `&` begins a
reference; all is UTF-8. Anything else is None, and the parser decides.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.sources.byte_texts import is_utf8, texts_at
from tasks.sources.references import REFERENCE, USUAL, is_character, resolved

_GAP: Final = re.compile(rb"([ \t\r\n]*/>[ \t\r\n]*)?(<row)?[ \t\r\n]+([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*")
_END: Final = re.compile(rb"[ \t\r\n]*/>[ \t\r\n]*")
_BLOCK: Final = 1 << 20  # bytes: what a pass leaves behind is still in the processor's cache at the next one
_LONGEST_GAP: Final = 40  # bytes: five words
_MOST_GAPS: Final = 200  # different ones; a dump has about forty
_MOST_RARE: Final = 20_000  # references other than the usual, each taken by hand
_MASKS: Final = np.array([(1 << (8 * size)) - 1 for size in range(9)], dtype=np.uint64)
# For each word of a gap, and each size of it: which of the word's bytes are in the gap.
_GAP_MASKS: Final = [_MASKS[np.clip(np.arange(_LONGEST_GAP + 1) - 8 * at, 0, 8)] for at in range(_LONGEST_GAP // 8)]
_FACTORS: Final = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0xD6E8FEB86659FD93],
    dtype=np.uint64,
)
# The usual references as numbers, by their size.
_NUMBERS: Final = [(len(one), np.uint64(int.from_bytes(one.encode(), "little"))) for one in USUAL]
_SHORT: Final = [number for number in _NUMBERS if number[0] == 4]
_LONG: Final = [number for number in _NUMBERS if number[0] != 4]
_NO_WORDS: Final = [np.uint64(0)] * len(_GAP_MASKS)
Places = NDArray[np.int64]


class NotUsual(Exception):
    """The range is not laid out as dumps are: a parser must read it, or refuse it."""


def fast_rows(
    data: bytes, attributes: Sequence[str], root: str, *, last: bool
) -> tuple[list[pl.Series], list[int]] | None:
    """A string column for each of `attributes`, and the offset of each row; None where a parser is needed."""
    try:
        if last:
            end = data.rfind(b"<")
            _demand(re.fullmatch(rb"</%s[ \t\r\n]*>[ \t\r\n]*" % root.encode(), data[end:]) is not None)
            data = data[:end]
        gaps = _Gaps()
        blocks = [_attributes(block, base, gaps) for base, block in _blocks(data)]
    except NotUsual:
        return None
    found = _Found(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
    row = np.cumsum(found.begins) - 1
    of_row = np.sort(row * len(gaps.names) + found.name)
    if np.any(of_row[1:] == of_row[:-1]):  # an attribute twice in one row
        return None
    columns = _columns(data, attributes, found, row, gaps.names)
    return columns, found.offset[found.begins].tolist()


class _Found(NamedTuple):
    """The attributes of a block or a range in the order of its bytes, and its rare references."""

    start: Places  # of the value
    end: Places
    name: Places
    begins: NDArray[np.bool_]  # whether it is the first of its row
    offset: Places  # of the row, if so
    rare: Places
    spaced: NDArray[np.bool_]  # for each block, whether white space other than spaces stands in values


def _demand(holds: bool) -> None:
    if not holds:
        raise NotUsual


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Pieces of `data` of about a block's size that begin with rows, each with where it begins."""
    at = 0
    while at < len(data):
        end = data.find(b"<row", at + _BLOCK)
        end = len(data) if end < 0 else end
        yield at, data[at:end]
        at = end
    _demand(at > 0)


def _attributes(data: bytes, base: int, gaps: "_Gaps") -> _Found:
    """All attributes of a block that begins at `base`."""
    bytes_ = np.frombuffer(data, np.uint8)
    if not data.isascii():
        _demand(is_utf8(data))
        # U+FFFE and U+FFFF, EF BF BE and EF BF BF, are in UTF-8 and not in XML.
        at = np.flatnonzero(bytes_ == 0xEF)
        _demand(not np.any((bytes_[at + 1] == 0xBF) & (bytes_[at + 2] >= 0xBE)))
    quotes = np.flatnonzero(bytes_ == ord('"'))
    _demand(len(quotes) > 0 and len(quotes) % 2 == 0)
    tail = _END.fullmatch(data, int(quotes[-1]) + 1)
    _demand(tail is not None)
    padded = data + bytes(_LONGEST_GAP + 8)
    words = np.ndarray(
        (len(data) + _LONGEST_GAP,), dtype="<u8", buffer=padded, strides=(1,)
    )  # eight bytes from each on
    start, end = quotes[0::2] + 1, quotes[1::2]
    gap = np.append(0, end[:-1] + 1)
    kind = gaps.kinds(data, words, gap, start - 1 - gap)
    begins = gaps.begins[kind]
    controls = int(gaps.controls[kind].sum()) + sum(byte < 32 for byte in data[int(quotes[-1]) :])
    _demand(bool(gaps.opens[kind[0]]) and not gaps.opens[kind[1:]].any())  # only a block begins without an end before
    _demand(int(np.count_nonzero(bytes_ == ord("<"))) == int(begins.sum()))
    # White space in a value counts as spaces; dumps have tabs there now and then. Other controls are not in XML.
    spaces = int(np.count_nonzero(bytes_ < 32)) - controls
    _demand(not spaces or spaces + controls == sum(int(np.count_nonzero(bytes_ == space)) for space in b"\t\n\r"))
    rare = _rare_references(data, bytes_, words)
    offset = gap + gaps.before[kind]
    return _Found(start + base, end + base, gaps.name[kind], begins, offset + base, rare + base, np.array([spaces > 0]))


class _Gaps:
    """The strings seen between values, and what each means."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._seen: dict[bytes, tuple[np.uint64, ...]] = {}  # its key and its words
        self._keys = np.array([], dtype=np.uint64)
        self._parts: list[NDArray[np.uint64]] = []
        self._sizes = np.array([], dtype=np.int64)
        self.name = self.controls = self.before = np.array([], dtype=np.int64)
        self.begins = self.opens = np.array([], dtype=bool)

    def kinds(self, data: bytes, words: NDArray[np.uint64], start: Places, size: Places) -> Places:
        """Which of the strings each gap is; new ones are learnt."""
        _demand(int(size.max()) <= _LONGEST_GAP)
        longest = -(-int(size.max()) // 8)  # words; of those behind, nothing is in any gap
        parts = [words[start + 8 * at] & masks[size] for at, masks in enumerate(_GAP_MASKS[:longest])]
        key = size.astype(np.uint64)
        for part, factor in zip(parts, _FACTORS, strict=False):
            key += part * factor
        while True:
            kind = self._known(parts, key, size)
            unknown = np.flatnonzero(kind < 0)
            if not len(unknown):
                return kind
            known = len(self._seen)
            for at in unknown[:1000].tolist():
                string = data[start[at] : start[at] + size[at]]
                numbers = [key[at], *(part[at] for part in parts)]
                self._seen.setdefault(string, (*numbers, *_NO_WORDS[len(parts) :]))
            _demand(known < len(self._seen) <= _MOST_GAPS)
            self._learn()

    def _known(self, parts: list[NDArray[np.uint64]], key: NDArray[np.uint64], size: Places) -> Places:
        if not len(self._keys):
            return np.full(len(key), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        same = size == self._sizes[place]
        for part, known in zip(parts, self._parts, strict=False):
            same &= part == known[place]
        return np.where(same, place, -1)

    def _learn(self) -> None:
        """Sort the strings by their key, and say of each what it means."""
        table = sorted((numbers, string) for string, numbers in self._seen.items())
        self._keys, *self._parts = np.array([numbers for numbers, _ in table], dtype=np.uint64).T
        self._sizes = np.array([len(string) for _, string in table])
        found = [_GAP.fullmatch(string) for _, string in table]
        names, closes, opens = [], [], []
        for match in found:
            if match is None or match[3].lower().startswith(b"xml"):
                raise NotUsual
            names.append(self.names.setdefault(match[3].decode(), len(self.names)))
            closes.append(match[1] is not None)
            opens.append(match[2] is not None)
        self.name, self.begins = np.array(names), np.array(opens)
        self.opens = self.begins & ~np.array(closes)
        _demand(bool(np.all(self.begins >= np.array(closes))))  # `/>` is followed by a row
        self.controls = np.array([sum(byte < 32 for byte in string) for _, string in table])
        self.before = np.array([max(0, string.find(b"<")) for _, string in table])


def _rare_references(data: bytes, bytes_: NDArray[np.uint8], words: NDArray[np.uint64]) -> Places:
    """Where the references are that are not the usual ones."""
    rare = np.flatnonzero(bytes_ == ord("&"))
    for some in (_SHORT, _LONG):  # the tags' `<` and `>` are two thirds of all
        word = words[rare]
        usual = np.zeros(len(rare), dtype=bool)
        for size, number in some:
            usual |= (word & _MASKS[size]) == number
        rare = rare[~usual]
    _demand(len(rare) <= _MOST_RARE)
    for place in rare.tolist():
        found = REFERENCE.match(data, place)
        if found is None or not is_character(found):
            raise NotUsual
    return rare


def _columns(
    data: bytes, attributes: Sequence[str], found: _Found, row: Places, names: dict[str, int]
) -> list[pl.Series]:
    """Each attribute of every row, null where a row does not have it."""
    wanted = np.flatnonzero(np.isin(found.name, [names[name] for name in attributes if name in names]))
    start, end, name_of = found.start[wanted], found.end[wanted], found.name[wanted]
    before = np.searchsorted(start, found.rare, side="right") - 1
    held = np.unique(before[(before >= 0) & (found.rare < end[before])]).tolist() if len(wanted) else []
    unescaped = [resolved(data[start[place] : end[place]]) for place in held]
    values = texts_at(data, start, end)
    if found.spaced.any():
        values = values.str.replace_all(r"\r\n|[\t\r\n]", " ")
    values = values.str.replace_many(list(USUAL.keys()), list(USUAL.values()))
    if held:
        values = values.scatter(held, unescaped)
    columns = []
    for name in attributes:
        at = np.flatnonzero(name_of == names.get(name, -1))
        place = np.full(int(row[-1]) + 1, -1, dtype=np.int64)
        place[row[wanted[at]]] = at
        index = pl.Series(place)
        columns.append(values.gather(index.set(index < 0, None)).alias(name))
    return columns
