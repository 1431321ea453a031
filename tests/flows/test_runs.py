"""A run that is followed: what ends it, and as what."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.recipe import Stage, load_recipe
from flows.runs import follow, open_run
from tasks.errors import Surroundings
from tasks.manifest import Manifest


def stages(error: BaseException | None) -> Iterator[tuple[Stage, list[Manifest]]]:
    """Stages that end as Prefect's task engine does when a signal comes before it has a task run."""
    try:
        if error is not None:
            raise error
    except BaseException:
        raise ValueError("Task run is not set")  # noqa: B904  as there: the signal is its context and not its cause
    raise ValueError("Task run is not set")
    yield "ingest", []


def test_ctrl_c_between_two_states_of_a_task_is_ctrl_c_and_no_error_of_prefects(tmp_path: Path) -> None:
    run = open_run("stopped", load_recipe("demo", [f"work_dir={tmp_path}"]))
    with pytest.raises(KeyboardInterrupt):
        follow(run, stages(KeyboardInterrupt()), None)
    with pytest.raises(Surroundings, match="unforeseen ValueError: Task run is not set"):
        follow(run, stages(None), None)
