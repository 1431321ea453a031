"""How often a run goes on by itself, and that two attempts of one run never work at once."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from prefect.client.schemas.objects import StateType
from prefect.states import State

from flows.automations import RESUMED, automations
from flows.resumes import automatic_resumes, only_attempt


def history(*entries: tuple[StateType, str, str | None]) -> list[State]:
    return [
        State(type=kind, name=name, message=message, timestamp=f"2026-01-01T00:00:{second:02d}Z")
        for second, (kind, name, message) in enumerate(entries)
    ]


FIRST = (StateType.SCHEDULED, "Scheduled", None)
PENDING = (StateType.PENDING, "Submitting", None)
RUNNING = (StateType.RUNNING, "Running", None)
CRASHED = (StateType.CRASHED, "Crashed", "no heartbeat for 90 seconds")
BACK = (StateType.SCHEDULED, "AwaitingRetry", RESUMED)
LATE = (StateType.SCHEDULED, "Late", None)
BY_HAND = (StateType.SCHEDULED, "AwaitingRetry", None)


def test_resumptions_are_counted_from_the_last_time_somebody_scheduled_the_run() -> None:
    assert automatic_resumes(history(FIRST, RUNNING)) == 0
    assert automatic_resumes(history(FIRST, RUNNING, CRASHED, BACK, RUNNING, CRASHED, BACK, RUNNING)) == 2
    assert automatic_resumes(history(FIRST, RUNNING, CRASHED, BACK, LATE, RUNNING)) == 1
    twice = (FIRST, RUNNING, CRASHED, BACK, RUNNING, CRASHED)
    assert automatic_resumes(history(*twice, BY_HAND, RUNNING)) == 0
    assert automatic_resumes(history(*twice, BY_HAND, RUNNING, CRASHED, BACK, RUNNING)) == 1


def test_a_crash_that_the_worker_reports_twice_is_counted_once() -> None:
    assert automatic_resumes(history(FIRST, RUNNING, CRASHED, BACK, PENDING, CRASHED, BACK, RUNNING)) == 1
    assert automatic_resumes(history(FIRST, RUNNING, CRASHED, BACK, CRASHED, BACK, CRASHED, BACK, RUNNING)) == 1


def test_the_order_in_which_the_server_lists_states_does_not_matter() -> None:
    states = history(FIRST, RUNNING, CRASHED, BACK, RUNNING, CRASHED, BY_HAND, RUNNING, CRASHED, BACK, RUNNING)
    assert automatic_resumes(states) == 1
    assert automatic_resumes(states[::-1]) == automatic_resumes(states)


def test_the_automation_says_the_words_that_are_counted() -> None:
    messages = [action.message for automation in automations() for action in automation.actions]
    assert messages.count(RESUMED) == 1


def test_a_second_attempt_waits_until_the_first_has_ended(tmp_path: Path) -> None:
    order = []

    def attempt(name: str, seconds: float) -> None:
        with only_attempt(tmp_path):
            order.append(f"{name} begins")
            time.sleep(seconds)
            order.append(f"{name} ends")

    first = threading.Thread(target=attempt, args=("first", 0.3))
    first.start()
    while not order:
        time.sleep(0.01)
    attempt("second", 0.0)
    first.join()
    assert order == ["first begins", "first ends", "second begins", "second ends"]


def test_a_killed_attempt_holds_nobody_up(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from flows.resumes import only_attempt\n"
        f"with only_attempt(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        holder.kill()
    start = time.monotonic()
    with only_attempt(tmp_path):
        assert time.monotonic() - start < 1.0
