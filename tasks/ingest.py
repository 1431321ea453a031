"""Ingest: one source -> posts (a dump) or pairs (everything else).

in   an archive, a folder, a file, a URL or a hub data set
out  posts.parquet or pairs.parquet, dropped.parquet
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.config import StageConfig
from tasks.manifest import Manifest
from tasks.store import Store

VERSION = 1  # bump when the bytes this stage writes would change

SourceKind = Literal["dump", "paired", "preferences", "tulu", "jsonl"]


class SourceConfig(StageConfig):
    """Where posts or pairs come from. A plain string in a recipe is a dump's `path`."""

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
    raise NotImplementedError(Path(source.path))
