"""A sweep as a Prefect flow: one run a combination of settings, what they share built once, a comparison at the end.

out  WORK_DIR/sweeps/NAME.json   what `prefstack sweep --json` prints, written again after every run
     WORK_DIR/runs/NAME-KEY-VALUE/, WORK_DIR/comparisons/...

The runs follow each other: the store gives each what an earlier one has built. One that fails is written down, and the
next begins.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import publish_comparison
from flows.compare import compared
from flows.handover import error_of_kind
from flows.hooks import write_cancelled, write_crashed
from flows.pipeline import pipeline
from flows.report import FlowReport, current_report, reporting
from flows.resumes import end_with_worker, refuse_endless_resumes
from flows.summaries import Summary, empty_summary, failure, typed
from flows.variations import Variation, empty_sweep, sweep_file, variations
from tasks.errors import PrefstackError
from tasks.folders import write_text


@flow(name="sweep", on_cancellation=[write_cancelled], on_crashed=[write_crashed])
def sweep(
    recipe: str = "demo",
    vary: list[str] = [],  # noqa: B006 (Prefect shows defaults in its form; nobody changes it)
    overrides: list[str] = [],  # noqa: B006
    name: str = "",
) -> Summary:
    """One run a combination of varied settings, sharing every stage that they share, and a comparison of them all.

    Args:
        recipe: A built-in recipe (demo, site, ...) or the path of a YAML file.
        vary: Settings to vary, one an item, such as train.beta=0.05,0.1; their product is run.
        overrides: Settings to replace, one an item, such as sample.size=1000.
        name: Name of the sweep; empty = the recipe's.
    """
    end_with_worker()
    refuse_endless_resumes()  # its runs are inside it, and have no attempts of their own that could be counted
    wanted = variations(recipe, overrides, vary, name)
    with reporting(FlowReport(current_report())):
        return do_runs(recipe, wanted, sweep_file(recipe, name, wanted[0].recipe.work_dir))


def do_runs(recipe: str, wanted: Sequence[Variation], path: Path) -> Summary:
    """The runs one after the other, written down in `path`; raises what the first of them failed of, at the end."""
    answer: Summary = empty_sweep(path.stem)
    write_down(answer, path)
    for position, one in enumerate(wanted):
        current_report().message("sweep", f"run {position + 1} of {len(wanted)}: {one.name}")
        answer["runs"].append({**one_run(recipe, one), "settings": one.settings})
        write_down(answer, path)
    answer["comparison"] = comparison(answer["runs"], wanted[0].recipe.work_dir.absolute())
    error = failed(answer["runs"])
    if error is not None:
        answer["error"] = failure(error, None)
    write_down(answer, path)
    if error is not None:
        raise error
    return answer


def write_down(answer: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(answer, indent=1, ensure_ascii=False) + "\n")


def one_run(recipe: str, one: Variation) -> Summary:
    """The summary of one run, done or failed."""
    try:
        summary: Any = pipeline.with_options(flow_run_name=one.name)(
            recipe=recipe, overrides=one.overrides, name=one.name
        )
        return dict(summary)
    except Exception as error:
        said = error if isinstance(error, PrefstackError) else typed(error)
        current_report().message("sweep", f"{one.name} failed, the next goes on: {said}")
        return _written(one) | {"error": failure(said, _stage_of(one))}


def _written(one: Variation) -> Summary:
    path = one.recipe.work_dir.absolute() / "runs" / one.name / "summary.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return empty_summary(one.name)


def _stage_of(one: Variation) -> Any:
    return (_written(one)["error"] or {}).get("stage")


def comparison(runs: Sequence[Summary], work_dir: Path) -> dict[str, Any] | None:
    """The comparison of all runs that were evaluated, published as an artifact; None where there are not two."""
    judged = [run["run"] for run in runs if run["metrics"] and run["metrics"].get("accuracy") is not None]
    if len(judged) < 2:
        current_report().message("sweep", f"{len(judged)} of {len(runs)} runs were evaluated: nothing to compare")
        return None
    found, answer = compared(judged, work_dir)
    publish_comparison(found, answer)
    return answer


def failed(runs: Sequence[Summary]) -> PrefstackError | None:
    """What the sweep ends with where runs have failed: an error of the kind of the first."""
    wrong = [run for run in runs if run["error"]]
    if not wrong:
        return None
    first = wrong[0]["error"]
    return error_of_kind(
        first["kind"],
        f"{len(wrong)} of {len(runs)} runs failed ({', '.join(run['run'] for run in wrong)}); the first at "
        f"{first['stage']}: {first['message']}",
        first["status"],
    )
