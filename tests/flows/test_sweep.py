"""A sweep as a user has it: shared stages built once, a failing run beside good ones, and the comparison."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from flows.handover import pool_of
from flows.hooks import write_cancelled
from flows.sweep import sweep
from tests.flows.conftest import Shell


def built(run: dict[str, Any]) -> list[str]:
    return [stage for stage, entry in run["stages"].items() if not entry["reused"]]


def test_runs_share_what_they_share_and_one_that_fails_does_not_lose_the_others(
    served: Shell, tiny_recipe: Path
) -> None:
    # Sixteen train pairs do not fill a batch of 64: that run fails in training, in the middle.
    asked = ["sweep", str(tiny_recipe), "--vary", "train.batch_size=4,64,8"]
    done = served.run(*asked, "--json")
    assert done.status == 2, done.err[-3000:]
    assert "Traceback" not in done.err
    answer = json.loads(done.out)
    assert [run["run"] for run in answer["runs"]] == ["tiny-batch_size-4", "tiny-batch_size-64", "tiny-batch_size-8"]
    first, failed, last = answer["runs"]
    assert built(first) == list(first["stages"])
    assert built(last) == ["train", "evaluate", "publish"]
    assert (failed["error"]["stage"], failed["error"]["status"]) == ("train", 2)
    assert first["error"] is None and last["error"] is None
    assert (
        answer["error"]["kind"] == "recipe" and "1 of 3 runs failed (tiny-batch_size-64)" in answer["error"]["message"]
    )
    compared = answer["comparison"]
    assert [run["settings"] for run in compared["runs"]] == [{"train.batch_size": 4}, {"train.batch_size": 8}]
    assert compared["paired"]["pairs"] == first["metrics"]["pairs"] == 8
    assert Path(compared["page"]).is_file()

    # Again, without the one that fails: nothing is built, and what a person reads has every run and the comparison.
    again = served.run("sweep", str(tiny_recipe), "--vary", "train.batch_size=4,8")
    assert again.status == 0, again.err[-3000:]
    assert again.out.count("nothing") == 2
    assert "against tiny-batch_size-4, on 8 shared pairs" in again.out
    written = json.loads((served.folder / "work" / "sweeps" / "tiny.json").read_text())
    assert [built(run) for run in written["runs"]] == [[], []]


def test_a_sweep_that_is_no_sweep_is_refused_before_anything_starts(shell: Shell, tiny_recipe: Path) -> None:
    done = shell.run("sweep", str(tiny_recipe), "--vary", "train.bta=0.1,0.2", "--json")
    assert done.status == 2
    assert "did you mean 'train.beta'" in json.loads(done.out)["error"]["message"]
    assert not (shell.folder / "work").exists()


def test_a_run_inside_a_sweep_trains_on_the_slot_that_the_sweep_holds() -> None:
    """Handed over to its own pool, its training would wait for a slot for ever."""
    outer, step, inner = uuid4(), uuid4(), uuid4()
    runs = {
        outer: SimpleNamespace(work_pool_name="gpu", parent_task_run_id=None),
        inner: SimpleNamespace(work_pool_name=None, parent_task_run_id=step),
    }
    client: Any = SimpleNamespace(
        read_flow_run=runs.__getitem__, read_task_run=lambda found: SimpleNamespace(flow_run_id={step: outer}[found])
    )
    assert pool_of(client, str(inner)) == pool_of(client, outer) == "gpu"
    runs[outer].work_pool_name = None  # run by hand: no worker, no pool
    assert pool_of(client, inner) is None


def test_a_sweep_that_was_cancelled_is_marked_and_no_run_of_its_name(tmp_path: Path) -> None:
    parameters = {"recipe": "demo", "vary": ["seed=1,2"], "overrides": [f"work_dir={tmp_path}"], "name": "trial"}
    written = {"sweep": "trial", "runs": [{"run": "trial-seed-1"}], "comparison": None, "error": None}
    (tmp_path / "runs" / "trial").mkdir(parents=True)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "trial.json").write_text(json.dumps(written))
    run: Any = SimpleNamespace(id=uuid4(), parameters=parameters, name="trial")
    state: Any = SimpleNamespace(message="cancelled by hand")
    write_cancelled(sweep, run, state)
    found = json.loads((tmp_path / "sweeps" / "trial.json").read_text())
    assert found["runs"] == written["runs"]
    assert (found["error"]["kind"], found["error"]["message"]) == ("interrupted", "cancelled by hand")
    assert list((tmp_path / "runs" / "trial").iterdir()) == []
