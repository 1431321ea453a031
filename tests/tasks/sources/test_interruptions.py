"""Ingest and pair killed at any moment: the next try goes on, the bytes are the same, and nobody is left behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tasks.errors import Transient
from tasks.workers import perform_all

SITE = "bread.stackexchange.com"
PROGRAM = """
import json, sys
from tasks.ingest import SourceConfig, ingest_source
from tasks.pair import PairConfig, pair
from tasks.sources import xml_file
from tasks.store import Store
from pathlib import Path

xml_file.RANGE_BYTES = 60_000
store = Store(Path(sys.argv[2]))
source = ingest_source(store, SourceConfig(path=sys.argv[1]))
done = pair(store, [source], PairConfig(candidates=300), 42)
files = {f"{each.stage}/{name}": file.sha256 for each in (source, done) for name, file in each.files.items()}
print(json.dumps([files, source.counts | done.counts]))
"""


def dump(folder: Path, questions: int) -> Path:
    folder.mkdir()
    lines = []
    for at in range(questions):
        number = 4 * at + 1
        usual = f'CreationDate="2014-01-21T20:26:05.383" Body="{"&lt;p&gt;lorem $x$ ipsum&lt;/p&gt;" * 12} {at}"'
        lines.append(f'<row Id="{number}" PostTypeId="1" Score="1" {usual} />')
        for k in (1, 2, 3):
            lines.append(
                f'<row Id="{number + k}" PostTypeId="2" ParentId="{number}" Score="{(at * k * 7) % 40 - 2}" {usual} />'
            )
    (folder / "Posts.xml").write_text("<posts>\n" + "\n".join(lines) + "\n</posts>")
    return folder


def start(path: Path, work: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(work)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **environment},
    )  # fmt: skip


def outcome(running: subprocess.Popen[str]) -> object:
    said, complaints = running.communicate(timeout=300)
    assert running.returncode == 0, complaints
    return json.loads(said)


@pytest.mark.faults
def test_killed_at_any_moment_the_next_try_gives_the_same_bytes(tmp_path: Path) -> None:
    path = dump(tmp_path / SITE, 800)
    began = time.monotonic()
    expected = outcome(start(path, tmp_path / "whole"))
    took = time.monotonic() - began
    work = tmp_path / "killed"
    for share in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9):
        running = start(path, work)
        time.sleep(share * took)
        children = psutil.Process(running.pid).children(recursive=True) if running.poll() is None else []
        running.send_signal(signal.SIGKILL)
        running.communicate()
        _gone, left = psutil.wait_procs(children, timeout=20)
        assert not left, "a worker outlived the process that started it"
    assert outcome(start(path, work)) == expected
    assert not list((work / "partial").iterdir())


@pytest.mark.faults
def test_a_range_that_is_finished_is_not_read_again(tmp_path: Path) -> None:
    path = dump(tmp_path / SITE, 800)
    work = tmp_path / "work"
    running = start(path, work)
    finished: dict[Path, int] = {}
    while running.poll() is None and len(finished) < 2:
        finished = (
            {mark: mark.stat().st_mtime_ns for mark in (work / "partial").rglob("part-*.json")}
            if (work / "partial").exists()
            else {}
        )
    running.kill()
    running.communicate()
    assert len(finished) >= 2
    again = start(path, work)
    seen: dict[Path, int] = {}
    while again.poll() is None:
        for mark in finished:
            try:
                seen[mark] = mark.stat().st_mtime_ns
            except FileNotFoundError:
                break  # published
    outcome(again)
    assert seen and all(finished[mark] == when for mark, when in seen.items())


def test_the_number_of_threads_of_the_library_changes_no_byte(tmp_path: Path) -> None:
    path = dump(tmp_path / SITE, 400)
    found = [outcome(start(path, tmp_path / f"work-{threads}", POLARS_MAX_THREADS=threads)) for threads in ("1", "4")]
    assert found[0] == found[1]


def test_nothing_is_written_outside_the_work_folder(tmp_path: Path) -> None:
    path = dump(tmp_path / SITE, 20)

    def everything() -> dict[str, str]:
        return {
            str(file): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in tmp_path.rglob("*")
            if file.is_file() and tmp_path / "work" not in file.parents
        }

    before = everything()
    outcome(start(path, tmp_path / "work"))
    assert everything() == before


def test_a_worker_that_dies_is_named_and_the_work_may_be_tried_again(tmp_path: Path) -> None:
    job = {
        "bodies": str(tmp_path / "none"),
        "site": "x.com",
        "out": str(tmp_path / "o"),
    }
    answers = perform_all("texts", [job] * 3, 1)
    with pytest.raises(OSError, match="none"):  # the child's own error, not its traceback
        next(answers)
    hang = tmp_path / "pipe"
    os.mkfifo(hang)
    waiting = perform_all("texts", [job | {"bodies": str(hang)}], 1)

    def workers() -> list[psutil.Process]:
        """Its own alone: what other tests of this process have started goes on."""
        return [child for child in psutil.Process().children() if "tasks.workers" in child.cmdline()]

    def kill_the_worker() -> None:
        while not (found := workers()):
            time.sleep(0.05)
        time.sleep(0.5)
        for worker in found:
            worker.kill()

    killer = threading.Thread(target=kill_the_worker)
    killer.start()
    with pytest.raises(Transient, match="signal 9"):
        next(waiting)
    killer.join()
