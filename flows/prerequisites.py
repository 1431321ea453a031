"""What the evaluation of a recipe needs beside a model, asked when the run starts and not when the model is trained.

The token of the judge, lm-eval and the files of its tasks, vLLM. Only a stage that would be built needs them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from flows.recipe import STAGES, Recipe, Stage
from flows.stages import Steps, all_stages, plain_steps
from tasks.errors import PrefstackError
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
from tasks.store import Silent, Store

Check = tuple[str, Callable[[], object]]


def refuse_unmet(store: Store, recipe: Recipe, until: Stage) -> None:
    """Raise what would end the evaluation later: RecipeError, or Surroundings where a token is not set."""
    if STAGES.index(until) < STAGES.index("evaluate"):
        return
    needing: set[str] | None = None
    for stage, check in _checks(recipe):
        try:
            check()
        except PrefstackError:
            # To know what would be built takes a look at everything: only where it matters.
            needing = would_be_built(store, recipe) if needing is None else needing
            if stage in needing:
                raise


def _checks(recipe: Recipe) -> Iterator[Check]:
    """What each stage of the evaluation needs, the quickest first."""
    generated, examined = recipe.evaluate.generate, recipe.evaluate.benchmarks
    if generated is not None:
        yield "generate", lambda: refuse_missing_engine(generated.engine)
        if generated.judge is not None and generated.judge.key_env is not None:
            name = generated.judge.key_env
            yield "judge", lambda: judge_token(name)
    if examined is not None:
        asked, folder = benchmarks(examined.tasks), examined.include_path
        refuse_missing_folder(folder)  # without it nothing finished is known again either
        yield "benchmark", lambda: refuse_missing_files(asked, folder)
        yield "benchmark", lambda: refuse_missing_group(asked)
        yield "benchmark", lambda: refuse_unknown_tasks(asked, folder)


def would_be_built(store: Store, recipe: Recipe) -> set[str]:
    """Which of `generate`, `judge` and `benchmark` are not to be reused; none where the run ends before them."""
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
        plain, generate=noted("generate", plain.generate), judge=noted("judge", plain.judge),
        benchmark=noted("benchmark", plain.benchmark),
    )  # fmt: skip
    try:
        for _ in all_stages(steps, replace(store, plan=True, report=Silent()), recipe):
            pass
    except PrefstackError:  # the run will say so itself, and at which stage
        return set()
    return found
