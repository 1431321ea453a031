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


def test_a_run_that_takes_the_name_of_another_recipe_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "prefstack")
    for beta, said in ((0.1, False), (0.1, False), (0.3, True)):
        caplog.clear()
        open_run("mine", load_recipe("demo", [f"work_dir={tmp_path}", f"train.beta={beta}"]))
        assert any("the run mine had other settings until now" in text for text in caplog.messages) is said


def test_ctrl_c_between_two_states_of_a_task_is_ctrl_c_and_no_error_of_prefects(tmp_path: Path) -> None:
    run = open_run("stopped", load_recipe("demo", [f"work_dir={tmp_path}"]))
    with pytest.raises(KeyboardInterrupt):
        follow(run, stages(KeyboardInterrupt()), None)
    with pytest.raises(Surroundings, match="unforeseen ValueError: Task run is not set"):
        follow(run, stages(None), None)
