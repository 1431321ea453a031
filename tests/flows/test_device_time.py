"""What a run's devices cost: every attempt counts, the lost ones too, and a price changes no result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.device_time import FILE, cost_table, counted, device_time
from flows.recipe import load_recipe
from flows.stages import described
from tasks.errors import RecipeError
from tests.flows.conftest import ROOT


def test_two_devices_for_an_hour_and_a_half_at_two_and_a_half_cost_seven_and_a_half() -> None:
    entries = [
        {"stage": "train", "device": "H100", "devices": 2, "seconds": 1800.0, "ended": "interrupted"},
        {"stage": "train", "device": "H100", "devices": 2, "seconds": 3600.0, "ended": "done"},
    ]
    rows = cost_table(entries, 2.5)
    assert [row["cost"] for row in rows] == [2.5, 5.0, 7.5]
    assert [row["device-seconds"] for row in rows] == [3600.0, 7200.0, 10800.0]
    assert [row["seconds"] for row in rows] == [1800.0, 3600.0, 5400.0]
    assert rows[0]["devices"] == "2 × H100" and rows[-1]["stage"] == "all"
    # Without a price the same, and no column of costs.
    assert [{key: row[key] for key in row if key != "cost"} for row in rows] == cost_table(entries, None)
    assert cost_table([], 2.5) == []


def test_each_attempt_is_an_entry_that_says_how_it_ended(tmp_path: Path) -> None:
    with counted("reference", "CPU", 1, tmp_path):
        (entry,) = device_time(tmp_path)
        assert entry["ended"] == "no"
    with pytest.raises(ValueError), counted("train", "CPU", 2, tmp_path):
        raise ValueError
    with pytest.raises(KeyboardInterrupt), counted("train", "CPU", 2, tmp_path):
        raise KeyboardInterrupt
    ended = [(entry["stage"], entry["devices"], entry["ended"]) for entry in device_time(tmp_path)]
    assert ended == [("reference", 1, "done"), ("train", 2, "failed"), ("train", 2, "interrupted")]


def test_an_attempt_that_was_killed_counts_up_to_its_last_note(tmp_path: Path) -> None:
    hold = (
        "import time; from pathlib import Path; import flows.device_time as d\n"
        f"d.NOTE_EVERY = 0.1\nwith d.counted('train', 'CPU', 1, Path({str(tmp_path)!r})): time.sleep(120)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, env=os.environ.copy())
    try:
        end = time.monotonic() + 60
        while not any(entry["seconds"] >= 0.3 for entry in device_time(tmp_path)):
            assert holder.poll() is None and time.monotonic() < end
            time.sleep(0.1)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with counted("train", "CPU", 1, tmp_path):
        pass
    killed, done = device_time(tmp_path)
    assert killed["seconds"] >= 0.3 and (killed["ended"], done["ended"]) == ("no", "done")


def test_a_file_that_was_torn_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[{"stage": ')
    with counted("train", "CPU", 1, tmp_path):
        pass
    assert [entry["stage"] for entry in json.loads((tmp_path / FILE).read_text())] == ["train"]


def test_a_price_is_in_no_card_and_cannot_be_less_than_nothing() -> None:
    assert described(load_recipe("demo", ["price=2.5"])) == described(load_recipe("demo"))
    for wrong in ("-1", ".inf", "cheap"):
        with pytest.raises(RecipeError, match="price"):
            load_recipe("demo", [f"price={wrong}"])
