"""A PostgreSQL server of the test's own: Debian's, on a free port of the loopback interface, in a temporary folder.

It refuses to run as root, and so runs as Debian's user `postgres` there; its folder is not pytest's, which no other
user may enter.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.flows.conftest import free_port

PASSWORD: Final = "one-for-tests"
WITHIN: Final = 60.0  # seconds to start, and to stop


@dataclass
class Postgres:
    """A server with a database `prefect`; `owner` is whom it runs as, in Popen's words."""

    folder: Path
    port: int
    owner: dict[str, Any]
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """As Prefect wants it."""
        return f"postgresql+asyncpg://prefect:{PASSWORD}@127.0.0.1:{self.port}/prefect"

    def ask(self, query: str, database: str = "prefect") -> str:
        """What `query` gives, as text."""
        address = f"postgresql://prefect:{PASSWORD}@127.0.0.1:{self.port}/{database}"
        done = subprocess.run(
            [_programs() / "psql", address, "-XAtc", query], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def make(self) -> None:
        """Make its files, start it, and make the database."""
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "password").chmod(0o644)
        made = subprocess.run(
            [
                _programs() / "initdb", "--pgdata", self.folder / "data", "--username", "prefect",
                "--auth", "scram-sha-256", "--pwfile", self.folder / "password", "--encoding", "UTF8",
                "--locale", "C.UTF-8", "--no-sync",
            ],
            cwd=self.folder, capture_output=True, text=True, **self.owner,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        self.start()
        self.ask("create database prefect", "postgres")

    def start(self) -> None:
        """Return when it answers."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    _programs() / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-h", "127.0.0.1",
                    "-k", "", "-c", "fsync=off",  # no socket beside the port
                ],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self.owner,
            )  # fmt: skip
        end = time.monotonic() + WITHIN
        ready = [_programs() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready).returncode:
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        """Its fast stop: connections are ended."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(WITHIN)
            self.process = None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start one; stop it and remove its folder in the end."""
    folder = Path(tempfile.mkdtemp(prefix="prefstack-postgres-"))
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    database = Postgres(folder, free_port(), owner)
    try:
        database.make()
        yield database
    finally:
        database.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """The folder of the newest version that is installed; Debian keeps all but `psql` off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert found, "PostgreSQL is not installed: `make test-faults` installs it, or `apt install postgresql`"
    return found[-1].parent
