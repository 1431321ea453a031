"""What a sweep varies: values as YAML, every combination once, names that stay the same."""

import re
from pathlib import Path

import pytest

from flows.plain import plain_steps
from flows.recipe import STAGES, load_recipe
from flows.runs import run_name
from flows.stages import all_stages
from flows.sweep import failed
from flows.variations import MAX_RUNS, run_names, variations, varied
from tasks.errors import RecipeError
from tasks.store import Store


def test_values_are_yaml_and_a_value_may_be_a_list() -> None:
    assert varied("seed=1,2, 3") == ("seed", [1, 2, 3])
    assert varied("sample.size=null,1000") == ("sample.size", [None, 1000])
    assert varied("train.adam_betas=[0.9, 0.95],[0.9, 0.999]") == ("train.adam_betas", [[0.9, 0.95], [0.9, 0.999]])
    assert varied("ingest.sources=[{path: a.7z}]") == ("ingest.sources", [[{"path": "a.7z"}]])


def test_the_product_is_run_with_the_last_key_fastest() -> None:
    found = variations("demo", ["sample.size=32"], ["seed=1,2", "train.beta=0.05,0.5"], None)
    assert [one.settings for one in found] == [
        {"seed": 1, "train.beta": 0.05}, {"seed": 1, "train.beta": 0.5},
        {"seed": 2, "train.beta": 0.05}, {"seed": 2, "train.beta": 0.5},
    ]  # fmt: skip
    assert [one.name for one in found] == [
        "demo-seed-1-beta-0.05", "demo-seed-1-beta-0.5", "demo-seed-2-beta-0.05", "demo-seed-2-beta-0.5",
    ]  # fmt: skip
    assert [(one.recipe.seed, one.recipe.train.beta, one.recipe.sample.size) for one in found] == [
        (1, 0.05, 32), (1, 0.5, 32), (2, 0.05, 32), (2, 0.5, 32),
    ]  # fmt: skip
    assert found[0].overrides == ["sample.size=32", "seed=1", "train.beta=0.05"]


def test_numbers_that_yaml_takes_for_words_are_still_numbers() -> None:
    (first, second) = variations("demo", [], ["train.learning_rate=1e-5,2e-5"], "lr")
    assert (first.recipe.train.learning_rate, second.recipe.train.learning_rate) == (1e-5, 2e-5)
    assert first.name == "lr-learning_rate-1e-5"


def test_names_that_would_be_long_or_alike_get_a_digest() -> None:
    alike = run_names("demo", [{"model": "a/b c"}, {"model": "x/b-c"}])
    assert len(set(alike)) == 2 and all(re.fullmatch(r"demo-[0-9a-f]{12}", name) for name in alike)
    (long,) = run_names("demo", [{"model": "m" * 120}])
    assert re.fullmatch(r"demo-[0-9a-f]{12}", long)
    assert run_names("demo", [{"sample.size": None}, {"sample.size": -1}]) == ["demo-size-None", "demo-size-1"]


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ([], "something to vary"),
        (["train.beta"], "must look like"),
        (["train.beta="], "there is no value"),
        (["train.beta=0.1,0.10"], "stands twice"),
        (["train.beta=[0.1"], "is not a list"),
        (["train.beta=0.1", "train.beta=0.2"], "names train.beta twice"),
        (["work_dir=a,b"], "share one work_dir"),
        (["train.bta=0.1"], "did you mean 'train.beta'"),
        (["train.beta=0.1,-1"], "'train.beta' is -1"),
        ([f"seed={','.join(map(str, range(MAX_RUNS + 1)))}"], "at most"),
    ],
)
def test_what_is_no_sweep_is_refused_before_anything_runs(vary: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        variations("demo", [], vary, None)


def test_a_run_outside_a_sweep_is_named_as_before() -> None:
    assert run_name("my dir/a recipe.yaml").startswith("a-recipe-2")
    assert run_name("...").startswith("run-")


@pytest.mark.parametrize(
    ("override", "first"), [("training_seed=7", "train"), ("sample_seed=7", "sample"), ("train.beta=0.3", "train")]
)
def test_a_seed_of_its_own_moves_only_what_it_names(override: str, first: str, tmp_path: Path) -> None:
    """As a plan has it: fingerprints before the stage are those of the plain recipe, from it on they are others."""

    def fingerprints(*overrides: str) -> list[str]:
        recipe = load_recipe("demo", [f"work_dir={tmp_path}", *overrides])
        store = Store(tmp_path, plan=True)
        return [found[0].fingerprint for _, found in all_stages(plain_steps(), store, recipe)]

    plain, other = fingerprints(), fingerprints(override)
    moved = [stage for stage, one, two in zip(STAGES, plain, other, strict=True) if one != two]
    later = [stage for stage in STAGES[STAGES.index(first) :] if stage != "model"]
    assert moved == later
    assert fingerprints(f"{override.partition('=')[0]}={'42' if 'seed' in override else '0.1'}")[:-1] == plain[:-1]


@pytest.mark.parametrize("name", ["../../x", "a b", "-x", "x" * 97])
def test_a_sweep_is_called_what_a_folder_may_be_called(name: str) -> None:
    with pytest.raises(RecipeError, match="may hold letters, digits"):
        variations("demo", [], ["seed=1,2"], name)


def test_a_sweep_ends_with_the_status_of_its_first_failed_run() -> None:
    def ended(kind: str, status: int) -> int:
        error = {"status": status, "stage": "evaluate", "kind": kind, "message": "it failed"}
        found = failed([{"run": "a", "error": None}, {"run": "b", "error": error}])
        assert found is not None and "1 of 2 runs failed (b); the first at evaluate: it failed" in str(found)
        return found.status

    cases = [("recipe", 2), ("input", 3), ("gate", 4), ("training", 5), ("transient", 5), ("transient", 1),
             ("surroundings", 1)]  # fmt: skip
    assert [ended(kind, status) for kind, status in cases] == [status for _, status in cases]
