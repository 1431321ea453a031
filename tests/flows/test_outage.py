"""A Prefect server that goes away while a model trains: training goes on, and gives the bytes of a calm run."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import PREFSTACK, TINY, clean_environment, free_port, served_at
from tests.flows.installation import until
from tests.flows.test_real_server import ask
from tests.flows.test_whole_run import digests

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

RUN = ["run", "tiny.yaml", "--json", "--until", "train"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a recipe of 160 steps."""
    folder = tmp_path_factory.mktemp("outage")
    recipe = TINY.replace("epochs: 1", "epochs: 40").replace("save_every: 2", "save_every: 20")
    (folder / "tiny.yaml").write_text(recipe.format(model=tiny_model, work_dir="work"))
    return folder


@pytest.fixture(scope="module")
def calm(folder: Path) -> dict[str, str]:
    """Digests of what a training gives that is left alone."""
    answer, _ = outcome(started(folder, "calm", clean_environment(folder / "home")), 400)
    return digests(answer["stages"]["train"]["folder"])


def started(folder: Path, name: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [PREFSTACK, *RUN, "--set", f"work_dir={name}", "--name", name], cwd=folder, env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def outcome(process: "subprocess.Popen[str]", within: float) -> tuple[dict[str, Any], str]:
    """The answer of a run and what it said; it ends within so many seconds, and without a traceback."""
    try:
        out, err = process.communicate(timeout=within)
    finally:
        process.kill()
    assert "Traceback" not in err, err[-3000:]
    return json.loads(out), err


def await_steps(process: "subprocess.Popen[str]", work_dir: Path) -> None:
    """Until the run has made its first steps of training."""
    metrics = "partial/train-*/training/metrics.jsonl"
    until(lambda: any(work_dir.glob(metrics)) or process.poll() is not None, 300, "the first step")
    assert process.poll() is None, process.communicate()


def test_a_training_goes_on_without_the_server_which_knows_of_it_when_it_is_back(
    folder: Path, calm: dict[str, str]
) -> None:
    home, port = folder / "server", free_port()
    home.mkdir()
    with served_at(home, port) as server:
        process = started(folder, "away", server.environment)
        await_steps(process, folder / "away")
    time.sleep(15)  # most of the steps
    with served_at(home, port) as server:
        answer, said = outcome(process, 300)
        assert process.returncode == 0, said[-3000:]
        (run,) = ask(server, "/flow_runs/filter", {"flow_runs": {"name": {"any_": ["away"]}}})
        assert run["state_type"] == "COMPLETED"
    assert digests(answer["stages"]["train"]["folder"]) == calm
    # It is said once, and no stage waits for a server that is away: that took a training of 19 s to 240 s.
    assert said.count("goes on, and Prefect cannot show how far it is") == 1


def test_a_training_whose_server_stays_away_is_finished_and_the_same_command_finds_it(
    folder: Path, calm: dict[str, str]
) -> None:
    home, port = folder / "another-server", free_port()
    home.mkdir()
    with served_at(home, port) as server:
        # Prefect's client gives a server up after a minute, each time that it is asked; here after some seconds.
        process = started(folder, "gone", {**server.environment, "PREFECT_CLIENT_MAX_RETRIES": "1"})
        await_steps(process, folder / "gone")
    answer, said = outcome(process, 300)
    assert process.returncode == 1 and answer["error"]["status"] == 1, said[-3000:]
    assert "the Prefect server or another host cannot be reached" in answer["error"]["message"]
    train = answer["stages"]["train"]["folder"]
    assert digests(train) == calm
    with served_at(home, port) as server:
        again = started(folder, "gone", server.environment)
        answer, said = outcome(again, 300)
    assert again.returncode == 0, said[-3000:]
    assert answer["stages"]["train"]["folder"] == train and answer["stages"]["train"]["reused"]
