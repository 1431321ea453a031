"""One byte range of a dump's XML -> a part of its table, finished or not there.

in   a file, where the range begins and ends
out  part-00007.parquet          posts or users
     part-00007.dropped.parquet  faulty rows, each with its line within the range
     part-00007.json             written last: what the range held

It runs in a worker; a range whose JSON is there is not read again.
"""

import json
from pathlib import Path
from typing import Final, Literal, TypedDict

import numpy as np
import polars as pl

from tasks.digests import sync_file
from tasks.sources.posts import FAULT_SCHEMA, POST_ATTRIBUTES, USER_ATTRIBUTES, Typed, type_posts, type_users
from tasks.sources.rows import Damaged, HasMarkup, Rows, parse

Table = Literal["posts", "users"]
# Level 1 and no statistics: a quarter of the time of the defaults, for a tenth more space.
ROW_GROUP: Final = 50_000
_PIECE: Final = 1 << 18  # bytes
LINE_SCHEMA: Final = pl.Schema([*FAULT_SCHEMA.items(), ("line", pl.Int64())])


class RangeJob(TypedDict):
    """One range to read."""

    xml: str
    start: int
    end: int
    last: bool
    table: Table
    site: str
    part: str
    """Path of the part without its suffix."""


class RangeResult(TypedDict):
    """What a range held, or why it could not be read."""

    rows: int
    lines: int
    kept: int
    skipped: dict[str, int]
    markup: bool
    """The file has comments or the like: it must be copied without them before it can be cut."""
    damaged: str | None
    damaged_line: int
    """From 1, within the range."""


def read_range(job: RangeJob) -> RangeResult:
    """Read one range and write its part, unless that is there already."""
    part = Path(job["part"])
    marker = part.with_suffix(".json")
    try:
        return json.loads(marker.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except (FileNotFoundError, json.JSONDecodeError):
        pass
    with open(job["xml"], "rb") as handle:
        handle.seek(job["start"])
        data = handle.read(job["end"] - job["start"])
    attributes = POST_ATTRIBUTES if job["table"] == "posts" else USER_ATTRIBUTES
    try:
        rows = parse(data, attributes, job["table"], last=job["last"])
    except HasMarkup:
        return _result(markup=True)
    except Damaged as fault:
        return _result(damaged=fault.what, damaged_line=fault.line)
    typed = _typed(rows, job)
    faults = _with_lines(typed.faults, rows, data)
    skipped = typed.skipped | ({"bad_character": len(rows.unusable)} if rows.unusable else {})
    result = _result(
        rows=len(rows.offsets) + len(rows.unusable),
        lines=_lines(data),
        kept=typed.table.height,
        skipped=skipped,
    )
    _write(typed.table, part.with_suffix(".parquet"))
    _write(faults, part.with_suffix(".dropped.parquet"))
    scratch = part.with_suffix(".json.tmp")
    scratch.write_text(json.dumps(result), encoding="utf-8")
    sync_file(scratch)
    scratch.rename(marker)
    return result


def _lines(data: bytes) -> int:
    """How many lines end in `data`; numpy's comparison, a piece of the processor's cache at a time, is the fastest."""
    whole = np.frombuffer(data, np.uint8)
    pieces = (whole[at : at + _PIECE] for at in range(0, len(data), _PIECE))
    return sum(int(np.count_nonzero(piece == ord("\n"))) for piece in pieces)


def write_part(table: pl.DataFrame, path: Path) -> None:
    """Write posts or users as a part is written."""
    table.write_parquet(path, compression="zstd", compression_level=1, statistics=False, row_group_size=ROW_GROUP)


def _write(table: pl.DataFrame, path: Path) -> None:
    write_part(table, path)
    sync_file(path)


def _typed(rows: Rows, job: RangeJob) -> Typed:
    attributes = POST_ATTRIBUTES if job["table"] == "posts" else USER_ATTRIBUTES
    columns = dict(zip(attributes, rows.columns, strict=True))
    if job["table"] == "users":
        return type_users(columns, job["site"])
    columns["offset"] = pl.Series("offset", rows.offsets, dtype=pl.Int64) + job["start"]
    return type_posts(columns, job["site"])


def _with_lines(faults: pl.DataFrame, rows: Rows, data: bytes) -> pl.DataFrame:
    """`faults` in the order of the file, with `line`: how many lines of the range are before each row."""
    if faults.is_empty() and not rows.unusable:  # as of most ranges: nothing to look for the lines of
        return pl.DataFrame(schema=LINE_SCHEMA)
    offsets = np.array(rows.offsets, dtype=np.int64)
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    of_rows = faults.with_columns(offset=pl.Series(offsets[faults["row"].to_numpy()], dtype=pl.Int64))
    of_characters = pl.DataFrame({"offset": rows.unusable}, schema={"offset": pl.Int64}).with_columns(
        reason=pl.lit("bad_character")
    )
    found = pl.concat([of_rows, of_characters], how="diagonal").sort("offset")
    line = pl.Series(np.searchsorted(ends, found["offset"].to_numpy()), dtype=pl.Int64)
    nothing = pl.lit(None, pl.String)
    return found.with_columns(line=line, pair_id=nothing, place=nothing).select(LINE_SCHEMA.names()).cast(LINE_SCHEMA)


def _result(
    *,
    rows: int = 0,
    lines: int = 0,
    kept: int = 0,
    skipped: dict[str, int] | None = None,
    markup: bool = False,
    damaged: str | None = None,
    damaged_line: int = 0,
) -> RangeResult:
    return RangeResult(
        rows=rows, lines=lines, kept=kept, skipped=skipped or {}, markup=markup, damaged=damaged,
        damaged_line=damaged_line,
    )  # fmt: skip
