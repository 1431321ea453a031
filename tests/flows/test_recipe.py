"""Recipes: what may stand in them, and what is said when something else does."""

from pathlib import Path

import pytest
import yaml

from flows.plain import plain_steps
from flows.recipe import STAGES, built_in_recipes, load_recipe, stage_named
from flows.stages import data_stages
from tasks.errors import RecipeError
from tasks.store import Store


@pytest.mark.parametrize("name", built_in_recipes())
def test_every_built_in_recipe_loads(name: str) -> None:
    assert load_recipe(name).seed == 42


def test_the_defaults_are_those_of_the_published_run() -> None:
    train = load_recipe("tulu-v2.5-13b-stackexchange-60k").train
    assert (train.learning_rate, train.batch_size, train.epochs, train.warmup_ratio) == (5e-7, 32, 3, 0.1)
    assert (train.adam_betas, train.adam_eps, train.schedule, train.beta) == ((0.9, 0.999), 1e-8, "linear", 0.1)


def test_set_replaces_a_value_and_lists_replace_lists() -> None:
    recipe = load_recipe("demo", ["sample.size=null", "ingest.sources=[a.7z, {path: b.7z, site: b.example.com}]"])
    assert recipe.sample.size is None
    assert [source.path for source in recipe.ingest.sources] == ["a.7z", "b.7z"]


def test_a_section_that_may_be_null_is_set_key_by_key_or_as_a_whole() -> None:
    one = load_recipe("demo", ["train.lora.rank=8", "train.lora.targets=[q_proj]"]).train
    other = load_recipe("demo", ["train.lora={rank: 8, targets: [q_proj]}"]).train
    assert one == other and one.lora is not None
    assert (one.lora.rank, one.lora.alpha, one.lora.targets) == (8, 32.0, ("q_proj",))
    with pytest.raises(RecipeError, match=r"'train.lora.rnk' is not known; did you mean 'train.lora.rank'"):
        load_recipe("demo", ["train.lora.rnk=8"])


def test_a_section_that_is_null_can_be_filled_key_by_key_and_names_no_result_of_others() -> None:
    plain = load_recipe("demo", ["evaluate.generate=null"])
    asked = load_recipe(
        "demo",
        ["evaluate.generate.prompts=3", "evaluate.generate.judge={url: 'http://127.0.0.1:8000/v1', model: wise}",
         "evaluate.benchmarks.tasks=[gsm8k]"],
    )  # fmt: skip
    assert plain.evaluate.generate is None and plain.evaluate.benchmarks is None
    assert asked.evaluate.generate is not None and asked.evaluate.generate.prompts == 3
    assert asked.evaluate.generate.judge is not None and asked.evaluate.generate.judge.mode == "greedy"
    # Held-out pairs that are scored stay scored when more is asked of the models, or their answers judged anew.
    assert plain.evaluate.identity() == asked.evaluate.identity()
    assert "judge" not in asked.evaluate.generate.identity()


def test_a_learning_rate_without_a_point_is_a_number_and_not_a_string() -> None:
    assert load_recipe("demo", ["train.learning_rate=5e-7"]).train.learning_rate == 5e-7


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pair.rul=pm", "recipe key 'pair.rul' is not known; did you mean 'pair.rule'?"),
        ("trian.beta=1", "recipe key 'trian' is not known; did you mean 'train'?"),
        ("ingest.sources=[{pth: a}]", "recipe key 'ingest.sources.0.pth' is not known; did you mean"),
        ("sample.size=0", "recipe key 'sample.size' is 0: it should be greater than 0"),
        (f"pair.min_gap={2**63}", f"recipe key 'pair.min_gap' is {2**63}: it should be less than {2**63}"),
        ("pair.rule=best", "recipe key 'pair.rule' is 'best': it should be 'pm' or 'votes'"),
        ("train.beta.x=1", "train.beta has no keys below it"),
        ("sample.size", "must look like key.path=value"),
        ("sample.size=[1", "is not YAML"),
        ("reference.precision=bf16", "leave reference.precision null"),
        ("train.betas=[0.9]", "is not known"),
        ("evaluate.generate.promts=3", "did you mean 'evaluate.generate.prompts'?"),
        ("evaluate.generate.judge.url=ftp://x", "recipe key 'evaluate.generate.judge.url' is 'ftp://x': string should"),
        ("evaluate.benchmarks.task=[mmlu]", "did you mean 'evaluate.benchmarks.tasks'?"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("demo", [override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: a\nmodel: b\n", "stands twice"),
        ("- a\n", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("model: m\n", "'ingest' is missing"),
        ("", "must be a mapping"),
        ("\x00", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["? [a, b]\n: 1\n", "? {a: 1}\n: 1\n", "model: m\n? [[c]]\n: 1\n"])
def test_a_key_that_is_a_list_or_a_mapping_is_no_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"mine\.yaml is not YAML: .*unhashable"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_a_setting_that_aliases_blow_up_is_refused_in_a_short_line(tmp_path: Path) -> None:
    # Ten lines whose value, written out for the message, was gigabytes.
    layers = ["&a0 [x, x, x, x, x, x, x, x, x]"]
    layers += [f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    bomb = f"[{', '.join(layers)}]"
    for text in (f"model: {bomb}\ningest: {{sources: [x]}}\n", f"model: m\ningest: {{sources: {bomb}}}\n"):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(RecipeError) as caught:
            load_recipe(str(tmp_path / "mine.yaml"))
        assert len(str(caught.value)) < 300


def test_a_misspelt_recipe_name_brings_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'demo'"):
        load_recipe("dem")


def test_a_misspelt_stage_brings_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'tokenize'"):
        stage_named("tokenise")
    assert [stage_named(stage) for stage in STAGES] == list(STAGES)


def test_a_recipe_written_down_by_a_run_is_a_recipe_again(tmp_path: Path) -> None:
    recipe = load_recipe("site")
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(str(path)) == recipe


def test_what_no_model_can_be_examined_in_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    recipe = load_recipe("demo", ["evaluate.benchmarks.tasks=[humaneval_plus]"])
    with pytest.raises(RecipeError, match=r"humaneval_plus would execute what the models write; .*run_code=true"):
        next(data_stages(plain_steps(), Store(tmp_path), recipe))
    assert not (tmp_path / "store").exists()
