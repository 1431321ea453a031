"""A web server on loopback that misbehaves as it is told to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """One file, and how it is served. `requests` has the headers of each request."""

    content: bytes = b""
    etag: str | None = '"one"'
    modified: str | None = None
    cut: list[int | None] = field(default_factory=list)
    """After how many bytes of its body each next answer breaks off; None = it does not."""
    statuses: list[int] = field(default_factory=list)
    """Statuses that the next answers have in place of their own."""
    ranges: bool = True
    """Whether a range is answered with a part."""
    checks: bool = True
    """Whether If-Range is heeded."""
    length: bool = True
    """Whether an answer says its length."""
    kind: str = "application/octet-stream"
    before: Callable[["Site", int], None] = lambda site, number: None
    """Called before each answer with its number from 0."""
    requests: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    """Bytes of bodies sent."""
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.before(self, len(self.requests))
        asked = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append(asked)
        cut = self.cut.pop(0) if self.cut else None
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        if self._unchanged(asked):
            handler.send_response(304)
            handler.end_headers()
            return
        start = 0
        if (
            self.ranges
            and "range" in asked
            and (not self.checks or asked.get("if-range") in (self.etag, self.modified))
        ):
            start = int(asked["range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                handler.send_error(416)
                return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        for name, value in (("ETag", self.etag), ("Last-Modified", self.modified), ("Content-Type", self.kind)):
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        body = body if cut is None else body[:cut]
        handler.wfile.write(body)
        handler.wfile.flush()
        self.sent += len(body)
        handler.close_connection = True

    def _unchanged(self, asked: dict[str, str]) -> bool:
        if "if-none-match" in asked:
            return asked["if-none-match"] == self.etag
        return "if-modified-since" in asked and asked["if-modified-since"] == self.modified


@contextmanager
def served(site: Site, path: str = "/beer.stackexchange.com.7z") -> Iterator[Site]:
    """`site` on a port of its own while the block lasts; its `url` leads to the file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}{path}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
