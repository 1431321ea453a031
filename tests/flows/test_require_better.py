"""`publish.require_better`: what is not shown to be better is not published, unless somebody gives a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.gates import GatesConfig
from flows.plain import plain_steps
from flows.recipe import load_recipe
from flows.stages import must_be_better
from tasks.errors import GateFailed, RecipeError
from tasks.evaluation.metrics import ROWS_SCHEMA, metrics
from tasks.manifest import Manifest
from tasks.store import External, Store, Workspace
from tests.tasks.evaluation.test_metrics import made_rows


def judged(store: Store, **made: Any) -> Manifest:
    def build(work: Workspace) -> dict[str, int]:
        rows = made_rows(400, **made)
        (work.folder / "metrics.json").write_text(json.dumps(metrics(rows, beta=0.1, times=60, seed=42)))
        rows.select(ROWS_SCHEMA.names()).write_parquet(work.folder / "rows.parquet")
        return {"pairs": rows.height}

    return store.stage("evaluate", 1, made, {"x": External("0" * 64)}, build)


def test_a_model_that_learned_length_is_refused_and_one_that_learned_more_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(GateFailed) as refused:
        must_be_better(plain_steps(), store, judged(store, length_only=True), GatesConfig())
    said = str(refused.value)
    assert refused.value.status == 4
    for part in ("publish.require_better is true", "(at_equal_length_low)", "(beyond_length_low)", "publish.waiver"):
        assert part in said
    good = judged(store, skill=0.85)
    assert must_be_better(plain_steps(), store, good, GatesConfig()) is good


def test_what_it_lacks_can_be_waived_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    short = judged(store, length_only=True)
    names = ("over_start_low", "at_equal_length_low", "beyond_length_low", "start_gain_high", "hurt_benchmarks")
    gates = GatesConfig(waive={f"publishable.{name}": "a baseline of length" for name in names})
    assert must_be_better(plain_steps(), store, short, gates) is short
    with pytest.raises(GateFailed, match="beyond_length_low"):
        must_be_better(plain_steps(), store, short, GatesConfig(waive={f"publishable.{names[1]}": "one alone"}))


def test_a_waiver_needs_a_reason() -> None:
    assert not load_recipe("demo").publish.require_better
    with pytest.raises(RecipeError, match=r"publish\.waiver"):
        load_recipe("demo", ["publish.waiver='  '"])
    assert load_recipe("demo", ["publish.waiver=a baseline for the paper"]).publish.waiver == "a baseline for the paper"
