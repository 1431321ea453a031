"""The rows of one byte range of a dump's XML, as columns of text.

in   the bytes from one `<row` to the next range's, or to the end of the file
out  a column of strings (or None) for each attribute that is wanted, and the byte offset of each row

A range in the layout that dumps have is read by tasks/sources/fast_rows.py. Any other is wrapped in a root of its own
and parsed by lxml, so entities, quotes and white space mean what XML says.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from tasks.sources.fast_rows import fast_rows
from tasks.sources.references import REFERENCE, is_character
from tasks.sources.xml_file import parser_said, spaces

_ROW: Final = re.compile(rb"<row[\s/>]")
MAX_ROWS: Final = 1_000_000  # of a range, which has some 30,000: more are rows without attributes, and fill the memory
_FEED: Final = 1 << 20


class Damaged(Exception):
    """The range is not well formed; `line` counts from 1 within it."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


class HasMarkup(Exception):
    """The range holds a comment or the like, so `<row` need not begin a row."""


@dataclass(frozen=True)
class Rows:
    """Rows of one range. All lists have one entry a row."""

    columns: list[pl.Series]
    """Strings; one an attribute, in the order asked for."""
    offsets: list[int]
    """Bytes from the beginning of the range."""
    unusable: list[int]
    """Offsets of rows left out because they refer to a character that XML and Parquet do not have."""


def parse(data: bytes, attributes: Sequence[str], root: str, *, last: bool) -> Rows:
    """The rows of `data`, which begins with `<row`; when `last`, the root's end tag and nothing else follows them.

    Raises HasMarkup, or Damaged when the bytes are no such rows.
    """
    unusable: list[int] = []
    quick = fast_rows(data, attributes, root, last=last)
    if quick is not None:
        _refuse_crowds(quick[1])
        return Rows(*quick, unusable)
    try:
        values, offsets = _parse(data, attributes, root, last=last)
    except Damaged:
        # A reference such as &#0; is written by exporters that do not check; it costs its row, not the file.
        data, unusable = _without_bad_references(data)
        if not unusable:
            raise
        values, offsets = _parse(data, attributes, root, last=last)
    transposed: list[Sequence[str | None]] = [*zip(*values, strict=True)] or [() for _ in attributes]
    columns = [pl.Series(name, column, dtype=pl.String) for name, column in zip(attributes, transposed, strict=True)]
    return Rows(columns, offsets, unusable)


def _parse(
    data: bytes, attributes: Sequence[str], root: str, *, last: bool
) -> tuple[list[tuple[str | None, ...]], list[int]]:
    from lxml import etree

    offsets = [found.start() for found in _ROW.finditer(data)]
    _refuse_crowds(offsets)
    simple = data.count(b"<") == len(offsets) + last
    if not simple and (b"<!" in data or b"<?" in data):
        raise HasMarkup
    target: _Flat | _Nested = _Flat(attributes) if simple else _Nested(attributes)
    # "internal": with False libxml2 would hand out `&amp;` as `&#38;`. Declarations of entities have been refused.
    parser = etree.XMLParser(
        target=target, encoding="utf-8", huge_tree=True, resolve_entities="internal", no_network=True, load_dtd=False
    )
    try:
        parser.feed(f"<{root}>".encode())
        for at in range(0, len(data), _FEED):
            parser.feed(data[at : at + _FEED])
        if not last:
            parser.feed(f"</{root}>".encode())
        parser.close()
    except etree.XMLSyntaxError as error:
        raise Damaged(error.lineno or 1, parser_said(error.msg)) from error
    except ValueError as error:  # what lxml makes of text that Python cannot hold
        raise Damaged(1, str(error)) from error
    values = target.rows[1:]  # the first is the root
    if len(values) != len(offsets):
        raise Damaged(1, f"{len(offsets)} rows begin and {len(values)} are there")
    return values, offsets


def _refuse_crowds(offsets: Sequence[int]) -> None:
    if len(offsets) > MAX_ROWS:
        raise Damaged(1, f"there are {len(offsets)} rows within few megabytes, so short that they hold no posts")


class _Flat:
    """Takes each element for a row: right where every `<` begins one."""

    def __init__(self, attributes: Sequence[str]) -> None:
        self.rows: list[tuple[str | None, ...]] = []
        self._attributes = attributes
        self._nothing = (None,) * len(attributes)

    def start(self, _tag: str, attributes: Any) -> None:
        # What lxml hands out for a row without attributes takes ten times as long to say so fifteen times.
        self.rows.append(tuple(map(attributes.get, self._attributes)) if attributes else self._nothing)

    def close(self) -> None:
        pass


class _Nested(_Flat):
    """Also sees elements that end apart from where they begin, and refuses what is no row or stands in one."""

    def __init__(self, attributes: Sequence[str]) -> None:
        super().__init__(attributes)
        self._depth = 0

    def start(self, tag: str, attributes: Any) -> None:
        if self._depth and (self._depth > 1 or tag != "row"):
            raise Damaged(1, f"there is a <{tag}> where a <row> was expected")
        self._depth += 1
        super().start(tag, attributes)

    def end(self, _tag: str) -> None:
        self._depth -= 1


def _without_bad_references(data: bytes) -> tuple[bytes, list[int]]:
    """`data` with the rows blanked out that refer to a character XML does not allow, and where they began."""
    blanked = bytearray(data)
    unusable = []
    at = 0
    while (found := REFERENCE.search(data, at)) is not None:
        at = found.end()
        if is_character(found):
            continue
        start = data.rfind(b"<row", 0, found.start())
        following = data.find(b"<", found.start())
        end = len(data) if following < 0 else following
        if start < 0:
            continue
        blanked[start:end] = spaces(data[start:end])
        unusable.append(start)
        at = end
    return bytes(blanked), unusable
