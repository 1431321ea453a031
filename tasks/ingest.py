"""Ingest: one source -> posts (a dump) or pairs (everything else).

in   an archive, a folder, a file, a URL or a hub data set
out  posts.parquet or pairs.parquet, dropped.parquet
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from tasks.config import StageConfig
from tasks.digests import remembered_sha256
from tasks.errors import RecipeError
from tasks.manifest import Manifest
from tasks.sources.dump import Limits, read_dump
from tasks.sources.place import locate
from tasks.store import External, Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change

SourceKind = Literal["dump", "paired", "preferences", "tulu", "jsonl"]


class SourceConfig(StageConfig):
    """Where posts or pairs come from. A plain string in a recipe is a dump's `path`."""

    incidental: ClassVar[frozenset[str]] = frozenset({"path", "max_unpacked_gb", "max_ratio"})

    kind: SourceKind = "dump"
    """The form of the source."""
    path: str = Field(min_length=1)
    """A file, a folder, an http(s) URL, or the id of a hub data set; relative to the working directory."""
    site: str | None = None
    """Host name of the site where neither archive nor folder tells it."""
    name: str | None = None
    """What pairs without ids are called after; null takes the kind's name."""
    revision: str | None = None
    """Commit of a hub data set."""
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
    """A path, a URL, or {kind, path, site, name, revision} each."""


def ingest_source(store: Store, source: SourceConfig) -> Manifest:
    """The posts or pairs of one source, in a folder `source-<fingerprint>`."""
    match source.kind:
        case "dump":
            return _ingest_dump(store, source)
        case _:
            raise RecipeError(f"ingest.sources: kind {source.kind} ({source.path}) cannot be read yet; dump can")


def _ingest_dump(store: Store, source: SourceConfig) -> Manifest:
    if source.path.startswith(("http://", "https://")):
        raise RecipeError(f"ingest.sources: {source.path} is a URL; download the dump and give its path")
    dump = locate(source.path, source.site)
    archive = dump.posts
    digest = remembered_sha256(archive, store.work_dir)
    inputs = {"source": External(digest)}
    if dump.users is not None:
        inputs["users"] = External(remembered_sha256(dump.users, store.work_dir))
    limits = Limits(round(source.max_unpacked_gb * 1e9), source.max_ratio)

    def build(work: Workspace) -> dict[str, int]:
        work.provenance["source"] = {
            "kind": "dump", "site": dump.site, "path": source.path, "file": archive.name,
            "size": archive.stat().st_size, "sha256": digest,
        }  # fmt: skip
        return read_dump(dump, limits, work)

    return store.stage("source", VERSION, {"kind": "dump", "site": dump.site}, inputs, build)
