"""Rows of a source that give nothing: counted by reason, and written down with their places.

out  dropped.parquet   pair_id, reason, place, post_id, value (columns of tasks/sources/posts.py), in the source's order
"""

from collections import Counter
from pathlib import Path
from typing import Final

import polars as pl

from tasks.sources.posts import FAULT_SCHEMA

_HELD: Final = 20_000  # rows held at a time: a source can be nothing but faults


class Skipped:
    """What was skipped so far."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made, and holds what does not stay in memory."""
        self.tally = Counter[str]()
        self._folder = folder
        self._held: list[tuple[str, str, int | None]] = []
        self._parts: list[Path] = []
        folder.mkdir()

    def add(self, reason: str, place: str, post_id: int | None = None) -> None:
        """Count one row, and note it down."""
        self.tally[reason] += 1
        self._held.append((reason, place, post_id))
        if len(self._held) >= _HELD:
            self._flush()

    def write(self, path: Path, late: pl.DataFrame) -> None:
        """Write dropped.parquet: what was added, then the rows that only the whole source could tell (`late`).

        late  any of the columns of FAULT_SCHEMA; counted too
        """
        self._flush()
        self.tally.update(late["reason"].to_list())
        tables = [pl.LazyFrame(schema=FAULT_SCHEMA), *map(pl.scan_parquet, self._parts), late.lazy()]
        rows = pl.concat(tables, how="diagonal").select(pl.col(name).cast(kind) for name, kind in FAULT_SCHEMA.items())
        # Row groups of a fixed size: else their number follows the number of threads.
        rows.sink_parquet(path, row_group_size=_HELD, maintain_order=True)

    def _flush(self) -> None:
        if self._held:
            path = self._folder / f"{len(self._parts):06d}.parquet"
            schema = {name: FAULT_SCHEMA[name] for name in ("reason", "place", "post_id")}
            pl.DataFrame(self._held, schema=schema, orient="row").write_parquet(path)
            self._parts.append(path)
            self._held = []
