"""The launcher, with ranks that are small programs: what it sets, what it notices, and that nothing outlives it."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from training import launch as launcher
from training.failures import RanksFailed
from training.launch import launch
from training.rank import kind_of
from training.status import Outcome, Progress, TrainerError
from training.world import rank_device

PROLOGUE = """
import json, os, signal, sys, time
from pathlib import Path
from training.rank import die_with_parent, run_rank, this_rank
from training.status import Outcome, Progress, TrainerError, write_progress
die_with_parent()
folder = Path(sys.argv[1])
"""


@dataclass(frozen=True)
class Program:
    """A rank program as a module, and the folder that its ranks report to."""

    module: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "ranks.log"

    def start(
        self, ranks: int = 2, on_progress: Callable[[Progress], None] | None = None, stall: float = 60
    ) -> Outcome:
        return launch(
            self.module, self.folder, self.folder, ranks=ranks, log_file=self.log, on_progress=on_progress,
            stall_seconds=stall,
        )  # fmt: skip


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Program]:
    """Write a rank program that `python -m` finds."""

    def write(body: str) -> Program:
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "rank_program.py").write_text(PROLOGUE + textwrap.dedent(body), encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
        return Program("rank_program", tmp_path / "job")

    return write


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("pid-*")]


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)


SAY_PID = """
(folder / f".pid-{this_rank()}").write_text(str(os.getpid()))
(folder / f".pid-{this_rank()}").rename(folder / f"pid-{this_rank()}")
"""


def test_ranks_find_their_number_the_port_and_their_share_of_the_cores(program, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    ranks = program("""
        names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"]
        (folder / f"env-{this_rank()}.json").write_text(json.dumps({name: os.environ[name] for name in names}))
        sys.exit(run_rank(folder, lambda stop: Outcome("finished", 3, {"seen": os.getpgrp()})))
    """)
    outcome = ranks.start(ranks=2)
    first, second = (json.loads((ranks.folder / f"env-{rank}.json").read_text()) for rank in range(2))
    assert (first["RANK"], second["RANK"]) == ("0", "1")
    assert first["WORLD_SIZE"] == "2" and first["OMP_NUM_THREADS"] == "1"
    assert first["MASTER_PORT"] == second["MASTER_PORT"] != "0"
    assert outcome == Outcome("finished", 3, {"seen": os.getpgrp()})  # in our process group


@pytest.mark.parametrize(("asked", "threads"), [("1,1", "1"), ("", None), ("many", None), ("0", None)])
def test_threads_are_those_of_openmps_first_level_or_as_many_as_cores(asked, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    all_cores = launcher.rank_environment(0, 1, 1)["OMP_NUM_THREADS"]
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert launcher.rank_environment(0, 1, 1)["OMP_NUM_THREADS"] == (threads or all_cores)


def test_progress_of_all_ranks_is_added_up(program):
    seen: list[Progress] = []
    ranks = program("""
        for done in range(1, 4):
            write_progress(folder, this_rank(), Progress(done, 6, "pairs"))
            time.sleep(0.3)
        sys.exit(run_rank(folder, lambda stop: Outcome("finished", 6)))
    """)
    ranks.start(on_progress=seen.append)
    assert seen[-1] == Progress(6, 6, "pairs")
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)


def test_a_rank_that_is_killed_ends_the_others_and_may_be_tried_again(program):
    ranks = program(
        SAY_PID
        + """
if this_rank() == 1:
    while not (folder / "pid-0").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""
    )
    launcher_grace, began = launcher._GRACE_SECONDS, time.monotonic()
    with pytest.raises(RanksFailed, match="rank 1 was killed by SIGKILL") as failed:
        ranks.start()
    assert failed.value.kind == "killed" and failed.value.transient
    assert time.monotonic() - began < launcher_grace + 10
    assert not any(alive(pid) for pid in pids(ranks.folder))


def test_the_cause_is_told_and_not_the_lost_peers(program):
    ranks = program("""
        def work(stop):
            if this_rank() == 1:
                raise TrainerError("nonfinite", "the loss is not a finite number at step 7", 7)
            time.sleep(1)
            raise ConnectionError("Connection closed by peer")
        sys.exit(run_rank(folder, work))
    """)
    with pytest.raises(RanksFailed, match="rank 1, step 7: the loss is not a finite number") as failed:
        ranks.start()
    assert failed.value.kind == "nonfinite" and not failed.value.transient
    assert str(ranks.log) in str(failed.value)
    assert any("the loss is not a finite number" in line for line in failed.value.tail)


def test_a_disk_too_full_for_a_word_is_named(program):
    ranks = program("""
        import training.status

        def full(path, value):
            raise OSError(28, "No space left on device", str(path))

        def work(stop):
            write_progress(folder, 0, Progress(3, 9, "steps"))
            training.status._write = full
            write_progress(folder, 0, Progress(4, 9, "steps"))

        sys.exit(run_rank(folder, work))
    """)
    with pytest.raises(RanksFailed) as failed:
        ranks.start(ranks=1)
    assert failed.value.kind == "disk" and not failed.value.transient
    assert failed.value.message == f"rank 0 found no space left on the disk of {ranks.folder} after 3 of 9 steps"


def test_the_tail_of_the_log_is_kept_to_two_hundred_lines(program):
    ranks = program("""
        for number in range(500):
            print("line", number)
        sys.exit(3)
    """)
    with pytest.raises(RanksFailed, match="without a word") as failed:
        ranks.start(ranks=1)
    assert failed.value.tail == [f"line {number}" for number in range(300, 500)]
    assert not failed.value.transient


def test_ranks_that_stand_still_are_ended_and_named(program):
    ranks = program(
        SAY_PID
        + """
write_progress(folder, this_rank(), Progress(2, 10, "steps"))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""
    )
    with pytest.raises(RanksFailed, match=r"stood still for 1 s after . of 10 steps") as failed:
        ranks.start(stall=1)
    assert failed.value.kind == "stalled" and failed.value.transient
    assert not any(alive(pid) for pid in pids(ranks.folder))


def test_a_taken_port_is_tried_again_and_then_told(program):
    ranks = program("""
        with open(folder / f"ports-{this_rank()}", "a") as ports:
            ports.write(os.environ["MASTER_PORT"] + "\\n")
        tries = len((folder / f"ports-{this_rank()}").read_text().split())
        def work(stop):
            if tries < 3:
                raise TrainerError("rendezvous", "EADDRINUSE: address already in use")
            return Outcome("finished", 1)
        sys.exit(run_rank(folder, work))
    """)
    assert ranks.start(ranks=1).state == "finished"
    assert len(set((ranks.folder / "ports-0").read_text().split())) == 3


@pytest.mark.faults
def test_a_port_that_another_program_holds_is_left_to_it(program, monkeypatch):
    ranks = program("""
        import torch
        from training.world import join_ranks, leave_ranks
        def work(stop):
            with open(folder / f"ports-{this_rank()}", "a") as ports:
                ports.write(os.environ["MASTER_PORT"] + "\\n")
            join_ranks(torch.device("cpu"))
            leave_ranks()
            return Outcome("finished", 1)
        sys.exit(run_rank(folder, work))
    """)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        held, free = holder.getsockname()[1], launcher.free_port()
        offered = iter([held, free])
        monkeypatch.setattr(launcher, "free_port", lambda: next(offered))
        assert ranks.start(ranks=2, stall=300).state == "finished"
    assert (ranks.folder / "ports-0").read_text().split() == [str(held), str(free)]


def test_an_exception_in_the_caller_stops_the_ranks_in_good_order(program):
    ranks = program(
        SAY_PID
        + """
def work(stop):
    while not stop.asked:
        write_progress(folder, this_rank(), Progress(1, 2, "steps"))
        time.sleep(0.05)
    (folder / f"saved-{this_rank()}").touch()
    return Outcome("stopped", 1)
sys.exit(run_rank(folder, work))
"""
    )

    def cancelled(progress: Progress) -> None:
        if len(pids(ranks.folder)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ranks.start(on_progress=cancelled)
    assert len(list(ranks.folder.glob("saved-*"))) == 2
    assert not any(alive(pid) for pid in pids(ranks.folder))


def test_a_rank_that_ignores_the_request_is_killed(program, monkeypatch):
    monkeypatch.setattr(launcher, "STOP_SECONDS", 0.5)
    ranks = program(
        SAY_PID
        + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
write_progress(folder, this_rank(), Progress(1, 2, "steps"))
time.sleep(60)
"""
    )

    def cancelled(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ranks.start(ranks=1, on_progress=cancelled)
    assert pids(ranks.folder) and not any(alive(pid) for pid in pids(ranks.folder))


def test_ranks_that_another_stopped_may_be_started_again(program):
    ranks = program("""
        def work(stop):
            os.kill(os.getpid(), signal.SIGTERM)
            while not stop.asked:
                time.sleep(0.01)
            return Outcome("stopped", 4)
        sys.exit(run_rank(folder, work))
    """)
    with pytest.raises(RanksFailed, match="stopped on request after step 4") as failed:
        ranks.start(ranks=1)
    assert failed.value.transient


def test_ranks_see_no_credentials_unless_an_environment_is_given(program, monkeypatch):
    ranks = program("""
        def work(stop):
            seen = sorted(name for name in os.environ if name in ("HF_TOKEN", "HF_HOME"))
            return Outcome("finished", 1, {"seen": seen})
        sys.exit(run_rank(folder, work))
    """)
    monkeypatch.setenv("HF_TOKEN", "hidden")
    monkeypatch.setenv("HF_HOME", "/cache")
    assert ranks.start(ranks=1).facts == {"seen": ["HF_HOME"]}
    given = launch(ranks.module, ranks.folder, ranks.folder, ranks=1, log_file=ranks.log, environment=dict(os.environ))
    assert given.facts == {"seen": ["HF_HOME", "HF_TOKEN"]}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_ranks_of_a_launcher_that_is_killed_die_with_it(program):
    ranks = program(SAY_PID + "time.sleep(60)\n")
    source = (
        "import sys; from pathlib import Path; from training.launch import launch;"
        f"launch('rank_program', Path({str(ranks.folder)!r}), Path({str(ranks.folder)!r}), ranks=2,"
        f" log_file=Path({str(ranks.log)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", source])
    wait_for(lambda: len(pids(ranks.folder)) == 2)
    time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids(ranks.folder)), seconds=5)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (RuntimeError("Error while serializing: No space left on device (os error 28)"), "disk"),
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (torch.distributed.DistNetworkError("EADDRINUSE: address already in use"), "rendezvous"),
        (torch.distributed.DistStoreError("wait timeout after 1000ms"), "rendezvous"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "peer"),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), "peer"),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), "device"),
        (KeyError("a mistake of ours"), "bug"),
    ],
)
def test_unforeseen_errors_are_sorted_by_whose_move_is_next(error, kind):
    assert kind_of(error) == kind


def test_more_ranks_than_gpus_are_refused_by_their_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")  # the first that finds none
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(TrainerError, match=r"train\.ranks asks for 8 GPUs on this host and it has 2") as refused:
        rank_device()
    assert refused.value.kind == "recipe"


def test_the_launcher_loads_no_torch():
    source = "import sys, training.launch, training.jobs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
