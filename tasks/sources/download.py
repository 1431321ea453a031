"""A file by http(s): fetched once, gone on with where it broke off, checked, and kept.

in   a URL, and the sha256 that the recipe may pin
out  WORK_DIR/downloads/<digest of the URL>/NAME, and a note of size, sha256 and the server's validator

What has arrived survives a kill. It is gone on with only when the server says by its validator that the file is still
the same one; a server that cannot send a part sends the whole again.
"""

import fcntl
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from tasks.digests import remembered_sha256, sync_file
from tasks.errors import InputError, PrefstackError, RecipeError, Surroundings, Transient
from tasks.folders import disk_is_full, write_text
from tasks.store import Store

if TYPE_CHECKING:
    import httpx

PAUSES: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try; a try that brought something begins the count anew."""
_MARGIN: Final = 64 << 20  # bytes of disk to leave free
_NOT_THERE: Final = (401, 403, 404, 410, 451)
_PAGE: Final = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)


class _Broken(Exception):
    """The connection or the server failed; another try may do better."""

    def __init__(self, said: str, *, answered: bool = True) -> None:
        super().__init__(said)
        self.answered = answered


def is_url(path: str) -> bool:
    """Whether a source's `path` is to be downloaded."""
    return path.lower().startswith(("http://", "https://"))


def fetched(url: str, sha256: str | None, store: Store) -> str:
    """The path of the file at `url`, downloaded now unless it is here and the same.

    InputError where the server has no such file or sends a web page, or the file is not the pinned one; Surroundings
    where the server cannot be reached; Transient where the connection keeps breaking; RecipeError where it is no URL.
    A plan downloads nothing.
    """
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole:
        raise RecipeError(f"ingest.sources: {url!r} is no address that could be fetched")
    folder = download_folder(url, store.work_dir)
    download = _Download(url, folder, store)
    if store.plan:
        if not download.path.is_file():
            raise Surroundings(f"{shown(url)} has not been downloaded yet")
        return str(download.path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            pinned_here = sha256 is not None and download.path.is_file()
            if not (pinned_here and remembered_sha256(download.path, store.work_dir) == sha256):
                download.bring()
    except OSError as error:
        if disk_is_full(error):
            raise Surroundings(f"the disk is full at {folder}; free some space and run again") from error
        raise Surroundings(f"{shown(url)} cannot be kept at {folder}: {error.strerror or error}") from error
    found = remembered_sha256(download.path, store.work_dir)
    if sha256 is not None and found != sha256:
        raise InputError(f"{shown(url)} has sha256 {found}, and the recipe pins {sha256}: it is another file")
    return str(download.path)


def download_folder(url: str, work_dir: Path) -> Path:
    """Where the file at `url` is kept; `.lock` in it is held while it is being fetched."""
    return work_dir / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16]


def shown(url: str) -> str:
    """The URL without user, password and query, for messages."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def file_name(url: str) -> str:
    """The last part of the URL's path, as a name that cannot leave its folder."""
    last = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip(".")[-128:] or "download"


class _Download:
    """One URL and its place. `.part` holds what has arrived, `.json` what the server said of it."""

    def __init__(self, url: str, folder: Path, store: Store) -> None:
        self.path = folder / file_name(url)
        self._url = url
        self._part = folder / f"{self.path.name}.part"
        self._note = folder / f"{self.path.name}.json"
        self._store = store

    def bring(self) -> None:
        """Make `path` what the server has now."""
        import httpx

        timeout = httpx.Timeout(30.0, connect=10.0)
        try:
            with httpx.Client(
                follow_redirects=True, timeout=timeout, headers={"Accept-Encoding": "identity"}
            ) as client:
                self._until_whole(client)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise InputError(f"{shown(self._url)} cannot be fetched: {error}") from error

    def _until_whole(self, client: "httpx.Client") -> None:
        tries = 0
        answered = False
        while True:
            before = self._arrived()
            try:
                self._once(client)
                return
            except _Broken as broken:
                answered = answered or broken.answered
                tries = 0 if self._arrived() > before else tries
                if tries == len(PAUSES):
                    self._give_up(str(broken), answered=answered)
                    return
                self._store.report.message("ingest", f"{shown(self._url)}: {broken}; trying again")
                time.sleep(PAUSES[tries])
                tries += 1

    def _give_up(self, said: str, *, answered: bool) -> None:
        """The copy that is here will do; without one, say what is to be done."""
        if self.path.is_file():
            self._store.report.message("ingest", f"{shown(self._url)} cannot be asked ({said}): using what was fetched")
            return
        kind: type[PrefstackError] = Transient if answered else Surroundings
        raise kind(f"{shown(self._url)} cannot be fetched: {said}; what has arrived is kept, so run again")

    def _once(self, client: "httpx.Client") -> None:
        """One request; raises _Broken where another may do better."""
        import httpx

        note, start = self._noted(), self._arrived()
        headers = self._conditions(note, start)
        try:
            with client.stream("GET", self._url, headers=headers) as answer:
                self._take(answer, note, start if "Range" in headers else 0)
        except httpx.TransportError as error:
            if isinstance(error, httpx.UnsupportedProtocol):
                raise
            reached = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
            raise _Broken(str(error) or type(error).__name__, answered=reached) from error

    def _conditions(self, note: dict[str, Any], start: int) -> dict[str, str]:
        validator, tag = note.get("validator"), note.get("etag")
        if note.get("sha256") is not None and self.path.is_file():
            if tag:
                return {"If-None-Match": tag}
            return {"If-Modified-Since": validator} if validator else {}
        # Without a validator nothing would tell whether the file is still the same one.
        return {"Range": f"bytes={start}-", "If-Range": validator} if start and validator else {}

    def _take(self, answer: "httpx.Response", note: dict[str, Any], start: int) -> None:
        status = answer.status_code
        if status == 304 and self.path.is_file():
            return
        if status in (304, 416):
            self._part.unlink(missing_ok=True)
            raise _Broken(f"the server answers {status} to what has arrived")
        if status in _NOT_THERE:
            raise InputError(f"{shown(self._url)} is not to be had: the server answers {status} {answer.reason_phrase}")
        if status >= 500 or status in (408, 425, 429):
            raise _Broken(f"the server answers {status} {answer.reason_phrase}")
        if status not in (200, 206):
            raise InputError(
                f"{shown(self._url)} cannot be fetched: the server answers {status} {answer.reason_phrase}"
            )
        fresh = _facts(answer)
        goes_on = (
            status == 206 and start > 0 and fresh["start"] == start and fresh["validator"] == note.get("validator")
        )
        if status == 206 and not goes_on:
            self._part.unlink(missing_ok=True)
            raise _Broken("the server sends another part than was asked for")
        write_text(self._note, json.dumps(fresh))
        self._receive(answer, start if goes_on else 0, fresh)

    def _receive(self, answer: "httpx.Response", start: int, fresh: dict[str, Any]) -> None:
        total = fresh["size"]
        if total is not None and total - start + _MARGIN > shutil.disk_usage(self._part.parent).free:
            raise Surroundings(f"{shown(self._url)} has {total} bytes, more than {self._part.parent} has room for")
        with open(self._part, "r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            for data in answer.iter_raw():
                if file.tell() == 0 and _PAGE.match(data):
                    raise InputError(f"{shown(self._url)} is a web page, and not a file of data")
                file.write(data)
                self._store.report.progress("ingest", file.tell(), total, "bytes")
            arrived = file.tell()
        if total is not None and arrived != total:
            if arrived > total:
                self._part.unlink()
            raise _Broken(f"{arrived} of {total} bytes have arrived")
        sync_file(self._part)
        self._part.rename(self.path)
        sha256 = remembered_sha256(self.path, self._store.work_dir)
        write_text(self._note, json.dumps(fresh | {"size": arrived, "sha256": sha256}))

    def _arrived(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def _noted(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return note if isinstance(note, dict) else {}
        except (OSError, ValueError):
            return {}


def _facts(answer: "httpx.Response") -> dict[str, Any]:
    """What an answer says of the file: `size` of the whole, where this part starts, and what tells one from another."""
    tag = answer.headers.get("ETag", "")
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    length = answer.headers.get("Content-Length", "")
    size: int | None = int(length) if length.isdigit() else None
    start = 0
    if answer.status_code == 206:
        start = int(given[1]) if given else -1
        size = int(given[2]) if given and given[2] != "*" else None
    validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified")
    return {"size": size, "start": start, "validator": validator, "etag": tag or None}


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One download of a URL at a time; the kernel lets go of it when the process ends."""
    with open(folder / ".lock", "w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
