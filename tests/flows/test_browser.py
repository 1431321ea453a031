"""The Prefect UI in a real browser, on what `prefstack up` makes of an empty folder (`make test-faults`).

Pictures of what was seen are kept in test-output/.
"""

import json
import math
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.artifact_tables import publish_table
from tests.flows.browser import Screen, screen
from tests.flows.installation import Installation, clear_away, start, until
from tests.flows.test_operations_faults import TRAINING, slots_taken

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

DATA = ("ingest", "pair", "dedupe", "sample")
WORDS = (
    "<b>x</b> <img src=http://example.com/a.png> ![y](http://example.com/b.png) [z](about:blank) me@example.com "
    "www.example.com"
)
FIELDS = ("recipe", "overrides", "force", "until", "resume", "name")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = start(tmp_path_factory.mktemp("browser"))
    try:
        yield installation
    finally:
        clear_away(installation)


@pytest.fixture
def ui(up: Installation) -> Iterator[Screen]:
    """A browser; whatever a test did, no page asked another host for anything, and nothing was refused."""
    with screen() as shown:
        yield shown
        assert shown.foreign == [] and shown.refused == []


def recipe(up: Installation, model: Path, name: str, size: int = 16, epochs: int = 1, more: str = "") -> Path:
    path = up.folder / f"{name}.yaml"
    path.write_text(TRAINING.format(model=model, size=size, epochs=epochs) + more)
    return path


def page(up: Installation, kind: str, identity: str) -> str:
    place = {"deployment": "deployments/deployment", "run": "runs/flow-run", "artifact": "artifacts/artifact"}[kind]
    return f"http://127.0.0.1:{up.port}/{place}/{identity}"


def deployment(up: Installation, name: str) -> str:
    (found,) = up.ask("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    return str(found["id"])


def artifacts(up: Installation, run: str) -> dict[str, str]:
    """Ids of the artifacts of a flow run, by key."""
    found = up.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}})
    return {artifact["key"]: artifact["id"] for artifact in found}


def test_from_nothing_to_a_finished_run_started_and_looked_at_in_the_browser(
    up: Installation, ui: Screen, tiny_model: Path
) -> None:
    # The form has its six fields, each with a word on what it is, and starts the run.
    ui.open(page(up, "deployment", deployment(up, "pipeline")))
    ui.sees("Ready")
    ui.picture("deployment")
    ui.press("Run")
    ui.page.get_by_text("Custom run", exact=True).click()
    ui.sees("Name of the run's folder; empty = the name of the flow run.")
    for field in FIELDS:
        ui.sees(f"{field} (Optional)")
    assert ui.page.get_by_text('Property is type "None"').count() == 0
    ui.picture("run-form")
    ui.page.locator("textarea").first.fill(str(recipe(up, tiny_model, "seen", more="price: 2.0\n")))
    ui.page.get_by_role("textbox").first.fill("seen")
    ui.press("Submit")
    up.await_state("seen", "Completed", 400)

    # The run of the pipeline, and the training that it handed over: states and artifacts.
    run, training = up.find("seen")["id"], up.find("seen-training")["id"]
    ui.open(page(up, "run", run))
    ui.sees("Completed")
    ui.picture("run")
    ui.tab("Task Runs")
    for stage in DATA:
        ui.page.get_by_text(f"{stage}-").locator("visible=true").first.wait_for()
    assert ui.page.get_by_text("Reused", exact=True).count() >= 5  # what the training run has made
    ui.picture("run-tasks")
    ui.open(page(up, "run", training))
    ui.tab("Artifacts")
    found = artifacts(up, training)
    for key in ("train-curves", "evaluate-report", "model-card", "run-lineage", "run-cost", "gate-tokenized"):
        assert key in found
        ui.page.get_by_text(key, exact=True).locator("visible=true").first.wait_for()
    ui.picture("run-artifacts")

    # What opens behind them.
    for key, seen in (
        ("train-curves", "learning rate"), ("evaluate-report", "accuracy"), ("gate-tokenized", "held"),
        ("run-lineage", "fingerprint"), ("run-cost", "device-seconds"), ("train-counts", "steps"),
    ):  # fmt: skip
        ui.open(page(up, "artifact", found[key]))
        ui.sees(seen)
        ui.picture(f"artifact-{key}")
    for key in ("run-lineage-picture", "evaluate-accuracy"):
        ui.open(page(up, "artifact", found[key]))
        image = ui.page.locator(f"img[src^='http://127.0.0.1:{up.files_port}/']")
        image.wait_for()
        until(lambda image=image: image.evaluate("image => image.naturalWidth") > 100, 30, f"the picture of {key}")
        ui.picture(f"artifact-{key}")
    ui.open(page(up, "artifact", found["model-card"]))
    ui.picture("artifact-model-card")
    report = ui.page.get_by_role("link", name="report", exact=True).get_attribute("href")
    assert report and report.startswith(f"http://127.0.0.1:{up.files_port}/store/publish-")
    ui.open(report)
    ui.page.locator("h1").first.wait_for()
    ui.picture("report")


def test_a_schedule_that_is_switched_on_shows_the_runs_to_come(up: Installation, ui: Screen) -> None:
    ui.open(page(up, "deployment", deployment(up, "data")))
    ui.sees("nightly")
    ui.page.get_by_role("switch").click()
    wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "limit": 5}
    until(lambda: len(up.ask("/flow_runs/filter", wanted)) > 0, 150, "a scheduled run")
    ui.open(page(up, "deployment", deployment(up, "data")) + "?tab=Upcoming")
    ui.sees("Scheduled")
    ui.page.get_by_text("01:00:00", exact=False).first.wait_for()
    ui.picture("schedule")
    ui.page.get_by_role("switch").click()
    until(lambda: up.ask("/flow_runs/filter", wanted) == [], 150, "the end of scheduled runs")


def test_retry_pressed_on_a_failed_run_runs_what_failed_and_nothing_else(
    up: Installation, ui: Screen, tiny_model: Path
) -> None:
    path = recipe(up, tiny_model, "failed", size=10**6)
    run = up.run("failed", deployment="data/data", recipe=str(path))
    up.await_state("failed", "Failed", 180)
    ui.open(page(up, "run", run))
    ui.sees("Failed")
    ui.picture("failed-run")
    recipe(up, tiny_model, "failed", size=12)
    ui.press("Retry")
    ui.sees("Retry failed?")
    ui.press("Retry")
    pressed = time.monotonic()
    until(lambda: up.task_states(run, 2).get("sample", ("",))[0] in ("Running", "Completed"), 90, "sample, once more")
    print(f"Retry in the UI: the failed stage runs again after {time.monotonic() - pressed:.1f} s")
    up.await_state("failed", "Completed", 120, attempt=2)
    states = up.task_states(run, 2)
    assert {states[stage][0] for stage in ("ingest", "pair", "dedupe")} == {"Reused"}
    assert states["sample"][0] == "Completed"
    ui.open(page(up, "run", run))
    ui.sees("Completed")
    ui.tab("Task Runs")
    ui.sees("Reused")
    ui.picture("retried-run")


def test_cancel_pressed_during_training_leaves_no_process(up: Installation, ui: Screen, tiny_model: Path) -> None:
    path = recipe(up, tiny_model, "cancelled", size=96, epochs=2000)
    run = up.run("cancelled", deployment="training/training", recipe=str(path))
    up.await_state("cancelled", "Running", 120)
    up.await_steps(8)
    until(lambda: "train-live" in artifacts(up, run), 60, "the curves of the training at work")
    ui.open(page(up, "artifact", artifacts(up, run)["train-live"]))
    ui.sees("Training, as it goes on")
    ui.picture("artifact-train-live")
    ui.open(page(up, "run", run))
    ui.sees("Running")
    ui.picture("training-run")
    ui.press("Cancel")
    ui.sees("Cancel Flow Run")
    ui.picture("cancel-dialogue")
    ui.press("Confirm")
    gone = until(lambda: not up.processes("PREFECT__FLOW_RUN_ID="), 35, "the end of every process of the run")
    print(f"Cancel in the UI: processes gone after {gone:.1f} s")
    up.await_state("cancelled", "Cancelled", 60)
    assert slots_taken(up) == 0
    ui.open(page(up, "run", run))
    ui.sees("Cancelled")
    ui.picture("cancelled-run")
    # What it has cost so far is said all the same.
    assert "run-cost" in artifacts(up, run)
    (cost,) = up.ask("/artifacts/filter", {"artifacts": {"id": {"any_": [artifacts(up, run)["run-cost"]]}}})
    ended = {row["stage"]: row["ended"] for row in json.loads(cost["data"])}
    assert ended["train"] == "interrupted"


@pytest.fixture
def tables(up: Installation) -> dict[str, str]:
    """Artifacts of every kind of value, of no row and of too many; their ids. Made before a browser is there, whose
    event loop would keep Prefect from waiting for the server."""
    kinds = {"nan": math.nan, "inf": np.float64("inf"), "count": np.int64(7), "day": date(2024, 5, 1), "text": WORDS}
    rows = [{"row": number, "words": f"row number {number}"} for number in range(5000)]
    made = {"every-kind": [kinds], "no-row": [], "many-rows": rows}
    with temporary_settings({PREFECT_API_URL: up.api}):
        for key, table in made.items():
            publish_table(key, table, f"table {key}", up.folder / "work" / "runs" / "tables")
    found = up.ask("/artifacts/filter", {"artifacts": {"key": {"any_": list(made)}}})
    return {artifact["key"]: artifact["id"] for artifact in found}


def test_tables_of_every_kind_of_value_of_no_row_and_of_a_thousand_open(
    up: Installation, tables: dict[str, str], ui: Screen
) -> None:
    ui.open(page(up, "artifact", tables["every-kind"]))
    ui.sees("2024-05-01")
    cells = [cell.strip() for cell in ui.page.locator("table td").all_inner_texts()]
    assert cells == ["nan", "inf", "7", "2024-05-01", WORDS]
    assert ui.page.locator("table img, table b, table a").count() == 0
    ui.picture("artifact-every-kind")
    ui.open(page(up, "artifact", tables["no-row"]))
    ui.sees("table no-row")
    ui.picture("artifact-no-row")
    ui.open(page(up, "artifact", tables["many-rows"]))
    ui.sees("row number 0")
    assert ui.page.get_by_text("the first 1,000 of 5,000 rows").count() >= 1
    ui.picture("artifact-many-rows")


def test_the_page_of_a_gate_is_whole_where_nothing_else_can_be_reached(up: Installation) -> None:
    gates = sorted((up.folder / "work" / "runs").glob("*/gates/*.html"))
    assert gates
    with screen(offline_but=up.files_port) as shown:
        shown.open(f"http://127.0.0.1:{up.files_port}/{gates[0].relative_to(up.folder / 'work')}")
        assert shown.page.locator("tbody tr").count() >= 3
        assert shown.page.locator("table").evaluate("table => getComputedStyle(table).borderCollapse") == "collapse"
        assert shown.page.locator("script, link, img, iframe").count() == 0
        shown.picture("gate")
        assert shown.foreign == [] and shown.refused == []
        # As a file, mailed or copied, it is the same page.
        shown.page.context.unroute_all()
        shown.page.context.set_offline(True)
        shown.open(gates[0].as_uri())
        assert shown.page.locator("tbody tr").count() >= 3
        assert shown.foreign == []
