"""A server that ends at its start: one sentence with the error that its log ends with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.quiet import QUIET
from flows.server import await_server
from tasks.errors import Surroundings

LOG = """\
Starting server
Traceback (most recent call last):
  File "a.py", line 1, in connect
    raise OSError(err, f'Connect call failed {address}')
ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 9)

During handling of the above exception, another exception occurred:

asyncpg.exceptions.InvalidPasswordError: password authentication failed for user "prefect"

ERROR:    Application startup failed. Exiting.
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LOG, 'asyncpg.exceptions.InvalidPasswordError: password authentication failed for user "prefect"'),
        ("Killed\n", "it does not say why"),
    ],
)
def test_a_database_that_refuses_is_named_with_the_log(tmp_path: Path, text: str, said: str) -> None:
    log = tmp_path / "server.log"
    log.write_text(text)
    ended = subprocess.Popen(["false"])
    ended.wait()
    with pytest.raises(Surroundings) as failed:
        await_server("http://127.0.0.1:9/api", ended, 5.0, log)
    assert str(failed.value) == f"the Prefect server ended at its start with status 1: {said}; its log is {log}"


def test_prefect_is_told_to_send_nothing_before_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(
        'active = "work"\n\n[profiles.work]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    )
    # A profile makes it necessary to import Prefect, which is what reports; here the import itself tells what it finds.
    program = """
import os, sys
class Seen:
    def find_spec(self, name, path=None, target=None):
        if name == "prefect":
            print(os.environ["DO_NOT_TRACK"])
sys.meta_path.insert(0, Seen())
from flows.cli import main
sys.argv = ["prefstack", "run", "no-such-recipe"]
main()
"""
    environment = {
        name: value for name, value in os.environ.items() if name not in QUIET and not name.startswith("PREFECT")
    }
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment | {"PREFECT_HOME": str(tmp_path)}, capture_output=True,
        text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert said.stdout.split() == ["1"]
    assert said.returncode == 2 and "no-such-recipe" in said.stderr
