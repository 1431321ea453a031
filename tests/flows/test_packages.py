"""What a recipe asks for beyond the core is missed before anything is built."""

from pathlib import Path

import pytest

from flows import packages
from flows.packages import refuse_missing
from flows.pipeline import pipeline
from flows.recipe import load_recipe
from tasks.errors import RecipeError


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without optional packages."""
    monkeypatch.setattr(packages, "find_spec", lambda _: None)


@pytest.mark.parametrize(
    ("override", "until", "group"),
    [
        ("train.lora.rank=4", "train", "lora"),
        ("train.tensorboard=true", "publish", "tensorboard"),
        ("evaluate.benchmarks.tasks=[gsm8k]", "evaluate", "eval"),
    ],
)
def test_a_group_that_is_not_installed_is_named_with_the_key_that_wants_it(bare, override, until, group):
    with pytest.raises(RecipeError, match=rf"pip install 'prefstack\[{group}\]'") as refused:
        refuse_missing(load_recipe("demo", [override]), until)
    key = ".".join(override.partition("=")[0].split(".")[:2])
    assert str(refused.value).startswith(f"{key} asks for the package ") and refused.value.status == 2


def test_stages_that_are_not_done_want_nothing(bare):
    refuse_missing(load_recipe("demo", ["train.lora.rank=4"]), "reference")
    refuse_missing(load_recipe("demo", ["evaluate.benchmarks.tasks=[gsm8k]"]), "train")
    refuse_missing(load_recipe("demo"), "publish")


def test_a_run_without_peft_ends_before_its_first_stage(bare, tmp_path: Path):
    with pytest.raises(RecipeError, match=r"train\.lora asks for the package peft"):
        pipeline.fn("demo", [f"work_dir={tmp_path}", "train.lora.rank=4"], name="early")
    assert not (tmp_path / "store").exists()
