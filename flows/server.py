"""A Prefect server for the time of one run, where none is named.

Prefect starts one of its own when no API is configured, but only after the client has imported all of the server
itself. Started here, before anything heavy is imported, the two start-ups overlap: some four seconds of every run.
"""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tasks.errors import Surroundings

START_WITHIN: Final = 120.0  # seconds; the first start also creates the database
STOP_WITHIN: Final = 10.0
_ERROR: Final = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception): .*$", re.MULTILINE)
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class RunApi(NamedTuple):
    """The Prefect API that a run tells what it does; it may not answer yet (await_server)."""

    url: str
    server: subprocess.Popen[bytes] | None
    """The temporary server, where no API is configured."""


@contextmanager
def run_api() -> Iterator[RunApi]:
    """The API that is configured, or that of a temporary server that lives as long as the context.

    A command enters it before it loads anything else: the start of a server takes longest.
    """
    url = configured_api()
    if url is not None:
        yield RunApi(url, None)
        return
    with _temporary_server() as server:
        yield RunApi(os.environ["PREFECT_API_URL"], server)


@contextmanager
def _temporary_server() -> Iterator[subprocess.Popen[bytes]]:
    """Start a server on a free port of the loopback interface and name it in PREFECT_API_URL; stop it in the end."""
    port = _free_port()
    environment = {
        **os.environ,
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",  # no scheduler, no late-run marker: nothing but recording
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-P", "-m", "flows.temporary_api", str(port)]
    # In a session of its own: Ctrl-C and `timeout` signal the whole group, and the run must still tell it how it ended.
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_end_with_parent,
        start_new_session=True,
    )  # fmt: skip
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    try:
        yield server
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def await_server(
    url: str, server: subprocess.Popen[bytes] | None, within: float = START_WITHIN, log: Path | None = None
) -> None:
    """Return when the API at `url` is healthy; Surroundings says when it is not to be, and what `log` says of it."""
    end = time.monotonic() + within
    said = "it did not answer"
    while time.monotonic() < end:
        if server is not None and server.poll() is not None:
            raise Surroundings(_ended_at_start(server.returncode, log))
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
                said = f"it answered {answer.status}"
        except urllib.error.HTTPError as error:
            said = f"it answered {error.code}" + ("; does its address end in /api?" if error.code == 404 else "")
        except (OSError, ValueError) as error:
            said = str(error)
        if server is None:
            break
        time.sleep(0.05)
    raise Surroundings(f"the Prefect server at {url} cannot be reached: {said}")


def _ended_at_start(status: int, log: Path | None) -> str:
    if log is None:
        return (
            f"the temporary Prefect server ended at its start with status {status}: "
            "`prefstack doctor` or `prefect server start` shows why"
        )
    why = last_error(log) or "it does not say why"
    return f"the Prefect server ended at its start with status {status}: {why}; its log is {log}"


def last_error(log: Path) -> str | None:
    """The error that the last traceback in `log` ends with, such as a database that refuses the password."""
    found = _ERROR.findall(log.read_text(encoding="utf-8", errors="replace")[-100_000:])
    return found[-1][:300] if found else None


def configured_api() -> str | None:
    """The API that the environment, a prefect.toml or a profile names, without importing Prefect where none can."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    places = [home / "profiles.toml", Path("prefect.toml"), Path(".env"), Path("pyproject.toml")]
    if not any(_mentions_api(place) for place in places):
        return None
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def _mentions_api(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return False
    return "prefect_api_url" in text or ("prefect" in text and "url" in text)


def _end_with_parent() -> None:
    """In the child: be ended when the run is, even by `kill -9`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
