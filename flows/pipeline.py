"""The whole run as a Prefect flow: from a dump to a published model. Its parameters are its form in the UI."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from prefect import flow, runtime
from pydantic import Field

from flows.recipe import Stage, load_recipe
from flows.runs import Summary, follow, open_run, run_log, run_name, store_of
from flows.stages import all_stages
from flows.steps import prefect_steps

RecipeName = Annotated[str, Field(description="A built-in recipe (demo, site, ...) or the path of a YAML file.")]
Overrides = Annotated[list[str], Field(description="Settings to replace, such as sample.size=1000.")]
Force = Annotated[list[Stage], Field(description="Stages to build again even where they are finished.")]
Until = Annotated[Stage | None, Field(description="The last stage to do; empty = all.")]
Resume = Annotated[
    Literal["auto", "fresh"],
    Field(description="Whether training goes on from its last whole checkpoint."),
]
Name = Annotated[str | None, Field(description="Name of the run; empty = Prefect's.")]


@flow(name="pipeline")
def pipeline(
    recipe: RecipeName = "demo",
    overrides: Overrides = [],  # noqa: B006 (Prefect shows defaults in its form; nobody changes it)
    force: Force = [],  # noqa: B006
    until: Until = None,
    resume: Resume = "auto",
    name: Name = None,
) -> Summary:
    """Stack Exchange to a preference-tuned model: ingest, pair, dedupe, sample, tokenize, train, evaluate, publish."""
    return run_recipe(recipe, overrides, force, until, resume, name)


@flow(name="data")
def data(
    recipe: RecipeName = "demo",
    overrides: Overrides = [],  # noqa: B006
    force: Force = [],  # noqa: B006
    name: Name = None,
) -> Summary:
    """The data stages alone: dumps to train and held-out pairs."""
    return run_recipe(recipe, overrides, force, "sample", "auto", name)


@flow(name="training")
def training(
    recipe: RecipeName = "demo",
    overrides: Overrides = [],  # noqa: B006
    force: Force = [],  # noqa: B006
    until: Until = None,
    resume: Resume = "auto",
    name: Name = None,
) -> Summary:
    """Training, evaluation and publishing of data that `data` has made; what is finished is reused."""
    return run_recipe(recipe, overrides, force, until, resume, name)


def run_recipe(
    recipe: str,
    overrides: Sequence[str],
    force: Sequence[str],
    until: Stage | None,
    resume: str,
    name: str | None,
) -> Summary:
    """Follow the stages of a recipe inside a flow run."""
    settings = load_recipe(recipe, overrides if resume == "auto" else [*overrides, f"train.resume={resume}"])
    run = open_run(name or default_name(recipe), settings)
    store = store_of(settings, run.name, force)
    with run_log(run):
        return follow(run, all_stages(prefect_steps(), store, settings), until)


def default_name(recipe: str) -> str:
    """The flow run's own name, so that the folder and the UI agree, and a retry finds its folder again."""
    found: Any = runtime.flow_run.name
    return found or run_name(recipe)
