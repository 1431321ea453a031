"""A dump of one site -> its questions and answers, and the names of its users.

in   SITE.7z, a folder with Posts.xml, or a Posts.xml; Users.xml where there is one
out  posts.parquet/   a part a byte range of Posts.xml, in its order (columns: tasks/sources/posts.py)
     users.parquet/   user_id, name
     dropped.parquet  faulty rows: reason, place ("line 12" of Posts.xml), post_id, value
"""

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from tasks.errors import InputError
from tasks.manifest import reasons
from tasks.sources.place import Dump
from tasks.sources.posts import FAULT_SCHEMA, FAULTS, PLANNED, POST_SCHEMA, QUESTION, USER_SCHEMA
from tasks.sources.ranges import LINE_SCHEMA, RangeJob, RangeResult, Table, write_part
from tasks.sources.settle import removals
from tasks.sources.xml_file import Cut, cut
from tasks.store import Workspace
from tasks.workers import MAX_WORKERS, WORTH_WORKERS, WorkerDied, cores, perform_all

_SCHEMAS: Final[dict[Table, pl.Schema]] = {"posts": POST_SCHEMA, "users": USER_SCHEMA}


@dataclass(frozen=True)
class Limits:
    """How far an archive is trusted."""

    max_bytes: int
    max_ratio: float


@dataclass(frozen=True)
class Parts:
    """The finished parts of one XML file."""

    cut: Cut
    paths: list[Path]
    results: list[RangeResult]

    def line_before(self, part: int) -> int:
        """How many lines of the file are before the part's range."""
        head = self.cut.ranges[0][0] if self.cut.ranges else 0
        with open(self.cut.path, "rb") as handle:
            return handle.read(head).count(b"\n") + sum(result["lines"] for result in self.results[:part])


def read_dump(dump: Dump, limits: Limits, work: Workspace) -> dict[str, int]:
    """Fill the stage folder with the dump's posts, users and faults; the counts of `ingest`."""
    posts_xml, users_xml = _files(dump, limits, work)
    posts = _read(posts_xml, "posts", dump, work)
    removed = removals(posts.paths, sum(result["kept"] for result in posts.results))
    _publish(posts, removed, "posts", work.folder / "posts.parquet")
    if users_xml is not None:
        _publish(_read(users_xml, "users", dump, work), removed.clear(), "users", work.folder / "users.parquet")
    else:
        (work.folder / "users.parquet").mkdir()
        write_part(pl.DataFrame(schema=USER_SCHEMA), work.folder / "users.parquet" / "part-00000.parquet")
    _write_faults(posts, removed, work.folder / "dropped.parquet")

    skipped = Counter[str]()
    for result in posts.results:
        skipped.update(result["skipped"])
    skipped.update(removed["reason"].to_list())
    kinds = pl.scan_parquet(work.folder / "posts.parquet").select(pl.col("post_type").value_counts()).collect()
    tally = {row["post_type"]: row["count"] for row in kinds["post_type"].to_list()}
    return {
        "rows": sum(result["rows"] for result in posts.results),
        "questions": tally.get(QUESTION, 0),
        "answers": sum(tally.values()) - tally.get(QUESTION, 0),
        **reasons("skipped", (*PLANNED, *FAULTS), skipped),
    }


def _files(dump: Dump, limits: Limits, work: Workspace) -> tuple[Path, Path | None]:
    """Posts.xml and, where there is one, Users.xml: unpacked into the partial folder if need be."""
    if not dump.archive:
        return dump.posts, dump.users
    wanted = {dump.posts: ["posts.xml"] if dump.users else ["posts.xml", "users.xml"]}
    if dump.users:
        wanted[dump.users] = ["users.xml"]
    ready = work.partial / "unpacked"
    if not ready.is_file():
        for archive, names in wanted.items():
            work.message(f"unpacking {archive.name}")
            request = {
                "archive": str(archive), "folder": str(work.partial), "wanted": names,
                "max_bytes": limits.max_bytes, "max_ratio": limits.max_ratio,
            }  # fmt: skip
            try:
                for _ in perform_all("unpack", [request], workers=1):
                    pass
            except WorkerDied as error:
                if not error.by_itself:
                    raise
                raise InputError(f"{archive} cannot be unpacked: it asks for too much memory, or is damaged") from error
        ready.touch()
    users = work.partial / "users.xml.unpacked"
    return work.partial / "posts.xml.unpacked", users if users.is_file() else None


def _read(xml: Path, table: Table, dump: Dump, work: Workspace) -> Parts:
    """All ranges of `xml`, each read by a worker into its part."""
    shown = f"{dump.path} ({table.capitalize()}.xml)" if dump.archive else str(xml)
    parts = _read_cut(cut(xml, shown, table, work.partial), shown, table, dump, work)
    if parts is None:
        parts = _read_cut(cut(xml, shown, table, work.partial, plain=True), shown, table, dump, work)
    assert parts is not None  # nothing is left to blank out
    return parts


def _read_cut(found: Cut, shown: str, table: Table, dump: Dump, work: Workspace) -> Parts | None:
    """The parts, or None where the file has comments that must be blanked out first."""
    folder = work.partial / f"{table}-{found.path.name}"
    folder.mkdir(exist_ok=True)
    parts = Parts(found, [folder / f"part-{number:05d}.parquet" for number in range(len(found.ranges))], [])
    jobs: list[RangeJob] = [
        RangeJob(
            xml=str(found.path), start=start, end=end, last=number == len(found.ranges) - 1, table=table,
            site=dump.site, part=str(folder / f"part-{number:05d}"),
        )
        for number, (start, end) in enumerate(found.ranges)
    ]  # fmt: skip
    workers = 0 if len(jobs) < WORTH_WORKERS else min(cores(), MAX_WORKERS)
    total = found.ranges[-1][1] if found.ranges else 0
    for number, result in enumerate(perform_all("range", jobs, workers)):
        if result["markup"]:
            return None
        if result["damaged"] is not None:
            line = parts.line_before(number) + result["damaged_line"]
            raise InputError(f"{shown} is damaged or cut short at line {line}: {result['damaged']}")
        parts.results.append(result)
        work.progress(found.ranges[number][1], total, "bytes")
    if not jobs:
        write_part(pl.DataFrame(schema=_SCHEMAS[table]), folder / "part-00000.parquet")
        parts.paths.append(folder / "part-00000.parquet")
    return parts


def _publish(parts: Parts, removed: pl.DataFrame, table: Table, folder: Path) -> None:
    """Put the parts into the stage folder, without the rows that do not stay; links cost nothing and survive a kill."""
    folder.mkdir()
    for number, path in enumerate(parts.paths):
        rows = removed.filter(pl.col("part") == number)["row"]
        if len(rows):
            kept = pl.read_parquet(path).with_row_index("row").filter(~pl.col("row").is_in(rows.implode()))
            write_part(kept.select(_SCHEMAS[table].names()), folder / path.name)
            continue
        try:
            os.link(path, folder / path.name)
        except OSError:  # not every file system has links
            shutil.copyfile(path, folder / path.name)


def _write_faults(posts: Parts, removed: pl.DataFrame, path: Path) -> None:
    tables = [pl.DataFrame(schema=LINE_SCHEMA)]
    for number, part in enumerate(posts.paths[: len(posts.results)]):
        found = pl.read_parquet(part.with_suffix(".dropped.parquet"))
        late = removed.filter(pl.col("part") == number)
        if not found.height and not late.height:
            continue
        found = pl.concat([found, _with_lines(late, posts.cut, number)])
        tables.append(found.with_columns(line=pl.col("line") + posts.line_before(number) + 1))
    faults = pl.concat(tables).sort("line", "reason", "post_id", "value")
    faults.with_columns(place=pl.format("line {}", "line")).select(FAULT_SCHEMA.names()).write_parquet(path)


def _with_lines(late: pl.DataFrame, found: Cut, number: int) -> pl.DataFrame:
    """Rows removed after the whole file was read, with their line within the range."""
    lines = np.empty(0, dtype=np.int64)
    if late.height:
        start, end = found.ranges[number]
        with open(found.path, "rb") as handle:
            handle.seek(start)
            data = handle.read(end - start)
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        lines = np.searchsorted(ends, late["offset"].to_numpy() - start)
    return late.select(
        pair_id=pl.lit(None, pl.String), reason="reason", place=pl.lit(None, pl.String), post_id="post_id",
        value=pl.lit(None, pl.String),
    ).with_columns(line=pl.Series(lines, dtype=pl.Int64))  # fmt: skip
