"""What the command line says when something is wrong: an exit status, one sentence, and no traceback."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from flows.options import STAGE_NAMES
from flows.recipe import STAGES
from tests.flows.conftest import PREFSTACK, Outcome, Shell


def refused(done: Outcome, status: int) -> str:
    """The one sentence of a refusal."""
    assert done.status == status, (done.status, done.out, done.err)
    assert "Traceback" not in done.err + done.out
    said = [line for line in done.err.splitlines() if line.startswith("prefstack: ")]
    assert len(said) == 1, done.err
    return said[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "dmeo"], "did you mean 'demo'"),
        (["run", "demo", "--set", "sample.sise=3"], "did you mean 'sample.size'"),
        (["run", "demo", "--until", "tokenise"], "did you mean 'tokenize'"),
        (["run", "demo", "--force", "all"], "no stage 'all'"),
        (["run"], "Missing argument"),
        (["run", "demo", "--what"], "No such option"),
        (["rnu"], "No such command"),
        (["show", "nothing"], "there is no run 'nothing'"),
        (["trace", "a/1/2/3"], "there is no run 'latest'"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_starts(shell: Shell, arguments: list[str], said: str) -> None:
    assert said in refused(shell.run(*arguments), 2)
    done = shell.run(*arguments, "--json")
    answer: dict[str, Any] = json.loads(done.out)
    assert answer["error"]["status"] == 2
    assert said in answer["error"]["message"]
    assert not (shell.folder / "runs").exists()


def test_no_command_is_answered_with_the_help_and_a_wrong_one_names_the_help_that_fits(shell: Shell) -> None:
    nothing = shell.run()
    assert nothing.status == 2 and "Usage: prefstack" in nothing.out and "prefstack: " not in nothing.err
    assert refused(shell.run("run", "demo", "--what"), 2).endswith("(see `prefstack run --help`)")
    assert refused(shell.run("rnu"), 2).endswith("(see `prefstack --help`)")


def test_the_help_names_the_stages_that_there_are() -> None:
    assert ", ".join(STAGES) == STAGE_NAMES


@pytest.mark.parametrize("model", ["gpt2", "/no/such/model", "smollm2-135m-instrukt"])
def test_a_model_that_nothing_is_called_is_refused_before_any_data_are_read(served: Shell, model: str) -> None:
    done = served.run("run", "demo", "--set", f"model={model}", "--json")
    assert repr(model) in refused(done, 2)
    assert json.loads(done.out)["stages"] == {}
    assert not (served.folder / "runs" / "store").exists()
    done = served.run("run", "demo", "--set", f"model={model}", "--until", "ingest", "--json")
    assert list(json.loads(done.out)["stages"]) == ["ingest"]  # which needs none


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.example.com.7z", b"7z\xbc\xaf\x27\x1c" + b"\0" * 40, "a.example.com.7z"),
        ("b.example.com.7z", b"<html>404 not found</html>", "b.example.com.7z"),
        ("c.example.com.7z", b"", "c.example.com.7z"),
        ("d.example.com/Posts.xml", b'<?xml version="1.0"?><posts><row Id="1"', "Posts.xml"),
        ("e.example.com/Posts.xml", b"not a dump at all", "Posts.xml"),
    ],
)
def test_an_input_that_cannot_be_trusted_is_refused_by_name(
    served: Shell, name: str, content: bytes, said: str
) -> None:
    path = served.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    given = path.parent if name.endswith("Posts.xml") else path
    done = served.run("run", "site", "--set", f"ingest.sources=[{given}]", "--until", "pair", "--json")
    assert said in refused(done, 3)
    answer = json.loads(done.out)
    assert (answer["error"]["stage"], answer["error"]["kind"]) == ("ingest", "input")
    assert not list((served.folder / "runs" / "store").glob("*/manifest.json"))


def test_a_missing_dump_is_an_input_error_and_a_site_without_a_name_a_recipe_error(served: Shell) -> None:
    done = served.run("run", "site", "--set", "ingest.sources=[nowhere.example.com.7z]", "--until", "ingest")
    assert "nowhere.example.com.7z" in refused(done, 3)
    (served.folder / "dump").mkdir()
    (served.folder / "dump" / "Posts.xml").write_text('<?xml version="1.0"?>\n<posts>\n</posts>')
    done = served.run("run", "site", "--set", "ingest.sources=[dump]", "--until", "ingest")
    assert "site" in refused(done, 2)


def test_asking_for_more_pairs_than_there_are_says_how_many_there_are(served: Shell) -> None:
    done = served.run("run", "demo", "--set", "sample.size=100000", "--until", "sample", "--json")
    said = refused(done, 2)
    assert "100,000" in said or "100000" in said
    answer = json.loads(done.out)
    assert answer["error"]["stage"] == "sample"
    assert set(answer["stages"]) == {"ingest", "pair", "dedupe"}


def test_the_recipe_of_the_published_run_plans_and_starts_nothing(shell: Shell) -> None:
    done = shell.run("plan", "tulu-v2.5-13b-stackexchange-60k", "--json")
    assert done.status == 0, done.err
    answer = json.loads(done.out)
    assert answer["needs"]["steps"] == 5625
    assert answer["stages"]["ingest"]["missing"] and answer["stages"]["model"]["missing"]
    needs = answer["needs"]
    assert needs["parameters"] == 13_015_874_560  # known by the model's name
    cpu, gpu = needs["memory"]["cpu"], next(found for name, found in needs["memory"].items() if name != "cpu")
    assert not cpu["fits"] and "the largest part is" in cpu["reason"]
    # A share of an eighth in bf16, a master copy and Adam's moments in fp32: 14 bytes a parameter.
    states = sum(gpu["parts"][part] for part in ("parameters", "master", "moments"))
    assert states == pytest.approx(14 * needs["parameters"] / 8, rel=1e-6)
    assert gpu["bytes"] > states
    # Three checkpoints at a time, 12 bytes a parameter.
    assert needs["disk"]["checkpoints"] == 36 * needs["parameters"]
    assert sum(size for part, size in needs["disk"].items() if part != "total") == needs["disk"]["total"]
    assert {"reference", "train", "evaluate"} < set(needs["seconds"]["cpu"])
    text = shell.run("plan", "tulu-v2.5-13b-stackexchange-60k").out
    assert "memory a rank on cpu" in text and "does not fit" in text and "disk: " in text and "time on cpu" in text
    assert not (shell.folder / "runs" / "store").exists()


def test_an_interrupted_run_ends_with_130_and_goes_on_afterwards(shell: Shell, tiny_recipe: Path) -> None:
    running = subprocess.Popen(
        [PREFSTACK, "run", tiny_recipe, "--json"], cwd=shell.folder, env=dict(shell.environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    store = shell.folder / "work" / "store"
    end = time.monotonic() + 120
    while not list(store.glob("sample-*/manifest.json")) and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert json.loads(out)["error"]["status"] == 130
    finished = {path.parent.name for path in store.glob("*/manifest.json")}
    done = shell.run("run", str(tiny_recipe), "--until", "sample", "--json")
    assert done.status == 0, done.err
    entries = json.loads(done.out)["stages"].values()
    assert all(entry["reused"] for entry in entries)
    assert {Path(entry["folder"]).name for entry in entries} <= finished


def test_a_server_that_does_not_answer_is_named(shell: Shell) -> None:
    lost = Shell(shell.folder, {**shell.environment, "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert "http://127.0.0.1:9/api" in refused(lost.run("run", "demo"), 1)
