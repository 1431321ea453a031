"""A server that ends at its start: one sentence with the error that its log ends with."""

import subprocess
from pathlib import Path

import pytest

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
