"""docs/results.md: its commands are accepted, and its numbers are in metrics.json."""

import re
import shlex
from itertools import pairwise

import pytest
from typer.main import get_command

from flows.cli import app
from flows.recipe import load_recipe
from flows.variations import variations
from tasks.evaluation.metrics import metrics
from tests.flows.conftest import ROOT
from tests.tasks.evaluation.test_metrics import made_rows

PAGE = (ROOT / "docs" / "results.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]


def values(words: list[str], wanted: str) -> list[str]:
    return [value for flag, value in pairwise(words) if flag == wanted]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_parsed_and_its_settings_load(command: str) -> None:
    program, name, recipe, *rest = shlex.split(command)
    assert program == "prefstack"
    get_command(app).commands[name].make_context(name, [recipe, *rest])  # type: ignore[attr-defined]
    if name == "run":
        load_recipe(recipe, values(rest, "--set"))
    if name == "sweep":
        variations(recipe, [], values(rest, "--vary"), None)


def test_the_runs_that_the_page_compares_are_those_of_its_sweep() -> None:
    sweep, compare = (next(one for one in COMMANDS if f" {name} " in one) for name in ("sweep", "compare"))
    names = {one.name for one in variations("demo", [], values(shlex.split(sweep), "--vary"), None)}
    assert set(shlex.split(compare)[2:]) < names


def test_the_numbers_of_the_page_are_in_metrics_json() -> None:
    found = metrics(made_rows(20), beta=0.1, times=10, seed=42)
    named = re.findall(r"^\| [^|]+ \| `([a-z_.]+)`:", PAGE, flags=re.MULTILINE)
    assert len(named) == 6
    for path in named:
        here = found if path != "benchmarks" else {"benchmarks": []}  # there where benchmarks were run
        for step in path.split("."):
            here = here[step]
