"""A real server: what only shows when one is booted."""

import json
import subprocess
import time
import urllib.request
from typing import Any

from tests.flows.conftest import PREFECT, ROOT, Server


def ask(server: Server, path: str, body: object | None = None) -> Any:
    request = urllib.request.Request(
        f"{server.url}{path}", data=json.dumps(body or {}).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def prefect(server: Server, *arguments: str) -> str:
    done = subprocess.run(
        [PREFECT, "--no-prompt", *arguments],
        cwd=ROOT,
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_deployments_of_prefect_yaml_are_made_and_a_cron_schedule_really_creates_runs(server: Server) -> None:
    # With SQLAlchemy 2.1 the deployment looks ready and no run is ever created.
    for pool in ("cpu", "gpu"):
        prefect(server, "work-pool", "create", pool, "--type", "process", "--overwrite")
    prefect(server, "deploy", "--all")
    deployments = {found["name"]: found for found in ask(server, "/deployments/filter")}
    assert {"pipeline", "data", "training"} <= set(deployments)
    assert all(not schedule["active"] for found in deployments.values() for schedule in found["schedules"])

    nightly = deployments["data"]
    schedule = nightly["schedules"][0]
    request = urllib.request.Request(
        f"{server.url}/deployments/{nightly['id']}/schedules/{schedule['id']}",
        data=json.dumps({"active": True}).encode(), headers={"Content-Type": "application/json"}, method="PATCH",
    )  # fmt: skip
    urllib.request.urlopen(request, timeout=10).close()
    end = time.monotonic() + 60
    runs: list[Any] = []
    while not runs and time.monotonic() < end:
        runs = ask(server, "/flow_runs/filter", {"deployments": {"id": {"any_": [nightly["id"]]}}})
        time.sleep(0.5)
    assert runs, "no run was scheduled within a minute of switching the schedule on"
    assert {run["state_type"] for run in runs} == {"SCHEDULED"}
    assert all(run["expected_start_time"][11:16] == "01:00" for run in runs)
