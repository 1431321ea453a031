"""The flow in this process, under Prefect's own test harness."""

from pathlib import Path
from typing import Any

import pytest
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness

from flows.pipeline import data
from tasks.errors import RecipeError


def test_the_data_flow_gives_its_summary_and_finds_everything_the_second_time(tmp_path: Path) -> None:
    overrides = [f"work_dir={tmp_path / 'work'}"]
    with prefect_test_harness(server_startup_timeout=120):
        first = data(recipe="demo", overrides=overrides, name="first")
        second = data(recipe="demo", overrides=overrides, name="second")
        with pytest.raises(RecipeError, match=r"sample\.size"):
            data(recipe="demo", overrides=[*overrides, "sample.size=5000"], name="too-much")
        card: Any = Artifact.get("data-card")
    assert list(first["stages"]) == ["ingest", "pair", "dedupe", "sample"]
    assert [entry["reused"] for entry in second["stages"].values()] == [True] * 4
    assert first["stages"]["sample"]["counts"]["train"] == 96
    assert (tmp_path / "work" / "runs" / "second" / "stages" / "sample").resolve().name.startswith("sample-")
    assert "| training pairs drawn | 96 |" in card.data
