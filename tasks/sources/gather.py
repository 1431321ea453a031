"""Rows of a pair set -> pairs.parquet in the columns of tasks/pairs.py, in an order that follows from the pairs alone.

in   rows of one form (paired, tulu, jsonl), from files or a hub
out  pairs.parquet     sorted by the digest that names a pair; one row a pair_id
     dropped.parquet   pair_id (of repeated content), reason, place

Texts pass through in batches; what is held of each pair while all of them are put in order is some 40 bytes. Of rows
that are the same pair, the one stays whose fields come first as text, so that the order of the rows decides nothing.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from tasks.manifest import reasons
from tasks.ordered import batches, write_ordered
from tasks.pairs import DROPPED_SCHEMA, PAIR_SCHEMA, content_pair_id, pair_id
from tasks.sources.json_rows import Row
from tasks.sources.pair_rows import REASONS, Rejected
from tasks.sources.skipped import Skipped
from tasks.store import Workspace

Read = Callable[[Mapping[str, Any], str | None, Counter[str]], dict[str, Any]]
"""From a row, the site of its source and a count of ignored values to the fields of a pair; raises Rejected."""

_PART: Final = 5_000  # rows held as Python values at a time
_SCRATCH_SCHEMA: Final = pl.Schema([*PAIR_SCHEMA.items(), ("_place", pl.String())])


def gather_pairs(rows: Iterator[Row], read: Read, name: str, site: str | None, work: Workspace) -> dict[str, int]:
    """Fill the stage folder; the counts of `ingest`: `rows = pairs + skipped.*`.

    name  what pairs without ids are called after
    site  of rows that name none
    """
    folder = work.partial / "pairs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    gathering = _Gathering(folder, name, site)
    for number, row in enumerate(rows, start=1):
        gathering.take(row, read)
        if number % _PART == 0:
            work.progress(number, None, "rows")
    order, repeated = _in_order(folder / "kept", gathering.finish())
    scratch = work.partial / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    write_ordered(folder / "kept", work.folder / "pairs.parquet", order, PAIR_SCHEMA, scratch)
    gathering.skipped.write(work.folder / "dropped.parquet", repeated)
    if gathering.ignored:
        work.provenance["ignored"] = dict(sorted(gathering.ignored.items()))
        told = ", ".join(f"{column} {count:,}" for column, count in sorted(gathering.ignored.items()))
        work.message(f"values that are not of their column's type or name nothing were left out: {told}")
    return {"rows": gathering.rows, "pairs": len(order), **reasons("skipped", REASONS, gathering.skipped.tally)}


class _Gathering:
    """Rows as they come, the pairs in them written to parts in `kept/`."""

    def __init__(self, folder: Path, name: str, site: str | None) -> None:
        self.rows = 0
        self.skipped = Skipped(folder / "skipped")
        self.ignored = Counter[str]()
        self._folder = folder
        self._name = name
        self._site = site
        self._kept: list[dict[str, Any]] = []
        self._keys: list[int] = []
        self._parts: list[NDArray[np.uint64]] = []
        (folder / "kept").mkdir()

    def take(self, row: Row, read: Read) -> None:
        """Keep the pair in a row, or the reason why there is none."""
        self.rows += 1
        try:
            if row.fault is not None:
                raise Rejected(row.fault)
            pair = read(row.values, self._site, self.ignored)
        except Rejected as rejected:
            self.skipped.add(rejected.reason, row.place)
            return
        name, key = _named(pair, self._name)
        self._keys.append(key)
        self._kept.append({"chosen_rank": 1, "rejected_rank": 0, **pair, "pair_id": name, "_place": row.place})
        if len(self._kept) >= _PART:
            self._flush()

    def finish(self) -> NDArray[np.uint64]:
        """Write what is left; the key of every pair kept, in the order of the parts."""
        self._flush()
        return np.concatenate([np.empty(0, np.uint64), *self._parts])

    def _flush(self) -> None:
        if not self._kept:
            return
        pairs = pl.DataFrame(self._kept, schema=_SCRATCH_SCHEMA, strict=True)
        path = self._folder / "kept" / f"{len(self._parts):06d}.parquet"
        pairs.write_parquet(path, compression="lz4", statistics=False)
        self._parts.append(np.array(self._keys, np.uint64))
        self._kept, self._keys = [], []


def _named(pair: Mapping[str, Any], source: str) -> tuple[str, int]:
    """The pair's name, and 64 bits of it by which pairs are put in order."""
    ids = [pair.get(f"{post}_id") for post in ("question", "chosen", "rejected")]
    if pair.get("site") is not None and None not in ids:
        name = pair_id(pair["site"], ids[0], ids[1], ids[2])  # type: ignore[arg-type]
        return name, xxhash.xxh3_64_intdigest(name.encode())
    name = content_pair_id(source, pair["prompt"], pair["chosen"], pair["rejected"])
    return name, int(name[-16:], 16)


def _in_order(kept: Path, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], pl.DataFrame]:
    """The numbers of the rows that stay, in the order of their keys; and those that repeat another, as dropped rows."""
    order = np.argsort(keys, kind="stable").astype(np.int64)
    alike = np.zeros(len(order), dtype=bool)
    alike[1:] = keys[order[1:]] == keys[order[:-1]]
    alike[:-1] |= alike[1:]
    if not alike.any():
        return order, pl.DataFrame(schema=DROPPED_SCHEMA)
    suspects = np.zeros(len(keys), dtype=bool)
    suspects[order[alike]] = True
    start, found = 0, []
    for batch in batches(kept):
        here = pl.Series(suspects[start : start + batch.height])
        if here.any():
            whole = batch.with_row_index("row", offset=start).filter(here)
            said = pl.struct(pl.exclude("row", "_place")).struct.json_encode()
            found.append(whole.select("row", "pair_id", "_place", said=said))
        start += batch.height
    ranked = pl.concat(found).sort("pair_id", "said", "row")
    first = pl.col("pair_id").is_first_distinct()
    repeats = ranked.filter(~first).sort("row")
    # Of two names with one key the letters decide.
    second = np.zeros(len(keys), dtype=np.int64)
    second[ranked["row"].to_numpy()] = np.arange(ranked.height)
    gone = np.zeros(len(keys), dtype=bool)
    gone[repeats["row"].to_numpy()] = True
    order = np.lexsort((second, keys)).astype(np.int64)
    dropped = repeats.select("pair_id", reason=pl.lit("duplicate_id"), place="_place")
    return order[~gone[order]], dropped
