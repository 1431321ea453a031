"""The deployments of prefect.yaml on the server, without undoing what an operator has switched since."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from flows.prefect_api import api
from tasks.errors import Surroundings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

DEPLOYMENTS: Final = ("pipeline/pipeline", "data/data", "training/training", "sweep/sweep")
DEPLOY_WITHIN: Final = 180.0  # seconds


def deploy_all(folder: Path, log: Path) -> list[str]:
    """`prefect deploy --all` for `folder`; a line a deployment. What it prints goes to `log`.

    A folder without a prefect.yaml of its own gets the deployments that come with prefstack; its runs work there.
    """
    switched = _switched()
    prefect_file = folder / "prefect.yaml"
    if not prefect_file.exists():
        prefect_file = log.with_name("prefect.yaml")
        prefect_file.write_text(yaml.safe_dump(elsewhere(folder), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file)]
    with open(log, "wb") as out:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, timeout=DEPLOY_WITHIN, start_new_session=True,
        )  # fmt: skip
    if done.returncode:
        raise Surroundings(f"`prefect deploy --all` ended with status {done.returncode}: {log} says why")
    with api() as client:
        return [_restored(client, name, switched.get(name)) for name in DEPLOYMENTS]


def elsewhere(folder: Path) -> dict[str, Any]:
    """The deployments that come with prefstack, with `folder` as the place where their runs work."""
    settings: dict[str, Any] = yaml.safe_load(_shipped().read_text(encoding="utf-8"))
    settings["pull"] = [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}]
    for deployment in settings["deployments"]:
        path, flow = deployment["entrypoint"].split(":")
        deployment["entrypoint"] = f"{Path(path).with_suffix('').as_posix().replace('/', '.')}.{flow}"
    settings.pop("definitions", None)
    return settings


def _shipped() -> Path:
    package = Path(__file__).parent
    return next(path for path in (package / "prefect.yaml", package.parent / "prefect.yaml") if path.exists())


def _switched() -> "dict[str, DeploymentResponse]":
    """The deployments that are there already: deploying again would switch their schedules off."""
    from prefect.exceptions import ObjectNotFound

    found = {}
    with api() as client:
        for name in DEPLOYMENTS:
            try:
                found[name] = client.read_deployment_by_name(name)
            except ObjectNotFound:
                continue
    return found


def _restored(client: "SyncPrefectClient", name: str, before: "DeploymentResponse | None") -> str:
    """Schedules of the deployment as they were switched before; a line about it."""
    now = client.read_deployment_by_name(name)
    active = {schedule.slug: schedule.active for schedule in before.schedules} if before else {}
    for schedule in now.schedules:
        wanted = active.get(schedule.slug, schedule.active)
        if schedule.active != wanted:
            client.update_deployment_schedule(now.id, schedule.id, active=wanted)
    said = "deployed again" if before else "deployed"
    on = [slug for slug, wanted in active.items() if wanted]
    return f"deployment {name}: {said}, pool {now.work_pool_name}" + (
        f", schedule on: {', '.join(map(str, on))}" if on else ""
    )
