"""docs/operations.md: every command in it does what it says, and its notification reaches a receiver."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows.prefect_api import api
from tests.flows.conftest import ROOT, Server, clean_environment
from tests.flows.installation import Installation, clear_away, start

PAGE = (ROOT / "docs" / "operations.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line]


def shell(command: str, folder: Path, environment: dict[str, str], timeout: float = 120) -> str:
    """Run a line of the page as a reader does, in a folder that has docs/; its output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment | {"PATH": path}, capture_output=True, text=True,
        timeout=timeout, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


class Receiver(BaseHTTPRequestHandler):
    got: list[str] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.got.clear()
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/alert"
    server.shutdown()
    server.server_close()


def test_the_page_has_the_commands_that_the_tests_below_run() -> None:
    assert len(BLOCKS) >= 9 and len(COMMANDS) >= 15
    assert COMMANDS[0] == "prefstack up"


def test_the_notifications_of_the_page_reach_their_receiver(here: Server, tmp_path: Path, receiver: str) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (block,) = [block for block in BLOCKS if "notify.yaml" in block]
    shell(block.replace("http://127.0.0.1:9099/alert", receiver), tmp_path, here.environment)

    def end_run(name: str, flow: str, state: str, message: str, tags: tuple[str, ...] = ("prefstack",)) -> None:
        wanted = {"state": {"type": state, "message": message}, "force": True}
        with api() as client:  # it asks once more where SQLite was busy

            def made(path: str, **body: object) -> str:
                return str(client.request("POST", path, json=body).json()["id"])

            run = made("/flow_runs/", flow_id=made("/flows/", name=flow), name=name, tags=tags)
            client.request("POST", "/flow_runs/{id}/set_state", path_params={"id": run}, json=wanted)

    end_run("not-ours", "training", "FAILED", "somebody else's", tags=())
    end_run("nothing-new", "data", "COMPLETED", "all there")
    end_run("unlucky", "data", "FAILED", "a gate failed")
    end_run("lucky", "training", "COMPLETED", "a model")
    expected = {"prefstack: lucky is Completed: a model", "prefstack: unlucky is Failed: a gate failed"}
    end = time.monotonic() + 60
    while (told := {json.loads(text)["text"] for text in Receiver.got}) < expected and time.monotonic() < end:
        time.sleep(0.3)
    # Each at least once, and nothing else. How often cannot be promised: Prefect hands an event to its triggers, and an
    # action to who carries it out, up to three times more where the handler fails, as it does when SQLite is busy, and
    # even if the message has gone out by then. What would be a fault of the page is a run of which two automations
    # tell, or one that is not meant for it: it stands in what fired, however often it fired.
    assert told == expected
    meant = {("prefstack tells of failed runs", "unlucky"), ("prefstack tells of finished trainings", "lucky")}
    while (fired := fired_by_run()).keys() < meant and time.monotonic() < end:
        time.sleep(0.3)
    assert fired.keys() == meant and {len(automations) for automations in fired.values()} == {1}
    with api() as client:
        for automation in client.read_automations():
            if automation.name.startswith("prefstack tells"):
                client.delete_automation(automation.id)


def fired_by_run() -> dict[tuple[str, str], set[str]]:
    """Name of an automation of the page and of a run that it fired for -> ids of the automations of that name."""
    found: dict[tuple[str, str], set[str]] = {}
    wanted = {"filter": {"event": {"name": ["prefect.automation.triggered"]}}}
    with api() as client:
        for event in client.request("POST", "/events/filter", json=wanted).json()["events"]:
            name = event["resource"]["prefect.resource.name"]
            if name.startswith("prefstack tells"):
                run = event["payload"]["triggering_event"]["resource"]["prefect.resource.name"]
                found.setdefault((name, run), set()).add(event["resource"]["prefect.resource.id"])
    return found


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "docs").symlink_to(ROOT / "docs")
    found = start(folder)
    try:
        yield found
    finally:
        clear_away(found)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_every_command_of_the_page_runs_on_what_up_gives(installation: Installation) -> None:
    """`prefstack up` and the export are what the installation is; the rest is run as it stands, in its order."""
    environment = clean_environment(installation.folder / "home", PREFECT_API_URL=installation.api)
    (installation.folder / "runs").symlink_to("work")
    shell("prefstack run demo --until sample --set work_dir=work", installation.folder, environment, timeout=300)
    ran = 0
    for block in BLOCKS:
        cancelled = []
        for line in block.splitlines():
            if line == "prefstack up" or line.startswith("export "):
                continue
            shell(line, installation.folder, environment, timeout=240)
            ran += 1
            if "deployment run" in line:  # that a run does what it should is another test's business
                (run,) = installation.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})
                installation.set_state(run["id"], type="CANCELLING", name="Cancelling")
                cancelled.append(run["name"])
        for name in cancelled:
            installation.await_state(name, "Cancelled", 90)
    assert ran == len(COMMANDS) - 2
