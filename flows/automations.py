"""The automations that keep runs going: what the server does when a run falls silent, crashes, or is never started.

Prefect ships none. They act on runs with our tags only, and nothing of this project has to be alive for them to act.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

TAG: Final = "prefstack"
RESUME_TAG: Final = "auto-resume"
"""A run with this tag goes on by itself after a crash. The deployments of prefect.yaml have it."""

HEARTBEAT: Final = 30  # seconds; Prefect's least, and its default is 180
MISSED_HEARTBEATS: Final = 3
PENDING_MINUTES: Final = 5
SETTLED: Final = 10  # seconds for which a run has to be Crashed before it goes on; the least that Prefect takes
STATES: Final = (
    "Scheduled", "AwaitingRetry", "Late", "Pending", "Submitting", "InfrastructurePending", "Running", "Cancelling",
    "Cancelled", "Completed", "Failed", "Crashed",
)  # fmt: skip
"""What ends the wait for a crashed run to settle: somebody else has moved it, or it has crashed once more."""
MAX_RESUMES: Final = 3
"""So often a run goes on by itself; counted in the run (flows/resumes.py), where a retry by hand starts afresh."""
RESUMED: Final = "resumed after a crash"
GIVE_UP_AFTER: Final = 8  # a run that cannot even begin to count for itself
STOPPED_COUNTING: Final = "it crashed again and again before it could start; the worker's log says why"
NOT_STARTED: Final = f"a worker took it and did not start it within {PENDING_MINUTES} minutes"


def automations() -> "list[AutomationCore]":
    """The automations, as Prefect wants them. Only runs with our tag are theirs."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    silence = HEARTBEAT * MISSED_HEARTBEATS
    every_run: dict[str, Any] = {"match": {"prefect.resource.id": "prefect.flow-run.*"}}

    def tagged(tag: str) -> dict[str, Any]:
        related = {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
        return every_run | {"match_related": related, "for_each": {"prefect.resource.id"}}

    crashed = StateType.CRASHED
    return [
        AutomationCore(
            name="prefstack: silent run is crashed",
            description=f"A run whose process has sent no heartbeat for {silence} seconds is marked Crashed.",
            # After Running too: a process that dies before its first heartbeat has sent none that could be missed.
            trigger=EventTrigger(
                **tagged(TAG), posture=Posture.Proactive, within=timedelta(seconds=silence), threshold=1,
                after={"prefect.flow-run.heartbeat", "prefect.flow-run.Running"}, expect={"prefect.flow-run.*"},
            ),
            actions=[ChangeFlowRunState(state=crashed, message=f"no heartbeat for {silence} seconds")],
        ),
        AutomationCore(
            name="prefstack: crashed run goes on",
            description=f"A crashed run that has the tag {RESUME_TAG} is scheduled again; finished stages are reused.",
            # Not at once: the worker reports a crash a second time when it has cleaned up behind it, some seconds
            # later, and would mark the attempt Crashed that has just begun.
            trigger=EventTrigger(
                **tagged(RESUME_TAG), posture=Posture.Proactive, within=timedelta(seconds=SETTLED), threshold=1,
                after={"prefect.flow-run.Crashed"}, expect={f"prefect.flow-run.{name}" for name in STATES},
            ),
            actions=[ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message=RESUMED)],
        ),
        AutomationCore(
            name="prefstack: run that nobody starts is crashed",
            description=f"A run that a worker took and did not start within {PENDING_MINUTES} minutes is crashed.",
            trigger=EventTrigger(
                **tagged(TAG), posture=Posture.Proactive, within=timedelta(minutes=PENDING_MINUTES), threshold=1,
                after={f"prefect.flow-run.{name}" for name in ("Pending", "Submitting", "InfrastructurePending")},
                expect={"prefect.flow-run.*"},
            ),
            actions=[ChangeFlowRunState(state=crashed, message=NOT_STARTED)],
        ),
        AutomationCore(
            name="prefstack: run that always crashes is failed",
            description=f"A run that was scheduled again {GIVE_UP_AFTER} times within an hour is left Failed.",
            trigger=EventTrigger(
                **tagged(RESUME_TAG), posture=Posture.Reactive, threshold=GIVE_UP_AFTER,
                within=timedelta(hours=1), expect={"prefect.flow-run.AwaitingRetry"},
            ),
            actions=[ChangeFlowRunState(state=StateType.FAILED, force=True, message=STOPPED_COUNTING)],
        ),
    ]  # fmt: skip
