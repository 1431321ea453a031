"""Ingest: one source -> posts (a dump) or pairs (everything else).

in   an archive, a folder, a file, a URL or a hub data set
out  posts.parquet or pairs.parquet, dropped.parquet
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

import tasks.single_threaded_blas  # noqa: F401  before what is imported below loads numpy
from tasks.config import StageConfig
from tasks.digests import remembered_sha256
from tasks.errors import InputError, RecipeError
from tasks.manifest import Manifest
from tasks.sources import jsonl, paired, preferences, tulu
from tasks.sources.data_files import find_files, read_rows
from tasks.sources.download import fetched, is_url
from tasks.sources.dump import Limits, read_dump
from tasks.sources.gather import Read, gather_pairs
from tasks.sources.hub import hub_digest, hub_rows, is_hub_id, pinned
from tasks.sources.json_rows import Row
from tasks.sources.place import locate
from tasks.sources.preferences import read_preferences
from tasks.store import External, Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change

ReadRows = Callable[[Iterator[Row], Workspace], dict[str, int]]
"""Fills the stage folder from the rows of a source; its counts."""

SourceKind = Literal["dump", "paired", "preferences", "tulu", "jsonl"]


class SourceConfig(StageConfig):
    """Where posts or pairs come from. A plain string in a recipe is a dump's `path`."""

    incidental: ClassVar[frozenset[str]] = frozenset({"path", "sha256", "max_unpacked_gb", "max_ratio"})

    kind: SourceKind = "dump"
    """The form of the source."""
    path: str = Field(min_length=1)
    """A file, a folder, an http(s) URL, or the id of a hub data set; relative to the working directory."""
    site: str | None = None
    """Host name of the site where neither archive nor folder tells it."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What pairs without ids are called after; null takes the kind's name."""
    revision: str | None = None
    """Commit of a hub data set, 40 hex digits; a data set that is not pinned is refused."""
    files: str | None = None
    """Glob of the files to read of a hub data set or a folder, such as data/rl/*.parquet; null = all."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Digest that a file or a download must have; null = whatever is there."""
    max_unpacked_gb: PositiveFloat = 250.0
    """Gigabytes that an archive may unpack to; the largest known (Stack Overflow's posts) has about 100."""
    max_ratio: PositiveFloat = 100.0
    """How many times its size an archive may unpack to; dumps reach 4 to 12."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given


class IngestConfig(StageConfig):
    """What is read."""

    sources: list[SourceConfig] = Field(min_length=1)
    """A path, a URL, or {kind, path, site, name, revision, files, sha256} each."""


def ingest_source(store: Store, source: SourceConfig) -> Manifest:
    """The posts or pairs of one source, in a folder `source-<fingerprint>`."""
    path = fetched(source.path, source.sha256, store) if is_url(source.path) else source.path
    match source.kind:
        case "dump":
            return _ingest_dump(store, source, path)
        case "preferences":
            return _ingest_rows(store, source, path, preferences.COLUMNS, preferences.TEXTS, _preferences(source))
        case "paired":
            return _ingest_rows(store, source, path, paired.COLUMNS, paired.TEXTS, _pairs(source, paired.paired_row))
        case "tulu":
            return _ingest_rows(store, source, path, tulu.COLUMNS, tulu.TEXTS, _pairs(source, tulu.tulu_row))
        case "jsonl":
            return _ingest_rows(store, source, path, jsonl.COLUMNS, jsonl.TEXTS, _pairs(source, jsonl.jsonl_row))


def _ingest_dump(store: Store, source: SourceConfig, path: str) -> Manifest:
    dump = locate(path, source.site)
    archive = dump.posts
    digest = remembered_sha256(archive, store.work_dir)
    check_digest(source, digest)
    inputs = {"source": External(digest)}
    if dump.users is not None:
        inputs["users"] = External(remembered_sha256(dump.users, store.work_dir))
    limits = Limits(round(source.max_unpacked_gb * 1e9), source.max_ratio)

    def build(work: Workspace) -> dict[str, int]:
        work.provenance["source"] = {
            "kind": "dump", "site": dump.site, "path": source.path, "file": archive.name,
            "size": archive.stat().st_size, "sha256": digest,
        }  # fmt: skip
        counts = read_dump(dump, limits, work)
        read = {"source": archive} | ({} if dump.users is None else {"users": dump.users})
        for name, file in read.items():
            _refuse_changed(file, remembered_sha256(file, store.work_dir) != inputs[name].digest, work)
        return counts

    return store.stage("source", VERSION, {"kind": "dump", "site": dump.site}, inputs, build)


def _ingest_rows(
    store: Store, source: SourceConfig, path: str, columns: Sequence[str], texts: Sequence[str], read: ReadRows
) -> Manifest:  # fmt: skip
    """A source that is a table of rows: files here, or a data set on a hub."""
    name = source.name or source.kind
    config = {"kind": source.kind, "name": name, "site": source.site}
    facts: dict[str, Any] = {"kind": source.kind, "name": name, "site": source.site, "path": source.path}
    if is_hub_id(path) and not Path(path).exists():
        revision = pinned(path, source.revision)
        if source.sha256 is not None:
            raise RecipeError(f"ingest.sources: sha256 pins a file; {path} is on the hub, where revision pins it")
        digest = hub_digest(path, revision, source.files)

        def build(work: Workspace) -> dict[str, int]:
            work.provenance["source"] = facts | {"revision": revision, "files": source.files}
            return read(with_columns(hub_rows(path, revision, source.files), texts, source.kind, path), work)

    else:
        files = find_files(path, source.files)
        if source.sha256 is not None and files.paths != [files.root]:
            raise RecipeError(f"ingest.sources: sha256 pins a file; {files.root} is a folder")
        digest = files.digest(store.work_dir)
        check_digest(source, digest)

        def build(work: Workspace) -> dict[str, int]:
            work.provenance["source"] = facts | {
                "file": files.root.name, "files": len(files.paths), "size": files.size(), "sha256": digest,
            }  # fmt: skip
            rows = read_rows(files, columns, source.max_ratio)
            counts = read(with_columns(rows, texts, source.kind, str(files.root)), work)
            _refuse_changed(files.root, files.digest(store.work_dir) != digest, work)
            return counts

    return store.stage("source", VERSION, config, {"source": External(digest)}, build)


def _pairs(source: SourceConfig, form: Read) -> ReadRows:
    return lambda rows, work: gather_pairs(rows, form, source.name or source.kind, source.site, work)


def _preferences(source: SourceConfig) -> ReadRows:
    return lambda rows, work: read_preferences(rows, source.site, work)


def with_columns(rows: Iterator[Row], texts: Sequence[str], kind: str, shown: str) -> Iterator[Row]:
    """`rows` as they are; InputError after the last one where none had the columns `texts` of the source's kind."""
    number = 0
    found = False
    for row in rows:
        number += 1
        found = found or (row.fault is None and all(name in row.values for name in texts))
        yield row
    if not number:
        raise InputError(f"{shown} has no row")
    if not found:
        raise InputError(f"{shown} is not of kind {kind}: none of its {number} rows has the columns {', '.join(texts)}")


def _refuse_changed(path: Path, changed: bool, work: Workspace) -> None:
    """InputError where the file is another one by now: nothing may be found by the digest of what was not read."""
    if changed:
        for entry in work.partial.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise InputError(f"{path} was changed while it was read: run again when it is whole")


def check_digest(source: SourceConfig, digest: str) -> None:
    """InputError where the recipe pins other bytes than there are."""
    if source.sha256 is not None and source.sha256 != digest:
        raise InputError(f"{source.path} has sha256 {digest}, and the recipe pins {source.sha256}: it is another file")
