"""docs/training.md: its commands are recipes that load, and it names every setting and every kind of failure."""

import re
import shlex
from itertools import pairwise
from typing import get_args

import pytest

from flows.recipe import load_recipe
from tests.flows.conftest import ROOT
from training.config import TrainConfig
from training.status import TRANSIENT, FailureKind

PAGE = (ROOT / "docs" / "training.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_a_recipe_that_loads(command: str) -> None:
    words = shlex.split(command)
    assert words[:3] == ["prefstack", "run", "site"]
    overrides = [value for flag, value in pairwise(words) if flag == "--set"]
    assert overrides
    assert load_recipe("site", overrides).train != load_recipe("site").train


def test_every_setting_is_on_the_page() -> None:
    assert len(COMMANDS) >= 6
    assert [name for name in TrainConfig.model_fields if not re.search(rf"\b{name}\b", PAGE)] == []


def test_every_kind_of_failure_is_on_the_page_with_whether_it_is_tried_again() -> None:
    rows = re.findall(r"^\| (`.*?) \| .* \| (yes|no) \|$", PAGE, flags=re.MULTILINE)
    told = {kind: again == "yes" for kinds, again in rows for kind in re.findall(r"`(\w+)`", kinds)}
    assert told == {kind: kind in TRANSIENT for kind in get_args(FailureKind)}
