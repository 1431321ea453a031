"""Rows of data files, whatever form they are in: JSON Lines, one JSON array, gzip of either, Parquet.

in   a file, or a folder of files
out  rows in the order of the files' names, each with its place; what is no row, with the reason

What a file is, its first bytes say and not its name. JSON Lines end at a line feed and nowhere else: U+2028 and its
like are text. Rows come one at a time, so that memory does not grow with a file.
"""

import gzip
import io
import json
import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from tasks.digests import remembered_sha256
from tasks.errors import InputError
from tasks.manifest import digest_json

SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz", ".parquet")
MAX_LINE: Final = 32 << 20  # bytes of one row of JSON; a post has 200 kB at most
_MOST_JUNK: Final = 200_000  # lines that are no rows, from which more of them than rows are not worth counting
_BATCH: Final = 100  # rows of Parquet decoded at a time
_READ: Final = 1 << 20
_FREE: Final = 1 << 28  # bytes that a gzip file may unpack to whatever its size

_PARQUET: Final = b"PAR1"
_GZIP: Final = b"\x1f\x8b"
_POINTER: Final = b"version https://git-lfs"
_BOM: Final = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One row of a source, or what stands where one was expected."""

    place: str
    """Such as `row 7`, or `line 12` of JSON Lines; after the file's name where there are several."""
    values: dict[str, Any]
    fault: str | None = None
    """`malformed` or `too_long` where there are no values."""


@dataclass(frozen=True)
class DataFiles:
    """The files of one source."""

    root: Path
    """What the recipe named, made absolute."""
    paths: list[Path]
    """In the order in which they are read."""

    def name(self, path: Path) -> str:
        """The file as a place names it: nothing where the source is one file, whose name bears on nothing."""
        return "" if path == self.root else f"{path.relative_to(self.root).as_posix()} "

    def digest(self, work_dir: Path) -> str:
        """Of the bytes of all files, and of their names within the folder, which places tell."""
        digests = {self.name(path): remembered_sha256(path, work_dir) for path in self.paths}
        return digests[""] if "" in digests else digest_json(digests)

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.paths)


def find_files(given: str, pattern: str | None = None) -> DataFiles:
    """The file at `given`, or the data files in the folder there (those that match `pattern`, a glob).

    InputError where there is none.
    """
    path = Path(os.path.abspath(Path(given).expanduser()))
    try:
        if path.is_file():
            return DataFiles(path, [path])
        if not path.is_dir():
            if path.exists():
                raise InputError(f"{path} is neither a regular file nor a folder")
            raise InputError(f"{path} cannot be read: there is no such file or folder")
        entries = path.glob(pattern) if pattern else path.rglob("*")
        found = [entry for entry in entries if entry.is_file() and (pattern or _is_data(entry.relative_to(path)))]
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not found:
        wanted = f"file that matches {pattern!r}" if pattern else f"file that ends in {', '.join(SUFFIXES)}"
        raise InputError(f"{path} holds no {wanted}")
    return DataFiles(path, sorted(found, key=lambda entry: entry.relative_to(path).as_posix()))


def _is_data(name: Path) -> bool:
    return name.name.lower().endswith(SUFFIXES) and not any(part.startswith(".") for part in name.parts)


def read_rows(files: DataFiles, columns: Collection[str], max_ratio: float) -> Iterator[Row]:
    """All rows. Of Parquet only `columns` are read; of JSON the whole row is there.

    max_ratio  how many times its size a gzip file may unpack to
    Raises InputError where a file is not what it should be, or is damaged.
    """
    for path in files.paths:
        try:
            with open(path, "rb") as handle:
                yield from _rows_of(handle, path, files.name(path), columns, max_ratio)
        except (zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise InputError(f"{path} is damaged or cut short: {error}") from error


def _rows_of(
    handle: IO[bytes], path: Path, name: str, columns: Collection[str], max_ratio: float
) -> Iterator[Row]:  # fmt: skip
    head = handle.read(_READ)
    handle.seek(0)
    if head.startswith(_PARQUET):
        yield from _parquet_rows(path, name, columns, max_ratio)
        return
    text: IO[bytes] = handle
    if head.startswith(_GZIP):
        text = io.BufferedReader(_Unpacked(handle, path, max_ratio), _READ)
        head = text.peek(_READ)
    what = what_else(head)
    if what is not None:
        raise InputError(f"{path} {what}; give JSON Lines, a JSON array, gzip of either, or Parquet")
    if head.removeprefix(_BOM).lstrip().startswith(b"["):
        yield from _array_rows(text, path, name)
    else:
        yield from _line_rows(text, path, name)


def what_else(head: bytes) -> str | None:
    """What a file that begins with `head` is if it is no text of data: a phrase for a message, or None."""
    start = head.removeprefix(_BOM).lstrip()
    if not start:
        return "is empty"
    if start.startswith(_POINTER):
        return "is a git-lfs pointer and not the file itself: fetch it with `git lfs pull`"
    if start.startswith(b"<"):
        return "is a web page or XML"
    if b"\0" in head and not start.startswith((b"{", b"[")):
        return "is binary"
    return None


def _too_large(path: Path, most: int) -> InputError:
    return InputError(
        f"{path} unpacks to more than {most} bytes, more than max_ratio allows: raise that if the file is to be trusted"
    )


class _Unpacked(io.RawIOBase):
    """The bytes of a gzip file, which must not be out of proportion to its size."""

    def __init__(self, packed: IO[bytes], path: Path, max_ratio: float) -> None:
        self._file = gzip.GzipFile(fileobj=packed)
        self._path = path
        self._most = max(_FREE, int(path.stat().st_size * max_ratio))
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._read += len(data)
        if self._read > self._most:
            raise _too_large(self._path, self._most)
        buffer[: len(data)] = data
        return len(data)


def _line_rows(handle: IO[bytes], path: Path, name: str) -> Iterator[Row]:
    """JSON Lines. A line that is no JSON object is a fault of its own, unless no line at all is one."""
    number = good = 0
    first = ""
    while line := handle.readline(MAX_LINE):
        number += 1
        place = f"{name}line {number}"
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = handle.readline(MAX_LINE)
            yield Row(place, {}, "too_long")
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
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
        raise InputError(f"{path} is not JSON Lines: {first or 'no line'} is not a JSON object, nor is any other")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _array_rows(handle: IO[bytes], path: Path, name: str) -> Iterator[Row]:
    """The elements of one JSON array, decoded one after another from a window on the text."""
    stream = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
    decode = json.JSONDecoder().raw_decode
    window, at, number = "", 0, 0
    try:
        window = stream.read(_READ).lstrip()[1:]
        while True:
            at = _skip_blank(window, at, first=number == 0)
            if at < len(window) and window[at] == "]":
                if window[at + 1 :].strip() or stream.read().strip():
                    raise InputError(f"{path} goes on after the end of its JSON array")
                return
            try:
                value, end = decode(window, at)
                # A number could go on beyond the window: what ends it must be in sight.
                whole = not isinstance(value, int | float) or window[end:].lstrip()[:1] in {",", "]"}
            except (json.JSONDecodeError, RecursionError):
                whole = False
            if not whole:
                more = stream.read(max(_READ, len(window) - at))
                if not more or len(window) - at > MAX_LINE:
                    raise InputError(f"{path} is damaged or cut short after row {number} of its JSON array")
                window, at = window[at:] + more, 0
                continue
            number, at = number + 1, end
            place = f"{name}row {number}"
            yield Row(place, value) if isinstance(value, dict) else Row(place, {}, "malformed")
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise InputError(f"{path} is damaged after row {number} of its JSON array: {error}") from error


def _skip_blank(window: str, at: int, *, first: bool) -> int:
    """Where the next element or the closing bracket begins: after white space and, but for the first, one comma."""
    comma = first
    while at < len(window) and (window[at] in " \t\r\n" or (window[at] == "," and not comma)):
        comma = comma or window[at] == ","
        at += 1
    return at


def _parquet_rows(path: Path, name: str, columns: Collection[str], max_ratio: float) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = size = 0
    most = max(_FREE, int(path.stat().st_size * max_ratio))
    try:
        with pq.ParquetFile(path, buffer_size=_READ, pre_buffer=False) as file:
            there: Sequence[str] = file.schema_arrow.names
            wanted = sorted(set(there) & set(columns))
            if len(set(there)) < len(there):
                raise InputError(f"{path} has two columns of one name")
            for batch in file.iter_batches(_BATCH, columns=wanted, use_threads=False):
                plain = [_decoded(column) for column in batch.columns]
                size += sum(column.nbytes for column in plain)
                if size > most:
                    raise _too_large(path, most)
                for values in pa.RecordBatch.from_arrays(plain, names=batch.schema.names).to_pylist():
                    number += 1
                    yield Row(f"{name}row {number}", values)
    except (pa.ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged or cut short after row {number}: {said}") from error


def _decoded(column: Any) -> Any:
    """An Arrow array with each value where it stands: a text that a dictionary holds once may be in every row."""
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
