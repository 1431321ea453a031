"""Tables that need not fit in memory: read in batches, written in another order.

A table is a Parquet file, or a folder of Parquet files read in the order of their names. What is written has row groups
of a fixed number of rows, whatever the groups of the source were, so that equal rows in equal order are equal bytes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

BATCH: Final = 2_000  # rows of text in memory at a time while reading
ROW_GROUP: Final = 10_000  # rows
PART_BYTES: Final = 64 << 20  # decoded rows that are put in order in memory at a time
_FIXED: Final = 8  # bytes of a value in memory beside its text, about: what a row of short texts mostly consists of


def files_of(source: Path) -> list[Path]:
    """The Parquet files of a table, in the order in which they are read."""
    return sorted(source.rglob("*.parquet")) if source.is_dir() else [source]


def batches(source: Path, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """The rows of `source` in file order, at most BATCH at a time; `columns` None = all.

    A row group is decoded as it is read (`buffer_size`), so that memory follows BATCH and not the writer's groups.
    """
    import pyarrow.parquet as pq

    for path in files_of(source):
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            wanted = None if columns is None else list(columns)
            for batch in file.iter_batches(BATCH, columns=wanted, use_threads=False):
                yield pl.DataFrame(batch)


def write_ordered(
    source: Path, target: Path, order: NDArray[np.int64], schema: pl.Schema, scratch: Path,
    extra: pl.DataFrame | None = None,
) -> None:  # fmt: skip
    """Write the rows of `source` whose numbers are in `order`, in that order, to the Parquet file `target`.

    order   row numbers of the source, each at most once
    schema  columns of the target, which are cast to it
    extra   columns to add, one row for each of `order`
    scratch an empty folder for what does not fit in memory; it is left empty
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = schema.to_frame().to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    written = 0
    with pq.ParquetWriter(target, arrow, compression="zstd") as writer:
        for group in _groups(_in_order(source, order, scratch)):
            if extra is not None:
                group = group.hstack(extra.slice(written, group.height))
            written += group.height
            table = group.select(schema.names()).cast(schema).to_arrow(compat_level=pl.CompatLevel.oldest())
            # Chunk borders move page borders: one chunk, so that the bytes depend on the rows alone.
            table = pa.Table.from_batches(table.combine_chunks().to_batches(), arrow)
            writer.write_table(table, row_group_size=ROW_GROUP)


def _groups(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of ROW_GROUP rows, the last one shorter."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        held.append(frame)
        rows += frame.height
        if rows >= ROW_GROUP:
            whole = pl.concat(held)
            full = rows - rows % ROW_GROUP
            for start in range(0, full, ROW_GROUP):
                yield whole.slice(start, ROW_GROUP)
            held, rows = [whole.slice(full)], rows - full
    if rows:
        yield pl.concat(held)


def _in_order(source: Path, order: NDArray[np.int64], scratch: Path) -> Iterator[pl.DataFrame]:
    if order.size == 0:
        return
    total, size = _extent(source)
    position = np.full(total, -1, dtype=np.int64)
    position[order] = np.arange(order.size)
    if bool(np.all(np.diff(order) > 0)):  # already in order, the usual case: nothing to hold back
        for _, frame in _chosen(source, position):
            yield frame.drop("_position")
        return
    a_part = max(ROW_GROUP, PART_BYTES * total // max(size, 1))
    parts = -(-order.size // a_part)
    if parts == 1:
        yield pl.concat([frame for _, frame in _chosen(source, position)]).sort("_position").drop("_position")
        return
    yield from _through_scratch(source, position, a_part, parts, scratch)


def _through_scratch(
    source: Path, position: NDArray[np.int64], a_part: int, parts: int, scratch: Path
) -> Iterator[pl.DataFrame]:
    """Deal the rows out to files by ranges of position, then put each file in order by itself."""
    import pyarrow as pa

    paths = [scratch / f"{part:05}.arrow" for part in range(parts)]
    writers: list[Any] = [None] * parts
    try:
        for places, frame in _chosen(source, position):
            part_of = places // a_part
            for part in np.unique(part_of):
                table = frame.filter(pl.Series(part_of == part)).to_arrow(compat_level=pl.CompatLevel.oldest())
                if writers[part] is None:
                    writers[part] = pa.ipc.new_stream(str(paths[part]), table.schema)
                writers[part].write_table(table)
    finally:
        for writer in writers:
            if writer is not None:
                writer.close()
    for path in paths:
        with pa.ipc.open_stream(str(path)) as stream:
            frame = pl.DataFrame(stream.read_all())
        yield frame.sort("_position").drop("_position")
        path.unlink()


def _chosen(source: Path, position: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], pl.DataFrame]]:
    """Batches of the rows that have a position, with the positions, which are the column `_position` too."""
    start = 0
    for batch in batches(source):
        places = position[start : start + batch.height]
        start += batch.height
        taken = places >= 0
        if taken.any():
            yield places[taken], batch.filter(pl.Series(taken)).with_columns(_position=pl.Series(places[taken]))


def _extent(source: Path) -> tuple[int, int]:
    """Rows of a table and about how many bytes they are in memory, from its footers."""
    import pyarrow.parquet as pq

    rows = size = 0
    for path in files_of(source):
        footer = pq.read_metadata(path)
        rows += footer.num_rows
        size += sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
        size += footer.num_rows * footer.num_columns * _FIXED
    return rows, size
