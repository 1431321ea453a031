"""What a sweep varies: `key=v1,v2` and `key=w1,w2` -> every combination, each a run with a name that stays the same."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import yaml

from flows.recipe import Recipe, load_recipe
from flows.runs import recipe_stem, refuse_bad_name
from tasks.errors import RecipeError
from tasks.manifest import digest_json

MAX_RUNS: Final = 200
_LONGEST: Final = 96  # characters of a run's name


@dataclass(frozen=True)
class Variation:
    """One run of a sweep."""

    name: str
    """SWEEP-KEY-VALUE..., the same whenever the same values are varied."""
    settings: dict[str, Any]
    """What is varied: key path to value."""
    overrides: list[str]
    """`key.path=value` as `--set` takes it: those of the whole sweep, then those of this run."""
    recipe: Recipe


def variations(recipe: str, overrides: Sequence[str], vary: Sequence[str], name: str | None) -> list[Variation]:
    """The product of the varied values, the last key fastest; RecipeError where one of them is no recipe."""
    if not vary:
        raise RecipeError("a sweep needs something to vary, such as --vary train.beta=0.05,0.1")
    axes = [varied(one) for one in vary]
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise RecipeError(f"--vary names {key} twice: give all of its values at once")
        if key == "work_dir":
            raise RecipeError("--vary work_dir: the runs of a sweep share one work_dir; give it with --set")
    combinations = [dict(zip(keys, values, strict=True)) for values in product(*(values for _, values in axes))]
    if len(combinations) > MAX_RUNS:
        raise RecipeError(f"the sweep would be {len(combinations):,} runs; at most {MAX_RUNS} are done at once")
    if name:
        refuse_bad_name(name)
    names = run_names(name or recipe_stem(recipe), combinations)
    found = []
    for run, settings in zip(names, combinations, strict=True):
        given = [*overrides, *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items())]
        found.append(Variation(run, settings, given, load_recipe(recipe, given)))
    return found


def sweep_file(recipe: str, name: str | None, work_dir: Path) -> Path:
    """Where a sweep is written down, for `prefstack sweep --json` and for whoever looks at one that was stopped."""
    return work_dir.absolute() / "sweeps" / f"{name or recipe_stem(recipe)}.json"


def empty_sweep(name: str) -> dict[str, Any]:
    """What is written down of a sweep in which nothing has happened yet."""
    return {"sweep": name, "runs": [], "comparison": None, "error": None}


def varied(text: str) -> tuple[str, list[Any]]:
    """`key.path=v1,v2` as key and values; the values are YAML, so a list is written `[a, b]`."""
    key, equals, listed = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--vary {text!r} must look like key.path=v1,v2, such as train.beta=0.05,0.1")
    try:
        values = yaml.safe_load(f"[{listed}]")
        written = [json.dumps(value, sort_keys=True, allow_nan=False) for value in values]
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise RecipeError(f"--vary {key}: {listed!r} is not a list of YAML values separated by commas") from error
    if not values:
        raise RecipeError(f"--vary {key}: there is no value")
    if len(set(written)) < len(written):
        raise RecipeError(f"--vary {key}: a value stands twice in {listed!r}")
    return key.strip(), values


def run_names(base: str, combinations: Sequence[dict[str, Any]]) -> list[str]:
    """A name a combination: the last step of each key and its value, a digest where that is too long or not unique."""
    names = [
        "-".join([base, *(f"{key.rpartition('.')[2]}-{_slug(value)}" for key, value in settings.items())])
        for settings in combinations
    ]
    if len(set(names)) == len(names) and max(map(len, names)) <= _LONGEST:
        return names
    return [f"{base[:80]}-{digest_json(settings)[:12]}" for settings in combinations]


def _slug(value: Any) -> str:
    """`value` in the letters that a run's name may have."""
    text = Path(value).name if isinstance(value, str) and "/" in value else str(value)
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "none"
