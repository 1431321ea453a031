"""The recipe: every setting of a run, one frozen model a stage, read from YAML.

A recipe is the name of a built-in one (flows/recipes/NAME.yaml) or a path. `--set key.path=value` replaces a value;
lists replace lists. Unknown keys are refused with the nearest known one.
"""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.gates import GatesConfig
from flows.summaries import one_line
from tasks.dedupe import DedupeConfig
from tasks.errors import RecipeError
from tasks.evaluate import EvaluateConfig
from tasks.ingest import IngestConfig, SourceConfig
from tasks.pair import PairConfig
from tasks.publish import PublishConfig
from tasks.reference import ReferenceConfig
from tasks.sample import SampleConfig
from tasks.tokenize import TokenizeConfig
from tasks.train import TrainConfig

Stage = Literal[
    "ingest", "pair", "dedupe", "sample", "model", "tokenize", "reference", "train", "evaluate", "publish"
]  # fmt: skip
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
_REPR: Final = reprlib.Repr()  # aliases can make a list of ten lines that is gigabytes when it is written out
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, 80, 80, 80
BUILT_IN: Final = Path(__file__).parent / "recipes"


class Recipe(BaseModel):
    """All settings of a run. Defaults are those of Tulu V2.5 DPO 13B, StackExchange 60k."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = Field(min_length=1)
    """Start and reference: a built-in name, a folder, or a hub id with revision (`org/name@commit`)."""
    work_dir: Path = Path("runs")
    """Where the store and the runs live; relative to the working directory. Never part of a fingerprint."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Names every draw: cap, held-out, sample, order of training."""
    sample_seed: int | None = Field(None, ge=0, lt=2**63)
    """Names the draw of the train pairs alone; null = `seed`. Runs that differ in it are judged by the same pairs."""
    training_seed: int | None = Field(None, ge=0, lt=2**63)
    """Names the order of training alone; null = `seed`. Runs that differ in it share all that comes before."""
    price: float | None = Field(None, ge=0, allow_inf_nan=False)
    """What one device costs an hour, in a currency of your own; null = no costs are shown. Never part of a
    fingerprint, and in no card."""
    ingest: IngestConfig
    pair: PairConfig = PairConfig()
    dedupe: DedupeConfig = DedupeConfig()
    sample: SampleConfig = SampleConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    reference: ReferenceConfig = ReferenceConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    publish: PublishConfig = PublishConfig()
    gates: GatesConfig = GatesConfig()

    @model_validator(mode="after")
    def _one_precision(self) -> "Recipe":
        if self.reference.precision not in (None, self.train.precision):
            raise ValueError(
                f"reference.precision is {self.reference.precision} and train.precision is {self.train.precision}: "
                "a reference scored in another precision makes false margins; leave reference.precision null"
            )
        return self


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe named or at the path `recipe`, with `key.path=value` overrides; RecipeError says what is wrong."""
    settings = _read(recipe)
    for override in overrides:
        _override(settings, override)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(_explain(error, settings)) from error


def stage_named(name: str) -> Stage:
    """The stage called `name`, or RecipeError with the nearest one."""
    for stage in STAGES:
        if stage == name:
            return stage
    raise RecipeError(f"there is no stage {name!r}{_nearest(name, STAGES)}; stages: {', '.join(STAGES)}")


def built_in_recipes() -> list[str]:
    """Names of the recipes that come with prefstack."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def _read(recipe: str) -> dict[str, Any]:
    path = BUILT_IN / f"{recipe}.yaml"
    if recipe not in built_in_recipes():
        path = Path(recipe)
        if not path.is_file():
            near = _nearest(recipe, built_in_recipes())
            raise RecipeError(
                f"recipe {recipe!r} is neither a file nor built in{near}; built in: {', '.join(built_in_recipes())}"
            )
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"recipe {path} is not YAML: {one_line(error)}") from error
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise RecipeError(f"recipe {path} must be a mapping of keys to settings, such as `sample: {{size: 60000}}`")
    return settings


class _UniqueKeys(yaml.SafeLoader):
    """A key that stands twice is a mistake, not an override."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no key of a recipe; PyYAML says so
            if key.value in seen:
                raise yaml.YAMLError(
                    f"key {key.value!r} stands twice, the second time in line {key.start_mark.line + 1}"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _override(settings: dict[str, Any], override: str) -> None:
    """Put `key.path=value` (YAML) into `settings`."""
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise RecipeError(f"--set {override!r} must look like key.path=value, such as sample.size=1000")
    try:
        value = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"--set {key}: {_short(text)} is not YAML: {one_line(error)}") from error
    here = settings
    for depth, step in enumerate(steps[:-1]):
        known = _keys_at(steps[:depth])
        if known is not None and step not in known:
            raise RecipeError(_unknown(steps[: depth + 1], known))
        if known is None or (here.get(step) is not None and not isinstance(here[step], dict)):
            raise RecipeError(f"--set {key}: {'.'.join(steps[: depth + 1])} has no keys below it")
        if here.get(step) is None:
            here[step] = {}
        here = here[step]
    known = _keys_at(steps[:-1])
    if known is None:
        raise RecipeError(f"--set {key}: {'.'.join(steps[:-1])} has no keys below it")
    if steps[-1] not in known:
        raise RecipeError(_unknown(steps, known))
    here[steps[-1]] = value


def _keys_at(steps: Sequence[str]) -> list[str] | None:
    """The keys that a recipe may have at `steps`; None where no keys belong."""
    model: type[BaseModel] = Recipe
    for step in steps:
        if step == "sources" and model in (IngestConfig, EvaluateConfig):
            model = SourceConfig
            break
        field = model.model_fields.get(step)
        below = None if field is None else _section(field.annotation)
        if below is None:
            return None
        model = below
    return list(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model of a key that has keys below it, or that may be null instead."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _unknown(steps: Sequence[str], known: Sequence[str]) -> str:
    prefix = ".".join(steps[:-1])
    near = _nearest(steps[-1], known, prefix)
    allowed = "" if near else f"; known {'below ' + prefix if prefix else 'here'}: {', '.join(known)}"
    return f"recipe key {'.'.join(steps)!r} is not known{near}{allowed}"


def _nearest(word: str, known: Sequence[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not close:
        return ""
    return f"; did you mean {prefix + '.' + close[0] if prefix else close[0]!r}?"


def _explain(error: ValidationError, settings: Mapping[str, Any]) -> str:
    """One sentence for the first thing that is wrong, and how many more there are."""
    faults = error.errors(include_url=False)
    # Unknown keys first: a misspelt key is the cause of the missing one.
    faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    steps = [str(step) for step in fault["loc"]]
    where = ".".join(steps)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = _keys_at(steps[:-1]) or []
        return _unknown(steps, known) + more
    if fault["type"] == "missing":
        return f"recipe key {where!r} is missing{more}"
    said = fault["msg"].removeprefix("Value error, ")
    if not where:
        return f"{said}{more}"
    said = "it " + said.removeprefix("Input ") if said.startswith("Input ") else said[:1].lower() + said[1:]
    return f"recipe key {where!r} is {_short(fault.get('input'))}: {said}{more}"


def _short(value: object) -> str:
    text = _REPR.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
