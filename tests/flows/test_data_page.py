"""docs/data.md: its commands are recipes that load, and its tables name every switch and every reason."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from flows.recipe import load_recipe
from tasks.pair import PairConfig
from tasks.pairing.excluded import read_excluded
from tasks.pairing.number_switches import NUMBER_REASONS
from tasks.pairing.text_switches import TEXT_REASONS
from tests.flows.conftest import ROOT

PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")
COMMANDS = [
    command
    for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    for command in block.replace("\\\n", "").splitlines()
]
OF_THE_RULE = {"rule", "max_pairs_per_question", "include_title"}  # no switch: every recipe has them


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_a_recipe_that_loads(command: str) -> None:
    words = shlex.split(command)
    assert words[:3] == ["prefstack", "run", "site"]
    overrides = [value for flag, value in pairwise(words) if flag == "--set"]
    assert overrides
    load_recipe("site", overrides)


def test_every_switch_and_every_reason_is_on_the_page() -> None:
    assert len(COMMANDS) >= 6
    missing = [name for name in PairConfig.model_fields if name not in OF_THE_RULE and f"{name}" not in PAGE]
    assert missing == []
    reasons = (*NUMBER_REASONS, *TEXT_REASONS)
    assert [reason for reason in reasons if not re.search(rf"[`.]{reason}`", PAGE)] == []


def test_the_takedown_list_of_the_page_can_be_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```\n(# takedown.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "takedown.txt").write_text(block, "utf-8")
    assert read_excluded(str(tmp_path / "takedown.txt")).names == {
        "beer.stackexchange.com/users/42", "beer.stackexchange.com/17", "beer.stackexchange.com/18",
        "tulu/0123456789abcdef",
    }  # fmt: skip
