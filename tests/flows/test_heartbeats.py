"""A worker that hangs is noticed by its silence and replaced; one whose server was away is not."""

import json
import signal
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows import heartbeats
from flows.children import Child
from flows.heartbeats import Heartbeat, Silence, last_heartbeat, replacing_silent, worker_name
from flows.operations import prepare_server
from tasks.errors import Surroundings
from tests.flows.conftest import Server
from tests.flows.installation import until


def beat(at: str) -> Heartbeat:
    return Heartbeat(at, 30.0)


def test_silence_is_counted_from_the_last_new_heartbeat() -> None:
    silence = Silence()
    seen = [("a", 1000), ("a", 1015), ("b", 1030), ("b", 1045), ("b", 1060)]
    assert [silence.seconds(beat(at), 0, now, 60) for at, now in seen] == [0, 15, 0, 15, 30]
    assert silence.limit(100) == 120  # four heartbeats
    assert silence.limit(150) == 150


def test_the_start_of_a_worker_counts_for_nothing_and_neither_does_one_that_the_server_does_not_know() -> None:
    silence = Silence()
    silence.seconds(beat("old"), 0, 1000, 60)
    assert silence.seconds(beat("old"), 1010, 1015, 60) < 0
    assert silence.seconds(beat("old"), 1010, 1075, 60) == 5  # 60 s after its start
    assert silence.seconds(None, 0, 1090, 60) == 0


def test_an_outage_or_a_host_that_slept_is_no_silence_and_makes_patient_until_the_next_heartbeat() -> None:
    silence = Silence()
    silence.seconds(beat("a"), 0, 1000, 60)
    silence.unanswered()
    assert silence.seconds(beat("a"), 0, 1300, 60) == 0  # nothing was asked for 300 s
    assert silence.seconds(beat("a"), 0, 1315, 60) == 15
    assert silence.limit(100) == 330
    silence.seconds(beat("b"), 0, 1330, 60)
    assert silence.limit(100) == 120


def stand_in(folder: Path, name: str) -> Child:
    """A child that would end at SIGTERM, if it could, and has a process of its own group below it."""
    code = "import subprocess, time; subprocess.Popen(['sleep', '300']); print('here', flush=True); time.sleep(300)"
    child = Child(f"worker {name}", [sys.executable, "-c", code], {}, folder / f"{name}.log")
    child.start()
    until(lambda: "here" in child.log.read_text(), 30, "the stand-in")
    return child


def test_a_worker_that_hangs_is_ended_with_its_group_and_starts_again_while_the_other_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "STARTING", 0.0)
    hung, well = stand_in(tmp_path, "gpu"), stand_in(tmp_path, "cpu")
    assert hung.process is not None and well.process is not None
    first, below = hung.process, psutil.Process(hung.process.pid).children()[0]
    first.send_signal(signal.SIGSTOP)
    said: list[str] = []

    def ask(pool: str) -> Heartbeat:
        return Heartbeat("long ago" if pool == "gpu" else str(time.monotonic()), 0.1)

    try:
        with replacing_silent({"gpu": hung, "cpu": well}, said.append, ask=ask, every=0.1, silent=1.0, stop_within=0.6):
            until(lambda: first.poll() is not None, 20, "the end of the worker that hangs")
            assert first.returncode == -signal.SIGKILL  # a stopped process does not hear SIGTERM
            until(lambda: not below.is_running() or below.status() == psutil.STATUS_ZOMBIE, 10, "the end of its group")
            assert [line.partition(" for ")[0] for line in said] == [
                "worker gpu runs, and the server has not heard of it"
            ]
            assert "ended with status -9 and starts again in 1 s" in (hung.look_after() or "")
            until(lambda: hung.look_after() is None and hung.process is not first, 10, "its new start")
        assert well.process.poll() is None
    finally:
        for child in (hung, well):
            if child.process is not None:
                for process in [*psutil.Process(child.process.pid).children(), child.process]:
                    process.kill()
                child.process.wait()


def test_a_server_that_does_not_answer_makes_no_worker_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "STARTING", 0.0)
    asked: list[str] = []

    def ask(pool: str) -> Heartbeat:
        asked.append(pool)
        raise Surroundings("it cannot be reached")

    worker = stand_in(tmp_path, "gpu")
    assert worker.process is not None
    try:
        with replacing_silent({"gpu": worker}, asked.append, ask=ask, every=0.05, silent=0.1):
            until(lambda: len(asked) > 20, 20, "twenty askings")
        assert worker.process.poll() is None and set(asked) == {"gpu"}
    finally:
        for process in [*psutil.Process(worker.process.pid).children(), worker.process]:
            process.kill()
        worker.process.wait()


def test_the_server_says_when_it_last_heard_of_this_hosts_worker(here: Server) -> None:
    prepare_server()

    def send(name: str) -> None:
        body = json.dumps({"name": name, "heartbeat_interval_seconds": 7}).encode()
        request = urllib.request.Request(
            f"{here.url}/work_pools/cpu/workers/heartbeat", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=30).close()

    send("ProcessWorker 1")
    assert last_heartbeat("cpu") is None
    send(worker_name("cpu"))
    first = last_heartbeat("cpu")
    assert first is not None and first.every == 7
    assert last_heartbeat("cpu") == first
    send("ProcessWorker 1")
    assert last_heartbeat("cpu") == first
    send(worker_name("cpu"))
    assert last_heartbeat("cpu") not in (None, first)
