"""Training as a run of its own, on a worker of another pool, where there is a deployment for it.

The pipeline waits for that run, and then finds what it made in the store that both share. A retry of the pipeline
finds the same run: one that is still at work is waited for, one that failed is followed by a new attempt.
"""

import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from flows.plain import plain_steps
from flows.prefect_api import api
from flows.recipe import STAGES, Recipe, Stage
from flows.report import current_report
from flows.stages import training_stages
from tasks.errors import (
    GateFailed,
    InputError,
    PrefstackError,
    RecipeError,
    StageFailed,
    Surroundings,
)
from tasks.manifest import Manifest
from tasks.store import Store

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

DEPLOYMENT: Final = "training/training"
TRAINING: Final = STAGES[STAGES.index("model") :]
POLL: Final = 3.0  # seconds
REVIVED_WITHIN: Final = 90.0  # seconds that the automation has to bring a crashed run back
SILENT_SERVER: Final = 3600.0  # seconds without an answer before waiting is given up
logger = logging.getLogger("prefstack")

_BY_KIND: Final[dict[str, type[PrefstackError]]] = {
    "recipe": RecipeError, "input": InputError, "gate": GateFailed, "training": StageFailed,
    "surroundings": Surroundings, "transient": StageFailed,
}  # fmt: skip


@dataclass(frozen=True)
class Handover:
    """What the training run is asked for, beside the recipe."""

    deployment: "DeploymentResponse"
    recipe: str
    overrides: Sequence[str]
    force: Sequence[Stage]
    until: Stage
    resume: str
    run: str
    """Name of the pipeline's run; the training run's is made of it."""

    @property
    def name(self) -> str:
        return f"{self.run[:80]}-training"

    def parameters(self) -> dict[str, Any]:
        """The parameters of the training deployment."""
        return {
            "recipe": self.recipe, "overrides": list(self.overrides), "force": list(self.force),
            "until": self.until, "resume": self.resume, "name": self.name,
        }  # fmt: skip


def training_deployment() -> "DeploymentResponse | None":
    """The deployment that trains for this run; None where the run trains by itself.

    It does where no worker has started it, and where training belongs to its own pool: waiting there for a slot while
    holding one would be waiting for oneself.
    """
    from prefect import runtime
    from prefect.exceptions import ObjectNotFound

    if runtime.deployment.id is None:
        return None
    with api() as client:
        try:
            found = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return None
        mine = pool_of(client, runtime.flow_run.id)
    return found if found.work_pool_name not in (None, mine) else None


def pool_of(client: "SyncPrefectClient", flow_run_id: UUID | str) -> str | None:
    """The pool whose slot the run holds: its own, or, for a flow that another one calls, that of the outer one."""
    run = client.read_flow_run(UUID(str(flow_run_id)))
    while run.work_pool_name is None and run.parent_task_run_id is not None:
        outer = client.read_task_run(run.parent_task_run_id).flow_run_id
        if outer is None:
            break
        run = client.read_flow_run(outer)
    return run.work_pool_name


def unfinished(
    store: Store, recipe: Recipe, sources: Sequence[Manifest], data: dict[str, Manifest], until: Stage
) -> list[Stage]:
    """The training stages up to `until` that are not in the store."""
    missing: list[Stage] = []
    for stage, manifests in training_stages(plain_steps(), replace(store, plan=True), recipe, sources, data):
        if any(manifest.planned for manifest in manifests):
            missing.append(stage)
        if stage == until:
            break
    return missing


def train_elsewhere(wanted: Handover, work_dir: Path) -> str:
    """Start or find the training run, wait for it, and give its name. Raises what it failed of."""
    from prefect.exceptions import TerminationSignal

    child = _latest(wanted)
    if child is not None:
        child = _settled(child)
    if child is None or (child.state is not None and child.state.is_final() and not child.state.is_completed()):
        child = _start(wanted, child)
    _say(f"{child.name} runs on pool {wanted.deployment.work_pool_name}")
    try:
        ended = _wait(child)
    except TerminationSignal:
        _cancel_with_us(child)
        raise
    if ended.state is None or not ended.state.is_completed():
        raise _failure(ended, work_dir / "runs" / wanted.name / "summary.json")
    return ended.name


def _latest(wanted: Handover) -> "FlowRun | None":
    """The newest training run that this run has started, in whichever attempt."""
    runs = _children(wanted)
    return max(runs, key=lambda run: str(run.created)) if runs else None


def _settled(child: "FlowRun") -> "FlowRun":
    """The run as it is when no automation will bring it back any more.

    Pipeline and training often crash together. A second training beside the first would hold the slot that the first
    one, scheduled again by the automation, waits for.
    """
    from httpx import HTTPError

    end = time.monotonic() + REVIVED_WITHIN
    while child.state is not None and child.state.is_crashed() and time.monotonic() < end:
        if datetime.now(UTC) - child.state.timestamp > timedelta(seconds=REVIVED_WITHIN):
            break
        time.sleep(POLL)
        with suppress(HTTPError, PrefstackError), api() as client:  # a server that is away for a moment is asked again
            child = client.read_flow_run(child.id)
    return child


def _children(wanted: Handover) -> "list[FlowRun]":
    from prefect import runtime
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterParentFlowRunId,
    )

    with api() as client:
        return client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[runtime.flow_run.id])),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[wanted.deployment.id])),
        )


def _start(wanted: Handover, failed: "FlowRun | None") -> "FlowRun":
    from prefect import runtime
    from prefect.deployments import run_deployment

    attempt = len(_children(wanted)) + 1
    if failed is not None:
        _say(f"the training run before ended {failed.state_name}: attempt {attempt} goes on from its last checkpoint")
    made: Any = run_deployment(
        wanted.deployment.id,
        parameters=wanted.parameters(),
        flow_run_name=wanted.name if attempt == 1 else f"{wanted.name}-{attempt}",
        timeout=0,
        # The same key for the same attempt: a server that made the run and could not say so makes no second one.
        idempotency_key=f"{runtime.flow_run.id}-training-{attempt}",
    )
    run: FlowRun = made
    return run


def _wait(child: "FlowRun") -> "FlowRun":
    """The run in its final state. A crashed one gets time to be brought back by the automation."""
    from httpx import HTTPError

    seen = child.state_name
    answered = time.monotonic()
    crashed_at: float | None = None
    while True:
        try:
            with api() as client:
                child = client.read_flow_run(child.id)
            answered = time.monotonic()
        except (HTTPError, PrefstackError):
            if time.monotonic() - answered > SILENT_SERVER:
                raise
            time.sleep(POLL)
            continue
        if child.state_name != seen:
            seen = child.state_name
            _say(f"{child.name}: {seen}")
        state = child.state
        if state is not None and state.is_crashed():
            crashed_at = crashed_at or time.monotonic()
            if time.monotonic() - crashed_at > REVIVED_WITHIN:
                return child
        elif state is not None and state.is_final():
            return child
        else:
            crashed_at = None
        time.sleep(POLL)


def _cancel_with_us(child: "FlowRun") -> None:
    """Cancel the training run if this run is cancelled; one that is only interrupted will look for it again."""
    from prefect import runtime
    from prefect.states import Cancelling

    try:
        with api() as client:
            mine = client.read_flow_run(runtime.flow_run.id).state
            if mine is not None and (mine.is_cancelling() or mine.is_cancelled()):
                client.set_flow_run_state(child.id, Cancelling(message="the pipeline that started it was cancelled"))
    except Exception as error:
        logger.warning("training  %s could not be cancelled with the pipeline: %s", child.name, error)


def _failure(ended: "FlowRun", summary: Path) -> PrefstackError:
    """What the training run failed of: as it says itself, or as its state does."""
    try:
        said = json.loads(summary.read_text(encoding="utf-8"))["error"]
    except (OSError, ValueError, KeyError):
        said = None
    if said and ended.state is not None and ended.state.is_failed():
        return error_of_kind(str(said["kind"]), f"training run {ended.name}: {said['message']}", said["status"])
    message = ended.state.message if ended.state is not None and ended.state.message else "it says nothing more"
    return StageFailed(f"training run {ended.name} ended {ended.state_name}: {message}")


def error_of_kind(kind: str, message: str, status: int) -> PrefstackError:
    """What another run failed of, from `kind` and `status` in its summary; StageFailed where the kind is not ours."""
    if status == Surroundings.status:  # of what may not happen again, too
        return Surroundings(message)
    return _BY_KIND.get(kind, StageFailed)(message)


def _say(text: str) -> None:
    current_report().message("training", text)
