"""What training and evaluation need is missed when the run starts; and only by a run that comes to them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import prerequisites
from flows.plain import plain_steps
from flows.plan import plan_recipe, plan_text
from flows.prerequisites import refuse_unmet, tell_unmet, would_be_built
from flows.recipe import Recipe, load_recipe
from flows.runs import store_of
from flows.stages import all_stages
from tasks.errors import PrefstackError, RecipeError, Surroundings
from tasks.evaluation import examination
from tasks.store import Silent, Store
from tests.flows.conftest import Shell

JUDGE = 'evaluate.generate={judge: {url: "http://127.0.0.1:9/v1", model: wise, key_env: NO_SUCH_TOKEN}}'
PINNED = "{revision: " + "a" * 40 + "}"


def asked(recipe: Path, *overrides: str, until: Any = "publish") -> None:
    settings = load_recipe(str(recipe), overrides)
    refuse_unmet(store_of(settings, "", []), settings, until)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder with a task in JSON, one in YAML, and the items of both."""
    folder = tmp_path / "tasks"
    (folder / "data").mkdir(parents=True)
    kwargs = {"data_files": {"test": "data/*.jsonl"}}
    (folder / "after.json").write_text(json.dumps({"task": "after", "dataset_kwargs": kwargs}))
    text = "task: before\nprocess_docs: !function code.docs\ndataset_kwargs: {data_files: items.jsonl}\n"
    (folder / "before.yaml").write_text(text)
    (folder / "data" / "one.jsonl").write_text("{}\n")
    (folder / "items.jsonl").write_text("{}\n")
    return folder


def test_a_token_that_is_not_set_ends_the_run_before_anything_is_read(shell: Shell, tiny_recipe: Path) -> None:
    done = shell.run("run", str(tiny_recipe), "--set", JUDGE, "--json")
    said = json.loads(done.out)
    assert (done.status, said["stages"]) == (1, {})
    assert said["error"]["message"] == (
        "judge: evaluate.generate.judge.key_env names NO_SUCH_TOKEN, which is not set"
    )  # fmt: skip
    assert "Traceback" not in done.err


def test_what_a_run_does_not_come_to_it_does_not_need(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(tiny_recipe, JUDGE, until="train")
    with pytest.raises(Surroundings, match="NO_SUCH_TOKEN"):
        asked(tiny_recipe, JUDGE)

    def reused(store: Store, recipe: Recipe) -> set[str]:
        return {"benchmark"}

    monkeypatch.setattr(prerequisites, "would_be_built", reused)
    asked(tiny_recipe, JUDGE)
    with pytest.raises(RecipeError, match="engine is vllm, which is not installed"):
        monkeypatch.setattr(prerequisites, "would_be_built", lambda store, recipe: {"generate"})
        asked(tiny_recipe, "evaluate.generate.engine=vllm")


@pytest.mark.parametrize(
    ("override", "package", "group"),
    [("train.lora.rank=4", "peft", "lora"), ("train.tensorboard=true", "tensorboard", "tensorboard")],
)
def test_a_package_that_training_needs_is_named_with_the_key_that_wants_it(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, override: str, package: str, group: str
) -> None:
    monkeypatch.setattr(prerequisites, "find_spec", lambda name: None)
    key = ".".join(override.partition("=")[0].split(".")[:2])
    with pytest.raises(RecipeError, match=rf"{key} needs {package}, .*pip install 'prefstack\[{group}\]'") as refused:
        asked(tiny_recipe, override, until="train")
    assert refused.value.status == 2
    asked(tiny_recipe, override, until="reference")
    asked(tiny_recipe)
    monkeypatch.setattr(prerequisites, "would_be_built", lambda store, recipe: {"generate"})
    asked(tiny_recipe, override)  # a training that is finished needs it no more


def test_what_is_not_finished_would_be_built(tiny_recipe: Path) -> None:
    settings = load_recipe(str(tiny_recipe), [JUDGE, "evaluate.benchmarks.tasks=[gsm8k]"])
    assert would_be_built(store_of(settings, "", []), settings) == {"train", "generate", "judge", "benchmark"}
    alone = load_recipe(str(tiny_recipe), [f"evaluate.benchmarks={{tasks: [alpaca_eval], alpaca_eval: {PINNED}}}"])
    assert would_be_built(store_of(alone, "", []), alone) == {"train", "outputs", "alpaca_eval"}
    # A run that ends before says so itself.
    gone = load_recipe(str(tiny_recipe), [JUDGE, "dedupe.decontaminate.paths=[/nowhere/at/all.jsonl]"])
    assert would_be_built(store_of(gone, "", []), gone) == set()


def test_the_group_of_lm_eval_and_what_a_task_needs_are_missed(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = examination.find_spec
    monkeypatch.setattr(examination, "find_spec", lambda name: None if name == "lm_eval" else real("json"))
    with pytest.raises(RecipeError, match=r"evaluate\.benchmarks needs lm_eval, not installed here: pip install"):
        asked(tiny_recipe, "evaluate.benchmarks.tasks=[gsm8k]")
    monkeypatch.setattr(examination, "find_spec", lambda name: None if name == "langdetect" else real("json"))
    asked(tiny_recipe, "evaluate.benchmarks.tasks=[gsm8k]")
    with pytest.raises(RecipeError, match=r"needs langdetect, not installed"):
        asked(tiny_recipe, "evaluate.benchmarks.tasks=[gsm8k, ifeval]")


def test_files_of_local_tasks_are_missed(tiny_recipe: Path, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "find_spec", lambda name: name)
    both = f"evaluate.benchmarks={{tasks: [after, before], include_path: {local}}}"
    asked(tiny_recipe, both)
    (local / "items.jsonl").unlink()
    with pytest.raises(RecipeError, match=r"before\.yaml: task 'before' has its items in items\.jsonl, which is not"):
        asked(tiny_recipe, both)
    asked(tiny_recipe, f"evaluate.benchmarks={{tasks: [after], include_path: {local}}}")
    (local / "data" / "one.jsonl").unlink()
    with pytest.raises(RecipeError, match=r"has its items in data/\*\.jsonl"):
        asked(tiny_recipe, both)
    (local / "after.json").write_text("{")
    with pytest.raises(RecipeError, match=r"after\.json cannot be read"):
        asked(tiny_recipe, both)
    with pytest.raises(RecipeError, match=r"include_path: .*nowhere is no folder"):
        asked(tiny_recipe, f"evaluate.benchmarks={{tasks: [after], include_path: {local}/nowhere}}")


@pytest.mark.slow
def test_a_name_that_nobody_has_is_missed(tiny_recipe: Path, local: Path) -> None:
    pytest.importorskip("lm_eval", reason="the optional group `eval` is not installed")
    with pytest.raises(RecipeError, match=r"neither lm-eval nor .* has 'arc_eazy'"):
        asked(tiny_recipe, f"evaluate.benchmarks={{tasks: [after, arc_easy, arc_eazy], include_path: {local}}}")


def test_the_tool_alpaca_eval_its_key_and_its_instructions_are_missed(tiny_recipe: Path, tmp_path: Path) -> None:
    def alpaca(**settings: str) -> str:
        given = ", ".join(f"{key}: {value}" for key, value in settings.items())
        return f"evaluate.benchmarks={{tasks: [alpaca_eval], alpaca_eval: {{{given}}}}}"

    pinned = {"revision": "a" * 40}
    with pytest.raises(Surroundings, match="key_env names NO_SUCH_KEY, which is not set"):
        asked(tiny_recipe, alpaca(**pinned, key_env="NO_SUCH_KEY"))
    with pytest.raises(RecipeError, match="there is no 'no_such_tool' here: pip install alpaca_eval"):
        asked(tiny_recipe, alpaca(**pinned, key_env="null", command="no_such_tool"))
    asked(tiny_recipe, alpaca(**pinned, key_env="null", command="cat"))  # any command is taken for the tool
    # Instructions are read before the dumps are.
    for wrong, said in ((alpaca(), "40 hex digits"), (alpaca(reference_outputs=f"{tmp_path}/no.json"), "no.json")):
        settings = load_recipe(str(tiny_recipe), [wrong])
        with pytest.raises(PrefstackError, match=said):
            next(all_stages(plain_steps(), replace(store_of(settings, "", []), plan=True), settings))


def test_a_plan_lists_all_that_is_missing_and_a_handed_over_training_is_told_of_it(tiny_recipe: Path) -> None:
    bare = plan_recipe(str(tiny_recipe), [], [])
    assert bare["prerequisites"] == [] and "missing on this host" not in plan_text(bare)
    planned = plan_recipe(str(tiny_recipe), [JUDGE, "evaluate.generate.engine=vllm"], [])
    assert set(planned) == set(bare) and planned["error"] is None  # a plan refuses nothing
    assert [(one["stage"], one["kind"], one["status"]) for one in planned["prerequisites"]] == [
        ("generate", "recipe", 2), ("judge", "surroundings", 1)
    ]  # fmt: skip
    assert json.loads(json.dumps(planned))["prerequisites"] == planned["prerequisites"]
    text = " ".join(plan_text(planned).split())
    assert "missing on this host" in text and "names NO_SUCH_TOKEN, which is not set" in text

    settings = load_recipe(str(tiny_recipe), [JUDGE])
    told: list[tuple[str, str]] = []

    class Listening(Silent):
        def message(self, stage: str, text: str) -> None:
            told.append((stage, text))

    tell_unmet(Listening(), store_of(settings, "", []), settings, "publish")
    assert told == [
        ("judge", "the worker that does this needs what is missing here: judge: evaluate.generate.judge.key_env names "
         "NO_SUCH_TOKEN, which is not set")
    ]  # fmt: skip
    tell_unmet(Listening(), store_of(settings, "", []), settings, "train")
    assert len(told) == 1
