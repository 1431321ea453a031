"""Dumps made for tests: rows in, a Posts.xml out, and what ingest makes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import polars as pl
import pytest

from tasks.ingest import SourceConfig, ingest_source
from tasks.manifest import Manifest, total
from tasks.store import Store

SITE = "bread.stackexchange.com"


def line(row: dict[str, str]) -> str:
    """A row as a dump has it."""
    attributes = " ".join(
        f"{name}={quoteattr(value, {chr(10): '&#xA;', chr(13): '&#xD;'})}" for name, value in row.items()
    )
    return f"  <row {attributes} />"


def document(rows: Sequence[dict[str, str]], root: str = "posts") -> bytes:
    """A dump's XML: byte order mark, declaration, a row a line, CRLF."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f"<{root}>", *map(line, rows), f"</{root}>"]
    return b"\xef\xbb\xbf" + "\r\n".join(lines).encode()


@dataclass(frozen=True)
class Ingested:
    """What ingest made of a dump."""

    manifest: Manifest
    posts: pl.DataFrame
    dropped: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        return self.manifest.counts

    @property
    def ids(self) -> list[int]:
        return sorted(self.posts["id"])

    def skipped(self) -> dict[str, int]:
        """The reasons that occurred."""
        return {
            name.removeprefix("skipped."): count
            for name, count in self.counts.items()
            if name.startswith("skipped.") and count
        }


@pytest.fixture
def site_folder(tmp_path: Path) -> Path:
    """An empty folder named after a site."""
    folder = tmp_path / SITE
    folder.mkdir()
    return folder


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., Ingested]:
    """Ingest a path; the counts must add up whatever is in it."""

    def run(path: Path, work: str = "work", **keys: Any) -> Ingested:
        manifest = ingest_source(Store(tmp_path / work), SourceConfig(path=str(path), **keys))
        posts = pl.read_parquet(manifest.path("posts.parquet"))
        counts = manifest.counts
        assert counts["rows"] == counts["questions"] + counts["answers"] + total(counts, "skipped")
        assert posts.height == counts["questions"] + counts["answers"]
        return Ingested(manifest, posts, pl.read_parquet(manifest.path("dropped.parquet")))

    return run


@pytest.fixture
def ingest_rows(site_folder: Path, ingest: Callable[..., Ingested]) -> Callable[..., Ingested]:
    """Ingest rows, or the bytes of a Posts.xml."""

    def run(rows: Sequence[dict[str, str]] | bytes, **keys: Any) -> Ingested:
        data = rows if isinstance(rows, bytes) else document(rows)
        (site_folder / "Posts.xml").write_bytes(data)
        return ingest(site_folder, **keys)

    return run
