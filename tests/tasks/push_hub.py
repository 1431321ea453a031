"""A hub on loopback that takes a push: repositories, large files, one commit; and refuses the wrong token.

It answers what huggingface_hub asks: create, validate-yaml, preupload, commit; for large files LFS batch where xet is
switched off, else what hf_xet asks of a store of chunks that knows neither presigned uploads nor progress of shards.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_theRightOne"
XET_TOKEN = "xet_forAnHour"
COMMIT = "c" * 40


@dataclass
class PushHub:
    """What the hub was given."""

    url: str = ""
    repos: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Large files by sha256."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What the commits made of the repository."""
    commits: list[str] = field(default_factory=list)
    """Their messages."""
    xorbs: dict[str, bytes] = field(default_factory=dict)
    """Chunks as hf_xet packs them."""
    store_tokens: set[str | None] = field(default_factory=set)
    """What the store of chunks was shown."""


@contextmanager
def push_hub() -> Iterator[PushHub]:
    """A hub that accepts TOKEN; to anybody else it answers 401, and 403 for repositories under `others/`."""
    hub = PushHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._body()
            if "/xet-write-token/" not in self.path:
                self._json(404, {"error": "Repository not found"})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._json(401, {"error": "Invalid user token."})
            else:
                self._json(200, {"casUrl": hub.url, "accessToken": XET_TOKEN, "exp": int(time.time()) + 3600})

        def do_PUT(self) -> None:
            data = self._body()
            hub.blobs[hashlib.sha256(data).hexdigest()] = data
            self._json(200, {})

        def do_POST(self) -> None:
            path, data = self.path.split("?")[0], self._body()
            if path.startswith(("/v1/", "/v2/")):
                self._store(path, data)
            elif path != "/api/validate-yaml" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._json(401, {"error": "Invalid user token."})
            elif path == "/api/repos/create":
                asked = json.loads(data)
                repo = f"{asked.get('organization', 'me')}/{asked['name']}"
                if repo.startswith("others/"):
                    self._json(403, {"error": "You don't have the rights to create a model under others"})
                    return
                hub.repos.append(asked)
                self._json(200, {"url": f"{hub.url}/{repo}", "name": repo})
            elif path == "/api/validate-yaml":
                asked = json.loads(data)
                wrong = not asked["content"].startswith("---\n")
                self._json(400 if wrong else 200, {"errors": [{"message": "no metadata"}] * wrong, "warnings": []})
            elif "/preupload/" in path:
                modes = [
                    {"path": file["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                    for file in json.loads(data)["files"]
                ]  # fmt: skip
                self._json(200, {"files": modes})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**one, "actions": {"upload": {"href": f"{hub.url}/blob/{one['oid']}"}}}
                    for one in json.loads(data)["objects"]
                ]
                self._json(200, {"transfer": "basic", "objects": objects})
            elif "/commit/" in path:
                self._commit(data)
            else:
                self._json(404, {"error": path})

        def _store(self, path: str, data: bytes) -> None:
            hub.store_tokens.add(self.headers.get("Authorization"))
            if path.startswith("/v1/xorbs/"):
                # One chunk: version, its length here (3 bytes), packing (0: none), its length outside (3), the bytes.
                assert data[4] == 0
                chunk = data[8 : 8 + int.from_bytes(data[1:4], "little")]
                hub.blobs[hashlib.sha256(chunk).hexdigest()] = hub.xorbs[path] = chunk
                self._json(200, {"was_inserted": True})
            elif path == "/v1/shards":
                self._json(200, {"result": 1})
            else:  # an older store: hf_xet then goes by what is above
                self._json(404, {"error": path})

        def _commit(self, data: bytes) -> None:
            for line in map(json.loads, data.decode().splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    hub.commits.append(value["summary"])
                elif line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.blobs[value["oid"]]
            self._json(200, {"commitUrl": f"{hub.url}/me/tiny/commit/{COMMIT}", "commitOid": COMMIT})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _json(self, status: int, value: Any) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
