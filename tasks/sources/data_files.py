"""Rows of data files, whatever form they are in: JSON Lines, one JSON array, gzip of either, Parquet.

in   a file, or a folder of files
out  rows in the order of the files' names, each with its place; what is no row, with the reason

What a file is, its first bytes say and not its name. Rows come one at a time, so that memory does not grow with a file.
"""

import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from tasks.digests import remembered_sha256
from tasks.errors import InputError
from tasks.given_paths import absolute_path, refuse_endless, refuse_unreadable_name
from tasks.manifest import digest_json
from tasks.sources.json_rows import BOM, READ, Row, array_rows, line_rows

SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz", ".parquet")
_BATCH: Final = 100  # rows of Parquet decoded at a time
_FREE: Final = 1 << 28  # bytes that a gzip file may unpack to whatever its size
_FREE_ROWS: Final = 1_000_000  # that any file may have
_LEAST_ROW: Final = 50  # bytes of a file that each row beyond them must take; a packed pair takes hundreds

_PARQUET: Final = b"PAR1"
_GZIP: Final = b"\x1f\x8b"
_POINTER: Final = b"version https://git-lfs"


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
    path = absolute_path(given)
    try:
        if path.is_file():
            refuse_endless(path)
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
    for entry in found:
        refuse_endless(entry)
        refuse_unreadable_name(str(entry.relative_to(path)), path)
    return DataFiles(path, sorted(found, key=lambda entry: entry.relative_to(path).as_posix()))


def _is_data(name: Path) -> bool:
    return name.name.lower().endswith(SUFFIXES) and not any(part.startswith(".") for part in name.parts)


def read_rows(files: DataFiles, columns: Collection[str], max_ratio: float) -> Iterator[Row]:
    """All rows. Of Parquet only `columns` are read; of JSON the whole row is there.

    max_ratio  how many times its size a gzip file may unpack to
    Raises InputError where a file is not what it should be, or is damaged.
    """
    for path in files.paths:
        most = _FREE_ROWS + path.stat().st_size // _LEAST_ROW
        try:
            with open(path, "rb") as handle:
                for number, row in enumerate(_rows_of(handle, path, files.name(path), columns, max_ratio), start=1):
                    if number > most:  # 150 kB can hold 30 million rows alike, each of which takes its time
                        raise InputError(
                            f"{path} holds more than {most} rows, so many for its size that none is a pair"
                        )
                    yield row
        except (zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise InputError(f"{path} is damaged or cut short: {error}") from error


def _rows_of(
    handle: IO[bytes], path: Path, name: str, columns: Collection[str], max_ratio: float
) -> Iterator[Row]:  # fmt: skip
    head = handle.read(READ)
    handle.seek(0)
    if head.startswith(_PARQUET):
        yield from _parquet_rows(path, name, columns, max_ratio)
        return
    text: IO[bytes] = handle
    if head.startswith(_GZIP):
        text = io.BufferedReader(_Unpacked(handle, path, max_ratio), READ)
        head = text.peek(READ)
    what = what_else(head)
    if what is not None:
        raise InputError(f"{path} {what}; give JSON Lines, a JSON array, gzip of either, or Parquet")
    if head.removeprefix(BOM).lstrip().startswith(b"["):
        yield from array_rows(text, path, name)
    else:
        yield from line_rows(text, path, name)


def what_else(head: bytes) -> str | None:
    """What a file that begins with `head` is if it is no text of data: a phrase for a message, or None."""
    start = head.removeprefix(BOM).lstrip()
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


def _parquet_rows(path: Path, name: str, columns: Collection[str], max_ratio: float) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = size = 0
    most = max(_FREE, int(path.stat().st_size * max_ratio))
    try:
        with pq.ParquetFile(path, buffer_size=READ, pre_buffer=False) as file:
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
