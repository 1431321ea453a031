"""Artifacts that open: what JSON and the UI can hold, no more rows than a browser bears, and where the rest lies."""

import csv
import json
import math
import threading
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import trainer_log
from flows.artifact_tables import MAX_ROWS, clean, publish_table
from flows.artifacts import bar, publish_cost, publish_stage, training_curves, with_addresses
from flows.device_time import counted
from flows.files import ROOT_VARIABLE, URL_VARIABLE
from tasks.manifest import Manifest
from tasks.store import Store, Workspace
from tests.flows.conftest import Server
from tests.flows.test_real_server import ask


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (1.5, 1.5), (True, True), (None, None), ("a", "a"),
        (np.int64(3), 3), (np.float32(0.5), 0.5), (np.float64("nan"), "nan"), (np.float32("inf"), "inf"),
        (np.bool_(True), True), (np.str_("b"), "b"), (np.array([1, 2]), "[1 2]"), (np.array(7), 7),
        (datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01T12:00:00+00:00"), (date(2024, 5, 1), "2024-05-01"),
        (np.datetime64("2024-05-01"), "2024-05-01"), (pd.NaT, "NaT"),
        (pd.Timestamp("2024-05-01"), "2024-05-01T00:00:00"),
        (Decimal("1.10"), "1.10"), (Path("a/b"), "a/b"), ({1: [np.int8(1), {"x": math.nan}]}, {"1": [1, {"x": "nan"}]}),
        ((1, 2), [1, 2]), ({3}, "{3}"), (b"x", "b'x'"),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_stands_in_a_row_becomes_json_that_every_browser_reads(value: Any, shown: Any) -> None:
    assert clean(value) == shown
    json.dumps(clean(value), allow_nan=False)


def stored(server: Server, key: str) -> tuple[Any, str]:
    """Data and description of the newest artifact under `key`."""
    found = ask(server, "/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"})
    return json.loads(found[0]["data"], parse_constant=pytest.fail), found[0]["description"]


def test_a_server_keeps_rows_of_every_kind_and_none_at_all(here: Server, tmp_path: Path) -> None:
    row = {"nan": math.nan, "inf": np.float64("inf"), "count": np.int64(2), "day": date(2024, 5, 1), "text": "<b>"}
    publish_table("every-kind", [row, row], "Every kind", tmp_path)
    data, said = stored(here, "every-kind")
    # The UI renders cells as Markdown.
    assert data == [{"nan": "nan", "inf": "inf", "count": 2, "day": "2024-05-01", "text": r"\<b>"}] * 2
    assert said == "Every kind"
    publish_table("no-rows", [], "None", tmp_path)
    assert stored(here, "no-rows") == ([], "None")


def test_a_stage_that_was_found_damaged_says_why_it_was_built_again(here: Server, tmp_path: Path) -> None:
    def build(work: Workspace) -> dict[str, int]:
        (work.folder / "rows.txt").write_text("one\n")
        return {"rows": 1}

    def stage() -> Manifest:
        return Store(tmp_path).stage("mended", 1, {}, {}, build)

    (stage().folder / "rows.txt").write_text("one and a half\n")
    publish_stage("mended", stage(), tmp_path)
    said = stored(here, "mended-counts")[1]
    assert said.endswith("(built again: the folder before has 15 bytes in rows.txt where its manifest says 4)")
    publish_stage("mended", stage(), tmp_path)
    assert "built again" not in stored(here, "mended-counts")[1]


class Busy(BaseHTTPRequestHandler):
    """A server that answers no request for an artifact, and asks to be asked again at once."""

    asked = 0

    def do_GET(self) -> None:
        self.answer(404)  # it knows of no tokens against forged requests

    def do_POST(self) -> None:
        Busy.asked += 1
        self.answer(503)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_does_not_answer_holds_no_stage_up_and_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Store(tmp_path).stage("mended", 1, {}, {}, lambda work: {"rows": 1})
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
            publish_stage("mended", made, tmp_path)
        server.shutdown()
    assert Busy.asked == 4  # of six, 2, 4, 8, 16 and 32 s apart, unless the server says when
    (line,) = [record.getMessage() for record in caplog.records if record.name == "prefstack"]
    assert line.startswith("mended    its artifacts could not be published: ") and "503" in line and "\n" not in line


def test_a_stage_of_two_words_has_a_key_that_the_server_takes(here: Server, tmp_path: Path) -> None:
    made = Store(tmp_path).stage("alpaca_eval", 1, {}, {}, lambda work: {"asked": 805})
    publish_stage("alpaca_eval", made, tmp_path)
    (row,) = stored(here, "alpaca-eval-counts")[0]
    assert 805 in row.values()


def test_a_long_table_is_cut_and_the_whole_of_it_linked(
    here: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = tmp_path / "runs" / "one"
    rows = [{"row": number, "share": math.nan if number else 0.5} for number in range(MAX_ROWS + 1)]
    publish_table("long", rows, "Long", run_folder)
    data, said = stored(here, "long")
    assert data == [{"row": 0, "share": 0.5}, *({"row": number, "share": "nan"} for number in range(1, MAX_ROWS))]
    path = run_folder / "tables" / "long.csv"
    assert said == f"Long (the first 1,000 of 1,001 rows; all of them: {path})"
    whole = list(csv.DictReader(path.open()))
    assert len(whole) == MAX_ROWS + 1 and whole[-1] == {"row": "1000", "share": "nan"}

    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:4201")
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    publish_table("long", rows, "Long", run_folder)
    assert "[all of them](http://127.0.0.1:4201/runs/one/tables/long.csv)" in stored(here, "long")[1]
    publish_table("just", rows[:MAX_ROWS], "Just", run_folder)
    assert len(stored(here, "just")[0]) == MAX_ROWS and stored(here, "just")[1] == "Just"


def test_what_the_devices_cost_is_an_artifact_of_a_run_that_held_some(here: Server, tmp_path: Path) -> None:
    publish_cost(tmp_path, 2.0)
    assert ask(here, "/artifacts/filter", {"artifacts": {"key": {"any_": ["run-cost"]}}}) == []
    with counted("train", "CPU", 2, tmp_path):
        pass
    publish_cost(tmp_path, 2.0)
    data, said = stored(here, "run-cost")
    assert [row["stage"] for row in data] == ["train", "all"] and all("cost" in row for row in data)
    assert "at 2 a device and hour" in said


def test_curves_of_a_training_that_went_wrong_are_still_a_table(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("")
    assert training_curves(path) == "No step was made."
    step = {"step": 1, "loss": 0.6931, "rewards/accuracies": 0.5, "rewards/margins": 0.0, "learning_rate": 5e-7}
    path.write_text("".join(json.dumps(step | {"step": number}) + "\n" for number in range(1, 401)))
    lines = training_curves(path).split("\n")
    assert len(lines) == 2 + 40 and lines[2].startswith("| 1 | ████████████ 0.6931 | ██████░░░░░░ 0.50 |")
    with path.open("a") as file:
        file.write('{"step": 401, "loss"')  # a line that is being written
    assert training_curves(path).split("\n") == lines
    assert bar(math.nan) == "░" * 12 and bar(2.0) == "█" * 12 and bar(-1.0) == "░" * 12


def test_pictures_and_links_of_a_card_open_from_the_page_of_its_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store" / "publish-ab" / "model"
    folder.mkdir(parents=True)
    (folder / "plots").mkdir()
    for name in ("plots/accuracy.png", "LICENSE"):
        (folder / name).write_text("x")
    card = (
        "![how often](plots/accuracy.png) [terms](LICENSE) [gone](lost.md) [site](https://example.com/a.png) [x](#part)"
    )
    kept = "[gone](lost.md) [site](https://example.com/a.png) [x](#part)"
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    assert with_addresses(card, folder) == f" terms {kept}"
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:4201")
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    here = "http://127.0.0.1:4201/store/publish-ab/model"
    assert with_addresses(card, folder) == f"![how often]({here}/plots/accuracy.png) [terms]({here}/LICENSE) {kept}"


def test_the_curves_of_a_training_at_work_are_one_artifact_that_grows(
    here: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_log, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(trainer_log, "STEP_EVERY", 0.1)
    partial, run = tmp_path / "partial" / "train-ab", tmp_path / "runs" / "one"
    (partial / "training").mkdir(parents=True)
    run.mkdir(parents=True)
    step = {"loss": 0.6931, "rewards/accuracies": 0.5, "rewards/margins": 0.0, "learning_rate": 5e-7}
    with trainer_log.trainer_log("train", "train-ab", tmp_path, run, lambda level, text: None):
        for number in (1, 2):
            with (partial / "training" / "metrics.jsonl").open("a") as metrics:
                metrics.write(json.dumps({"step": number} | step) + "\n")
            await_rows(here, number)
    (artifact,) = live(here)
    assert artifact["description"] == "Training, as it goes on"


def live(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(server, "/artifacts/filter", {"artifacts": {"key": {"any_": ["train-live"]}}})
    return found


def await_rows(server: Server, rows: int) -> None:
    end = time.monotonic() + 60
    while not any(artifact["data"].count("\n") == 1 + rows for artifact in live(server)):
        assert time.monotonic() < end, live(server)
        time.sleep(0.2)
