"""Rows of JSON: JSON Lines, or one array, one row at a time.

JSON Lines end at a line feed and nowhere else: U+2028 and its like are text.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from tasks.errors import InputError

MAX_LINE: Final = 32 << 20  # bytes of one row; a post has 200 kB at most
READ: Final = 1 << 20
BOM: Final = b"\xef\xbb\xbf"
_MOST_JUNK: Final = 200_000  # lines or elements that are no rows; if there are more, and more than rows, it is no data
_AFTER: Final = re.compile(r"\s*[,\]]")


class Row(NamedTuple):
    """One row of a source, or what stands where one was expected."""

    place: str
    """Such as `row 7`, or `line 12` of JSON Lines; after the file's name where there are several."""
    values: dict[str, Any]
    fault: str | None = None
    """`malformed` or `too_long` where there are no values."""


def line_rows(handle: IO[bytes], path: Path, name: str) -> Iterator[Row]:
    """JSON Lines. A line that is no JSON object is a fault of its own, unless no line at all is one."""
    number = good = 0
    first = ""
    while line := handle.readline(MAX_LINE):
        number += 1
        place = f"{name}line {number}"
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = handle.readline(MAX_LINE)
            first = first or f"{place}, of more than {MAX_LINE >> 20} MiB,"
            yield Row(place, {}, "too_long")
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        if not line.strip():
            continue
        values = _parsed(line)
        if values is None:
            first = first or place
            if number - good > _MOST_JUNK and number > 2 * good:
                raise InputError(f"{path} is not JSON Lines: most of its first {number} lines are no JSON objects")
            yield Row(place, {}, "malformed")
            continue
        good += 1
        yield Row(place, values)
    if not good:
        raise InputError(f"{path} is not JSON Lines: {first or 'line 1'} is not a JSON object, nor is any other")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def array_rows(handle: IO[bytes], path: Path, name: str) -> Iterator[Row]:
    """The elements of one JSON array, decoded one after another from a window on the text."""
    stream = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
    decode = json.JSONDecoder().raw_decode
    window, at, number, good = "", 0, 0, 0
    try:
        window = stream.read(READ).lstrip()[1:]
        while True:
            at = _skip_blank(window, at, first=number == 0)
            if at < len(window) and window[at] == "]":
                if window[at + 1 :].strip() or stream.read().strip():
                    raise InputError(f"{path} goes on after the end of its JSON array")
                return
            try:
                value, end = decode(window, at)
                # A number could go on beyond the window: what ends it must be in sight.
                whole = not isinstance(value, int | float) or _AFTER.match(window, end) is not None
            except (json.JSONDecodeError, RecursionError):
                whole = False
            if not whole:
                more = stream.read(max(READ, len(window) - at))
                if not more or len(window) - at > MAX_LINE:
                    raise InputError(f"{path} is damaged or cut short after row {number} of its JSON array")
                window, at = window[at:] + more, 0
                continue
            number, at = number + 1, end
            place = f"{name}row {number}"
            if isinstance(value, dict):
                good += 1
                yield Row(place, value)
                continue
            if number - good > _MOST_JUNK and number > 2 * good:
                raise InputError(f"{path} holds no rows: most of the first {number} in its JSON array are no objects")
            yield Row(place, {}, "malformed")
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise InputError(f"{path} is damaged after row {number} of its JSON array: {error}") from error


def _skip_blank(window: str, at: int, *, first: bool) -> int:
    """Where the next element or the closing bracket begins: after white space and, but for the first, one comma."""
    comma = first
    while at < len(window) and (window[at] in " \t\r\n" or (window[at] == "," and not comma)):
        comma = comma or window[at] == ","
        at += 1
    return at
