"""A small web server for a work folder, so that links and images in artifacts open: the Prefect UI hosts no files.

    http://127.0.0.1:4201/runs/NAME/...     a run's log, summary and stages
    http://127.0.0.1:4201/store/STAGE-.../  what a stage wrote: reports, plots, cards

Reading only, on the loopback interface, for requests that name it so, and nothing but these two folders.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

URL_VARIABLE: Final = "PREFSTACK_FILES_URL"
ROOT_VARIABLE: Final = "PREFSTACK_FILES_ROOT"
SHOWN: Final = ("runs", "store")
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A page may show its own pictures and styles, and run or fetch nothing.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; font-src data:"
    ),
    "Cache-Control": "no-cache",
}


@contextmanager
def serve_files(root: Path, port: int) -> Iterator[str]:
    """Serve `root` on a port of the loopback interface (0: any) while the context lasts; gives the URL."""
    root.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="files")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def url_of(path: Path) -> str | None:
    """Where a browser finds `path`, or None where no server for it is known to this process."""
    base, root = os.environ.get(URL_VARIABLE), os.environ.get(ROOT_VARIABLE)
    if not base or not root:
        return None
    try:
        within = path.absolute().relative_to(Path(root).absolute())
    except ValueError:
        return None
    if not within.parts or within.parts[0] not in SHOWN:
        return None
    return f"{base.rstrip('/')}/{quote(within.as_posix())}"


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".md": "text/plain; charset=utf-8", ".log": "text/plain; charset=utf-8", ".yaml": "text/plain; charset=utf-8",
        ".jsonl": "text/plain; charset=utf-8", ".csv": "text/plain; charset=utf-8", ".txt": "text/plain; charset=utf-8",
        ".json": "application/json",
    }  # fmt: skip

    def send_head(self) -> Any:
        refused = self._refusal()
        if refused is not None:
            self.send_error(refused)
            return None
        return super().send_head()

    def _refusal(self) -> HTTPStatus | None:
        # A page elsewhere that has its name resolved to the loopback still sends its own name.
        if (urlsplit(f"//{self.headers.get('Host', '')}").hostname or "") not in ("127.0.0.1", "localhost"):
            return HTTPStatus.FORBIDDEN
        wanted = Path(unquote(urlsplit(self.path).path).lstrip("/"))
        if wanted.parts and (wanted.parts[0] not in SHOWN or any(part.startswith(".") for part in wanted.parts)):
            return HTTPStatus.NOT_FOUND
        root = Path(self.directory).resolve()
        real = (root / wanted).resolve()
        inside = real == root or any(real.is_relative_to(root / shown) for shown in SHOWN)
        return None if inside else HTTPStatus.NOT_FOUND

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass
