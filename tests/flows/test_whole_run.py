"""The whole run as a user has it: the command, what it prints, what it leaves, and what it costs the second time."""

import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import STAGES
from tests.flows.conftest import PREFSTACK, TINY, Outcome, Server, Shell, clean_environment
from tests.flows.test_real_server import ask

HEAVY = ("torch", "transformers", "great_expectations", "datasets", "deepspeed")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> Shell:
    return Shell(tmp_path_factory.mktemp("whole"), clean_environment(prefect_home))


@pytest.fixture(scope="module")
def recipe(shell: Shell, tiny_model: Path) -> str:
    (shell.folder / "tiny.yaml").write_text(TINY.format(model=tiny_model, work_dir=shell.folder / "work"))
    return "tiny.yaml"


@pytest.fixture(scope="module")
def first(shell: Shell, recipe: str) -> dict[str, Any]:
    """The summary of a whole run on the made site and a tiny model."""
    return summary_of(shell.run("run", recipe, "--json"))


@pytest.fixture(scope="module")
def seen(shell: Shell, server: Server, recipe: str) -> dict[str, Any]:
    """The summary of the same recipe in another work folder, on a server that stays, and run there once more."""
    served = Shell(shell.folder, {**server.environment, "OMP_NUM_THREADS": "1"})
    there = ("run", recipe, "--json", "--set", "work_dir=elsewhere", "--set", "price=2")
    summary = summary_of(served.run(*there, "--name", "seen"))
    summary_of(served.run(*there, "--name", "seen-again"))
    return summary


def summary_of(done: Outcome) -> dict[str, Any]:
    assert done.status == 0, done.err[-3000:]
    summary: dict[str, Any] = json.loads(done.out)
    return summary


def test_a_run_is_reused_whole_retraced_and_rebuilt_exactly_where_a_setting_bears(
    first: dict[str, Any], shell: Shell, recipe: str
) -> None:
    assert list(first["stages"]) == list(STAGES)
    assert not any(entry["reused"] for entry in first["stages"].values())
    assert first["error"] is None
    for name in ("accuracy", "accuracy_low", "accuracy_high", "margin", "loss", "length_baseline_accuracy"):
        assert isinstance(first["metrics"][name], float)
    model = Path(first["model"])
    assert (model / "README.md").is_file() and (model / "model.safetensors").is_file()

    # The second run of the same recipe finds everything, and loads nothing heavy to find it.
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", PREFSTACK, "run", recipe, "--json"],
        cwd=shell.folder, env=dict(shell.environment), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    print(f"fully reused run: {time.monotonic() - start:.1f} s")
    again = json.loads(done.stdout)
    assert all(entry["reused"] for entry in again["stages"].values())
    assert again["metrics"] == first["metrics"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert len(imported) > 100
    assert not {name for name in imported if name.split(".")[0] in HEAVY}

    # What cannot change the result rebuilds nothing; the learning rate rebuilds training and what comes after it.
    same = json.loads(shell.run("run", recipe, "--json", "--set", "train.save_every=1", "--set", "price=2").out)
    assert all(entry["reused"] for entry in same["stages"].values())
    asked = ("--set", "evaluate.generate.prompts=2", "--set", "evaluate.generate.max_new_tokens=6")
    other = json.loads(shell.run("run", recipe, "--json", "--set", "train.learning_rate=5e-4", *asked).out)
    rebuilt = [stage for stage, entry in other["stages"].items() if not entry["reused"]]
    assert rebuilt == ["train", "evaluate", "publish"]
    assert other["metrics"]["generation"]["prompts"] == 2
    assert other["stages"]["evaluate"]["counts"]["generate.answers"] == 8
    page = (Path(other["stages"]["publish"]["folder"]) / "report.html").read_text()
    assert "Side by side" in page

    # A pair can be followed back to its posts.
    pair_id = (Path(first["stages"]["publish"]["folder"]) / "train_pair_ids.txt").read_text().split("\n")[0]
    traced = json.loads(shell.run("trace", pair_id, "--work-dir", str(shell.folder / "work"), "--json").out)
    assert [post["role"] for post in traced["posts"]] == ["question", "chosen", "rejected"]
    assert re.fullmatch(r"[0-9a-f]{64}", traced["source"]["sha256"])
    assert traced["stages"]["sample"]["outcome"] == "train"

    # show reads runs and folders; plan knows what is there.
    shown = json.loads(shell.run("show", "latest", "--work-dir", str(shell.folder / "work"), "--json").out)
    assert shown["run"] == other["run"]
    folder = json.loads(shell.run("show", first["stages"]["dedupe"]["folder"], "--json").out)
    assert folder["counts"]["pairs"] == first["stages"]["pair"]["counts"]["pairs"]
    plan = json.loads(shell.run("plan", recipe, "--set", "train.beta=0.2", "--json").out)
    assert [stage for stage, entry in plan["stages"].items() if not entry["reused"]] == ["train", "evaluate", "publish"]


def test_another_work_folder_gets_the_same_bytes_and_another_host_that_sees_it_makes_nothing_again(
    first: dict[str, Any], seen: dict[str, Any], shell: Shell, recipe: str
) -> None:
    for stage in STAGES:
        assert digests(seen["stages"][stage]["folder"]) == digests(first["stages"][stage]["folder"]), stage

    as_another_host = ["unshare", "--uts", "sh", "-c", 'hostname another-host && exec "$0" "$@"']
    if subprocess.run([*as_another_host, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not name a host")
    (shell.folder / "elsewhere").rename(shell.folder / "mounted")
    there = subprocess.run(
        [*as_another_host, PREFSTACK, "run", recipe, "--json", "--set", "work_dir=mounted"],
        cwd=shell.folder, env=dict(shell.environment), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert there.returncode == 0, there.stderr[-3000:]
    reused = {stage: entry["reused"] for stage, entry in json.loads(there.stdout)["stages"].items()}
    assert reused == dict.fromkeys(STAGES, True)


def digests(folder: str) -> dict[str, str]:
    """The sha256 of every file but manifest and logs."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.name != "manifest.json" and path.suffix != ".log"
    }


def test_every_stage_shows_its_state_and_an_artifact_on_a_real_server(server: Server, seen: dict[str, Any]) -> None:
    states = {}
    for name in ("seen", "seen-again"):
        (run,) = ask(server, "/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
        assert run["state_type"] == "COMPLETED"
        tasks = task_states(server, run["id"])
        assert set(STAGES) <= set(tasks)
        states[name] = {stage: tasks[stage] for stage in STAGES}
        artifacts = {
            found["key"] for found in ask(server, "/artifacts/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        }
        assert {f"{stage}-counts" for stage in STAGES} <= artifacts
        assert {"gate-ingested", "train-curves", "evaluate-report", "model-card", "run-lineage"} <= artifacts
        assert ("run-cost" in artifacts) == (name == "seen")  # what was reused has held no device
    assert set(states["seen"].values()) == {"Completed"}
    assert set(states["seen-again"].values()) == {"Reused"}


def task_states(server: Server, flow_run: str) -> dict[str, str]:
    """State names of a flow run's tasks; the server writes task runs down a moment after they end."""
    end = time.monotonic() + 15
    while True:
        found = ask(server, "/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        states = {run["name"].rpartition("-")[0]: run["state_name"] for run in found}
        if time.monotonic() > end or (set(STAGES) <= set(states) and "Running" not in states.values()):
            return states
        time.sleep(0.5)
