"""A hub on loopback: one data set at one commit, in the few answers that a client needs to list and stream it.

Clients read a hub's address when they are imported, so whoever asks this one is a process of its own.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Hub:
    """A hub that runs: where, and which files have been read from it."""

    url: str
    read: list[str] = field(default_factory=list)


@contextmanager
def hub(folder: Path, name: str, commit: str) -> Iterator[Hub]:
    """A hub that has the files of `folder` as the data set `name` at `commit`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._route(body=False)

        def do_GET(self) -> None:
            self._route(body=True)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            if self._path() != f"/api/datasets/{name}/paths-info/{commit}":
                self._missing("RevisionNotFound")
                return
            self._json([_entry(folder, path) for path in asked["paths"] if (folder / path).exists()])

        def _path(self) -> str:
            return unquote(urlsplit(self.path).path)

        def _route(self, *, body: bool) -> None:
            path = self._path()
            if not path.startswith((f"/api/datasets/{name}", f"/datasets/{name}/")):
                self._missing("RepoNotFound")
            elif path in (f"/api/datasets/{name}", f"/api/datasets/{name}/revision/{commit}"):
                files = [entry.relative_to(folder).as_posix() for entry in sorted(folder.rglob("*")) if entry.is_file()]
                self._json({"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]})
            elif path.startswith(tree := f"/api/datasets/{name}/tree/{commit}"):
                here = folder / path[len(tree) :].strip("/")
                if not here.is_dir():
                    self._missing("EntryNotFound")
                    return
                everything = "recursive=true" in self.path.lower()
                found = sorted(here.rglob("*") if everything else here.iterdir())
                self._json([_entry(folder, entry.relative_to(folder).as_posix()) for entry in found])
            elif path.startswith(file := f"/datasets/{name}/resolve/{commit}/"):
                self._file(path[len(file) :], body=body)
            else:
                self._missing("RevisionNotFound")

        def _file(self, path: str, *, body: bool) -> None:
            if not (folder / path).is_file():
                self._missing("EntryNotFound")
                return
            data = (folder / path).read_bytes()
            start, end = 0, len(data)
            asked = self.headers.get("Range", "")
            if asked.startswith("bytes="):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last) + 1 if last else end, end)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            else:
                self.send_response(200)
            if body:
                read.append(path)
            for header, value in (
                ("ETag", f'"{len(data)}"'), ("X-Repo-Commit", commit), ("Accept-Ranges", "bytes"),
                ("Content-Length", str(end - start)),
            ):  # fmt: skip
                self.send_header(header, value)
            self.end_headers()
            if body:
                self.wfile.write(data[start:end])

        def _json(self, value: Any) -> None:
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _missing(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    read: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Hub(f"http://127.0.0.1:{server.server_port}", read)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(folder: Path, path: str) -> dict[str, Any]:
    here = folder / path
    if here.is_dir():
        return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": path, "oid": "1" * 40, "size": here.stat().st_size}
