"""`prefstack up` on a real PostgreSQL: made, found whole, run on, cut off, stopped, and left (`make test-faults`)."""

import json
from collections.abc import Iterator

import pytest

from tests.flows.conftest import TINY
from tests.flows.installation import Installation, clear_away, start, until
from tests.flows.postgres import Postgres, postgres

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
OTHERS = "select count(*) from pg_stat_activity where datname = 'prefect' and pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as made:
        yield made


@pytest.fixture(scope="module")
def up(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("postgres")
    (folder / "tiny.yaml").write_text(TINY.format(model="smollm2-135m-instruct", work_dir="work"))
    installation = start(folder, more={DATABASE: database.url})
    try:
        yield installation
    finally:
        clear_away(installation)


def checks(up: Installation) -> tuple[int, dict[str, bool]]:
    """The doctor's status and what it finds to hold."""
    done = up.prefstack("doctor", "--work-dir", "work", "--json")
    return done.status, {check["check"]: check["holds"] for check in json.loads(done.out)["checks"]}


def test_the_doctor_is_content_and_a_run_is_kept_in_postgresql(up: Installation, database: Postgres) -> None:
    status, holds = checks(up)
    assert status == 0
    for check in (
        "the server's database", "pools, limits and automations", "deployments", "workers of pool cpu",
        "workers of pool gpu",
    ):  # fmt: skip
        assert holds[check], holds
    run = up.run("kept", deployment="data/data", recipe="tiny.yaml")
    up.await_state("kept", "Completed", 240)
    assert {state for state, _ in up.task_states(run, 1).values()} == {"Completed"}
    assert database.ask(f"select state_type from flow_run where id = '{run}'") == "COMPLETED"
    assert not (up.folder / "home" / "prefect.db").exists()


def test_a_database_that_is_gone_for_a_while_is_named_by_the_doctor_and_found_again(
    up: Installation, database: Postgres
) -> None:
    database.stop()
    status, holds = checks(up)
    assert status == 1 and holds["the server's database"] is False
    database.start()
    until(lambda: up.answers(), 60, "the server with its database")
    up.run("after", deployment="data/data", recipe="tiny.yaml")
    up.await_state("after", "Completed", 240)
    assert "ended with status" not in up.log


def test_nothing_is_left_of_the_installation_when_it_is_stopped(up: Installation, database: Postgres) -> None:
    up.stop()
    assert up.process.returncode == 0 and up.processes() == []
    until(lambda: database.ask(OTHERS) == "0", 10, "the end of the server's connections")
