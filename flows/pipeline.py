"""The whole run as a Prefect flow: from a dump to a published model. Its parameters are its form in the UI."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import publish_cost
from flows.handover import TRAINING, Handover, train_elsewhere, training_deployment, unfinished
from flows.hooks import write_cancelled, write_crashed
from flows.prerequisites import refuse_unmet, tell_unmet
from flows.recipe import Recipe, Stage, load_recipe
from flows.report import FlowReport, current_report, reporting
from flows.resumes import end_with_worker, only_attempt, refuse_endless_resumes
from flows.runs import follow, open_run, run_log, run_name, store_of, written_down
from flows.stages import all_stages
from flows.steps import prefect_steps
from flows.summaries import Summary
from tasks.errors import Surroundings
from tasks.manifest import Manifest
from tasks.store import Store

Resume = Literal["auto", "fresh"]

# Types without None: the form asks for the type before the value. What it says of a field is read from the docstring.


@flow(name="pipeline", on_cancellation=[write_cancelled], on_crashed=[write_crashed])
def pipeline(
    recipe: str = "demo",
    overrides: list[str] = [],  # noqa: B006 (Prefect shows defaults in its form; nobody changes it)
    force: list[Stage] = [],  # noqa: B006
    until: Stage = "publish",
    resume: Resume = "auto",
    name: str = "",
) -> Summary:
    """Stack Exchange to a preference-tuned model: ingest, pair, dedupe, sample, tokenize, train, evaluate, publish.

    Args:
        recipe: A built-in recipe (demo, site, ...) or the path of a YAML file.
        overrides: Settings to replace, one an item, such as sample.size=1000.
        force: Stages to build again even where they are finished.
        until: The last stage to do; publish is the end.
        resume: auto goes on from the last whole checkpoint of training, fresh begins anew.
        name: Name of the run's folder; empty = the name of the flow run.
    """
    return run_recipe(recipe, overrides, force, until, resume, name, hand_over=True)


@flow(name="data", on_cancellation=[write_cancelled], on_crashed=[write_crashed])
def data(
    recipe: str = "demo",
    overrides: list[str] = [],  # noqa: B006
    force: list[Stage] = [],  # noqa: B006
    name: str = "",
) -> Summary:
    """The data stages alone: dumps to train and held-out pairs.

    Args:
        recipe: A built-in recipe (demo, site, ...) or the path of a YAML file.
        overrides: Settings to replace, one an item, such as sample.size=1000.
        force: Stages to build again even where they are finished.
        name: Name of the run's folder; empty = the name of the flow run.
    """
    return run_recipe(recipe, overrides, force, "sample", "auto", name)


@flow(name="training", on_cancellation=[write_cancelled], on_crashed=[write_crashed])
def training(
    recipe: str = "demo",
    overrides: list[str] = [],  # noqa: B006
    force: list[Stage] = [],  # noqa: B006
    until: Stage = "publish",
    resume: Resume = "auto",
    name: str = "",
) -> Summary:
    """Training, evaluation and publishing of data that `data` has made; what is finished is reused.

    Args:
        recipe: A built-in recipe (demo, site, ...) or the path of a YAML file.
        overrides: Settings to replace, one an item, such as train.beta=0.2.
        force: Stages to build again even where they are finished.
        until: The last stage to do; publish is the end.
        resume: auto goes on from the last whole checkpoint of training, fresh begins anew.
        name: Name of the run's folder; empty = the name of the flow run.
    """
    return run_recipe(recipe, overrides, force, until, resume, name)


def run_recipe(
    recipe: str,
    overrides: Sequence[str],
    force: Sequence[Stage],
    until: Stage,
    resume: str,
    name: str,
    *,
    hand_over: bool = False,
) -> Summary:
    """Follow the stages of a recipe inside a flow run; `hand_over` lets a training deployment do its part."""
    end_with_worker()
    settings = load_recipe(recipe, overrides if resume == "auto" else [*overrides, f"train.resume={resume}"])
    run = open_run(name or default_name(recipe), settings)
    store = store_of(settings, run.name, force)
    # The tasks of `store` report to the log of Prefect by themselves.
    with run_log(run), reporting(FlowReport(current_report())), only_attempt(run.folder):
        with written_down(run):
            refuse_endless_resumes()
            training = training_deployment() if hand_over else None
            if training is None:
                refuse_unmet(store, settings, until)
            else:  # the worker that trains and evaluates may have what is missing here
                tell_unmet(current_report(), store, settings, until)
        handing_over = None
        if training is not None:
            ours = [stage for stage in force if stage in TRAINING]
            wanted = Handover(training, recipe, overrides, ours, until, resume, run.name)
            handing_over = partial(hand_over_to, wanted, store)
        try:
            return follow(run, all_stages(prefect_steps(), store, settings, handing_over), until)
        finally:
            publish_cost(run.folder, settings.price)


def hand_over_to(
    wanted: Handover, store: Store, settings: Recipe, sources: Sequence[Manifest], data: dict[str, Manifest]
) -> Store:
    """Have the training deployment do what is not finished, and give the store in which all of it then is."""
    from_store = replace(store, force=frozenset())
    if wanted.force or unfinished(from_store, settings, sources, data, wanted.until):
        training_run(wanted, store.work_dir)
        if missing := unfinished(from_store, settings, sources, data, wanted.until):
            raise Surroundings(
                f"{wanted.name} is done, and {missing[0]} is not in {store.work_dir / 'store'}: workers of all pools "
                "must share one work_dir"
            )
    return from_store


@task(name="training-run", cache_policy=NO_CACHE, persist_result=False)
def training_run(wanted: Handover, work_dir: Path) -> str:
    """Training, evaluation and publishing on a worker of the training pool, as a run of its own."""
    return train_elsewhere(wanted, work_dir)


def default_name(recipe: str) -> str:
    """The flow run's own name, so that the folder and the UI agree, and a retry finds its folder again."""
    found: Any = runtime.flow_run.name
    return found or run_name(recipe)
