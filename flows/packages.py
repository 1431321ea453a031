"""Optional packages that a recipe asks for: a missing one is told before anything is built, not when ranks start."""

from importlib.util import find_spec
from typing import Final

from flows.recipe import STAGES, Recipe, Stage
from tasks.errors import RecipeError

# Stage that wants it, key of the recipe, package, and the group of this project that brings it.
_GROUPS: Final[tuple[tuple[Stage, str, str, str], ...]] = (
    ("train", "train.lora", "peft", "lora"),
    ("train", "train.tensorboard", "tensorboard", "tensorboard"),
    ("evaluate", "evaluate.benchmarks", "lm_eval", "eval"),
)


def refuse_missing(recipe: Recipe, until: Stage) -> None:
    """Raise RecipeError for the first package that a stage up to `until` wants and that is not installed."""
    for stage, key, package, group in _GROUPS:
        section, _, name = key.partition(".")
        wanted = getattr(getattr(recipe, section), name) and STAGES.index(stage) <= STAGES.index(until)
        if wanted and find_spec(package) is None:
            raise RecipeError(
                f"{key} asks for the package {package}, which is not installed: pip install 'prefstack[{group}]'"
            )
