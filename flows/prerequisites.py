"""What model, training and evaluation need beside the core, asked when the run starts and not when its data is made.

A model's name that names something, optional packages, tokens of judge and annotator, the files of local
tasks, the tool alpaca_eval. Only a stage that would be built needs them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Final, NamedTuple

from flows.plain import Steps, plain_steps
from flows.recipe import STAGES, Recipe, Stage
from flows.stages import all_stages
from tasks.benchmark import asks_alpaca_eval
from tasks.errors import PrefstackError, RecipeError
from tasks.evaluation.alpaca_tool import tool, tool_key
from tasks.evaluation.engine import refuse_missing_engine
from tasks.evaluation.examination import (
    refuse_missing_files,
    refuse_missing_folder,
    refuse_missing_group,
    refuse_unknown_tasks,
)
from tasks.evaluation.judge_client import judge_token
from tasks.evaluation.suite import benchmarks
from tasks.manifest import Manifest
from tasks.model import named_model
from tasks.store import Report, Silent, Store

Check = tuple[str, Callable[[], object]]
FIRST: Final[Stage] = "train"
"""The first stage that anything here is asked for."""


class Unmet(NamedTuple):
    """Something that is missing on this host, and the stage that would end for want of it."""

    stage: str
    error: PrefstackError


def refuse_unmet(store: Store, recipe: Recipe, until: Stage) -> None:
    """Raise what would end the run later: RecipeError, or Surroundings where a token is not set."""
    for missing in unmet(store, recipe, until):
        raise missing.error


def unmet(store: Store, recipe: Recipe, until: Stage = "publish") -> Iterator[Unmet]:
    """What the run up to `until` would miss on this host, the quickest to find first."""
    if STAGES.index(until) >= STAGES.index("model"):
        try:
            named_model(recipe.model)
        except RecipeError as error:
            yield Unmet("model", error)
    if STAGES.index(until) < STAGES.index(FIRST):
        return
    evaluates = STAGES.index(until) >= STAGES.index("evaluate")
    needing: set[str] | None = None
    for stage, check in _checks(recipe):
        if stage != FIRST and not evaluates:
            continue
        try:
            check()
        except PrefstackError as error:
            # To know what would be built takes a look at everything: only where it matters.
            needing = would_be_built(store, recipe) if needing is None else needing
            if stage in needing:
                yield Unmet(stage, error)


def tell_unmet(report: Report, store: Store, recipe: Recipe, until: Stage) -> None:
    """Say what is missing here, where another worker trains and evaluates: it may have what this host has not."""
    for missing in unmet(store, recipe, until):
        report.message(missing.stage, f"the worker that does this needs what is missing here: {missing.error}")


def _checks(recipe: Recipe) -> Iterator[Check]:
    """What each stage needs, the quickest first."""
    if recipe.train.lora is not None:
        yield FIRST, lambda: _refuse_missing_package("train.lora", "peft", "lora")
    if recipe.train.tensorboard:
        yield FIRST, lambda: _refuse_missing_package("train.tensorboard", "tensorboard", "tensorboard")
    generated, examined = recipe.evaluate.generate, recipe.evaluate.benchmarks
    if generated is not None:
        yield "generate", lambda: refuse_missing_engine(generated.engine)
        if generated.judge is not None and generated.judge.key_env is not None:
            name = generated.judge.key_env
            yield "judge", lambda: judge_token(name)
    if examined is not None:
        asked, folder = [one for one in benchmarks(examined.tasks) if not one.tool], examined.include_path
        refuse_missing_folder(folder)  # without it nothing finished is known again either
        if asked:
            yield "benchmark", lambda: refuse_missing_files(asked, folder)
            yield "benchmark", lambda: refuse_missing_group(asked)
            yield "benchmark", lambda: refuse_unknown_tasks(asked, folder)
        if asks_alpaca_eval(examined):
            alpaca = examined.alpaca_eval
            yield "outputs", lambda: refuse_missing_engine(alpaca.engine)
            yield "alpaca_eval", lambda: tool_key(alpaca.key_env)
            yield "alpaca_eval", lambda: tool(alpaca.command)


def _refuse_missing_package(key: str, package: str, group: str) -> None:
    if find_spec(package) is None:
        raise RecipeError(f"{key} needs {package}, not installed here: pip install 'prefstack[{group}]'")


def would_be_built(store: Store, recipe: Recipe) -> set[str]:
    """Which of the stages that need something are not to be reused; none where the run ends before them."""
    found: set[str] = set()
    plain = plain_steps()

    def noted(name: str, step: Callable[..., Manifest]) -> Callable[..., Manifest]:
        def asked(*given: object) -> Manifest:
            manifest = step(*given)
            if manifest.planned:
                found.add(name)
            return manifest

        return asked

    steps: Steps = replace(
        plain, train=noted("train", plain.train), generate=noted("generate", plain.generate),
        judge=noted("judge", plain.judge), benchmark=noted("benchmark", plain.benchmark),
        outputs=noted("outputs", plain.outputs), alpaca_eval=noted("alpaca_eval", plain.alpaca_eval),
    )  # fmt: skip
    try:
        for _ in all_stages(steps, replace(store, plan=True, report=Silent()), recipe):
            pass
    except PrefstackError:  # the run will say so itself, and at which stage
        return set()
    return found
