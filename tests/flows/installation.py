"""`prefstack up` on ports of its own, as the fault tests use it: what runs, and what is left of it."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.flows.conftest import PREFECT, PREFSTACK, Outcome, clean_environment, free_port


@dataclass
class Installation:
    """One `prefstack up`, in a folder that has no prefect.yaml of its own."""

    folder: Path
    port: int
    files_port: int
    process: subprocess.Popen[bytes]
    more: dict[str, str] = field(default_factory=dict)
    """Variables of its environment beside the usual ones."""

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def log(self) -> str:
        return (self.folder / "up.log").read_text()

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.folder / "home", PREFECT_API_URL=self.api, **self.more)

    def ask(self, path: str, body: object | None = None, method: str = "POST") -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            f"{self.api}{path}", data=data, headers={"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def answers(self) -> bool:
        """Whether there is a server that can reach its database."""
        try:
            self.ask("/ready", method="GET")
        except OSError:
            return False
        return True

    def run(self, name: str, deployment: str = "pipeline/pipeline", **parameters: object) -> str:
        """Start a run by `prefect deployment run`, as the documentation has it; its id."""
        given = [f"--param={key}={json.dumps(value)}" for key, value in {"name": name, **parameters}.items()]
        done = subprocess.run(
            [PREFECT, "deployment", "run", deployment, "--flow-run-name", name, *given],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return str(self.find(name)["id"])

    def prefstack(self, *arguments: str, timeout: float = 120) -> Outcome:
        done = subprocess.run(
            [PREFSTACK, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    def find(self, name: str) -> Any:
        """The flow run called `name`, or None."""
        found = self.ask("/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
        return found[0] if found else None

    def set_state(self, flow_run: str, **state: str) -> None:
        """What the buttons of the UI send."""
        self.ask(f"/flow_runs/{flow_run}/set_state", {"state": state, "force": False})

    def await_state(self, name: str, state: str, within: float, attempt: int = 0) -> float:
        """Seconds until the run is in `state`, in its `attempt`th attempt or later."""
        start = time.monotonic()
        seen: list[str] = []
        while time.monotonic() - start < within:
            run = self.find(name)
            if run is not None:
                said = f"{run['state_name']} {run['run_count']} {run['state']['message'] or ''}"
                if not seen or seen[-1] != said:
                    seen.append(said)
                if run["state_name"] == state and run["run_count"] >= attempt:
                    return time.monotonic() - start
            time.sleep(0.5)
        raise AssertionError(f"{name} was not {state} within {within:.0f} s; it was {seen}\n{self.last_words()}")

    def last_words(self) -> str:
        """The ends of the logs and what runs, for the message of a test that fails."""
        logs = [self.folder / "up.log", *sorted((self.folder / "work" / "logs").glob("*.log"))]
        ends = [f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs]
        running = [f"{process.pid} {' '.join(process.cmdline())[:120]}" for process in self.processes()]
        return "\n".join([*ends, "--- processes", *running])

    def task_states(self, flow_run: str, attempt: int) -> dict[str, tuple[str, str]]:
        """State and message of the tasks of an attempt, by the task's name; one that has only been named has none."""
        found = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200})
        return {
            run["name"].rpartition("-")[0]: (run["state_name"], run["state"]["message"] or "")
            for run in found
            if run["flow_run_run_count"] == attempt and run["state"]
        }

    def processes(self, *words: str) -> list[psutil.Process]:
        """Living processes of this installation with all of `words` in their command line or environment."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if environment.get("PREFECT_HOME") != str(self.folder / "home"):
                    continue
                text = " ".join([*process.cmdline(), *(f"{key}={value}" for key, value in environment.items())])
                if process.status() != psutil.STATUS_ZOMBIE and all(word in text for word in words):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def engine(self, flow: str) -> psutil.Process:
        return self.processes("prefect.engine", f"PREFECT__FLOW_NAME={flow}")[0]

    def worker(self, pool: str) -> psutil.Process:
        return self.processes("worker start", f"--pool {pool}")[0]

    def steps(self) -> int:
        """Training steps that the run at work has written down."""
        files = (self.folder / "work" / "partial").glob("train-*/training/metrics.jsonl")
        return max((path.read_text().count("\n") for path in files), default=0)

    def await_steps(self, more: int, within: float = 180) -> int:
        """Wait until ranks are at work and have made `more` steps from now; the steps at that time."""
        before = self.steps()
        until(lambda: bool(self.processes("training.run")) and self.steps() >= before + more, within, "training steps")
        return self.steps()

    def stop(self, number: int = signal.SIGINT, within: float = 90) -> float:
        """Seconds that `up` takes to end."""
        start = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(within)
        return time.monotonic() - start


def start(
    folder: Path, port: int | None = None, files_port: int | None = None, more: dict[str, str] | None = None
) -> Installation:
    """`prefstack up` in `folder`, ready; `more` is added to its environment."""
    port, files_port = port or free_port(), files_port or free_port()
    (folder / "home").mkdir(exist_ok=True)
    with open(folder / "up.log", "wb") as log:
        process = subprocess.Popen(
            [PREFSTACK, "up", "--port", str(port), "--files-port", str(files_port), "--work-dir", "work"],
            cwd=folder, env=clean_environment(folder / "home", **(more or {})), stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip
    started = Installation(folder, port, files_port, process, more or {})
    until(lambda: "ready;" in started.log or process.poll() is not None, 240, "prefstack up")
    assert process.poll() is None, started.log
    return started


def clear_away(installation: Installation) -> None:
    """End what a test has left."""
    if installation.process.poll() is None:
        os.killpg(installation.process.pid, signal.SIGINT)
        try:
            installation.process.wait(90)
        except subprocess.TimeoutExpired:
            installation.process.kill()
            installation.process.wait()
    for process in installation.processes():
        process.kill()


def until(holds: Callable[[], bool], within: float, what: str) -> float:
    """Seconds until `holds` does."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < within, f"{what}: not within {within:.0f} s"
        time.sleep(0.3)
    return time.monotonic() - start
