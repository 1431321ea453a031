"""gc: what it finds, what it keeps, and that nothing that is being built goes."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml

from flows.gc import collect, gc_text
from flows.gc_bytes import freed_bytes
from flows.plain import plain_steps
from flows.recipe import load_recipe
from flows.runs import follow, open_run, store_of
from flows.stages import all_stages
from tasks.errors import InputError, RecipeError
from tasks.manifest import Manifest
from tasks.scores.logp_space import space
from tasks.scores.logp_store import SCHEMA, LogpStore
from tasks.sources.download import download_folder
from tasks.store import Store, Workspace
from tests.tasks.test_model import tiny_model
from training.config import TrainConfig

RECIPE = """\
model: smollm2-135m-instruct
work_dir: {work_dir}
ingest: {{sources: [demo-site]}}
pair: {{max_pairs_per_question: {pairs}}}
sample: {{size: {size}, held_out: 8}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs to the end of `sample`: the older with one pair a question, the newer with two."""
    folder = tmp_path_factory.mktemp("gc")
    for age, (name, pairs) in enumerate([("newer", 2), ("older", 1)]):
        run_to_sample(folder, name, pairs, 16)
        for path in (folder / "work" / "runs" / name).glob("*"):
            os.utime(path, (1e9 - age, 1e9 - age), follow_symlinks=False)
        os.utime(folder / "work" / "runs" / name, (1e9 - age, 1e9 - age))
    return folder


@pytest.fixture
def work_dir(made: Path) -> Iterator[Path]:
    """Their work folder for one test, which may do with it what it likes: the runs name it, so it keeps its place."""
    shutil.copytree(made / "work", made / "kept", symlinks=True)
    yield made / "work"
    shutil.rmtree(made / "work")
    (made / "kept").rename(made / "work")


def run_to_sample(folder: Path, name: str, pairs: int, size: int) -> None:
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(work_dir=folder / "work", pairs=pairs, size=size))
    recipe = load_recipe(str(path))
    run = open_run(name, recipe)
    follow(run, all_stages(plain_steps(), store_of(recipe, name, []), recipe), "sample")


def folders(work_dir: Path, name: str) -> set[str]:
    summary = json.loads((work_dir / "runs" / name / "summary.json").read_text())
    return {Path(entry["folder"]).name for entry in summary["stages"].values()}


def there(work_dir: Path) -> set[str]:
    return {path.name for path in (work_dir / "store").iterdir()}


def silent(text: str) -> None:
    pass


def test_what_only_older_runs_refer_to_is_listed_and_then_removed(work_dir: Path) -> None:
    before = there(work_dir)
    dry = collect(work_dir, 1, False, silent)
    assert there(work_dir) == before
    listed = {Path(entry["folder"]).name for entry in dry["folders"]}
    mine, others = folders(work_dir, "newer"), folders(work_dir, "older")
    assert listed >= others - mine and not listed & mine
    assert "would be removed" in gc_text(dry) or "--yes" in gc_text(dry)

    done = collect(work_dir, 1, True, silent)
    assert {Path(entry["folder"]).name for entry in done["folders"]} == listed
    assert there(work_dir) == before - listed
    # The gates that judged what is kept stay too, and so do digests and the runs themselves.
    gates = {name for name in there(work_dir) if name.startswith("gate-")}
    assert len(gates) == 4
    assert (work_dir / "digests").is_dir() and (work_dir / "runs" / "older" / "summary.json").is_file()
    assert collect(work_dir, 1, True, silent)["folders"] == []


def test_what_both_runs_refer_to_stays_while_one_of_them_counts(work_dir: Path) -> None:
    assert collect(work_dir, 2, True, silent)["folders"] == []
    assert folders(work_dir, "newer") | folders(work_dir, "older") <= there(work_dir)


def test_checkpoints_of_a_run_that_can_be_retried_stay_and_those_of_no_run_go(work_dir: Path) -> None:
    # A third run stopped while it made its sample: what it had begun is found by planning its recipe.
    recipe = work_dir.parent / "third.yaml"
    recipe.write_text(RECIPE.format(work_dir=work_dir, pairs=2, size=12))
    settings = load_recipe(str(recipe))
    open_run("third", settings).write()
    store = store_of(settings, "", [])
    wanted = {stage: found for stage, found in all_stages(plain_steps(), replace(store, plan=True), settings)}
    mine = work_dir / "partial" / wanted["sample"][0].folder.name
    stray = work_dir / "partial" / "train-0123456789abcdef"
    for folder in (mine, stray):
        folder.mkdir(parents=True)
        (folder / "checkpoint").write_text("x" * 1000)
    done = collect(work_dir, 10, True, silent)
    assert [Path(entry["folder"]).name for entry in done["folders"]] == [stray.name]
    assert done["bytes"] == 1000
    assert mine.is_dir() and not stray.exists()


def test_a_file_of_several_names_counts_once_and_only_where_the_last_of_them_goes(tmp_path: Path) -> None:
    # As the weights of a model are: made by train, and linked into what publish publishes.
    for name in ("train", "publish", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / "train" / "weights").write_bytes(b"x" * 1000)
    os.link(tmp_path / "train" / "weights", tmp_path / "publish" / "weights")
    (tmp_path / "publish" / "card").write_bytes(b"x" * 10)
    (tmp_path / "publish" / "link").symlink_to(tmp_path / "train" / "weights")
    (tmp_path / "train" / "log").write_bytes(b"x" * 100)
    os.link(tmp_path / "train" / "log", tmp_path / "kept" / "log")
    assert freed_bytes([tmp_path / "train", tmp_path / "publish"]) == [0, 1010]
    assert freed_bytes([tmp_path / "train"]) == [0]
    assert freed_bytes([tmp_path / "kept", tmp_path / "train"]) == [0, 100]


def test_a_download_that_no_kept_recipe_names_goes_and_one_that_is_being_fetched_stays(work_dir: Path) -> None:
    urls = {name: f"https://example.com/{name}.example.com.7z" for name in ("kept", "old", "busy", "young")}
    folders = {name: download_folder(url, work_dir) for name, url in urls.items()}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / f"{name}.example.com.7z").write_bytes(b"x" * 1000)
        (folder / f"{name}.example.com.7z.json").write_text("{}")
        if name != "young":
            os.utime(folder, (1e9, 1e9))
    # A run whose recipe takes one of them beside the made site.
    recipe = work_dir / "runs" / "newer" / "recipe.yaml"
    settings = yaml.safe_load(recipe.read_text())
    settings["ingest"]["sources"].append({"path": urls["kept"], "kind": "dump"})
    recipe.write_text(yaml.safe_dump(settings))
    shutil.copy(one_archive(work_dir), folders["kept"] / "kept.example.com.7z")
    os.utime(folders["kept"], (1e9, 1e9))
    with open(folders["busy"] / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.utime(folders["busy"], (1e9, 1e9))
        done = collect(work_dir, 1, True, silent)
    found = {Path(entry["folder"]): entry for entry in done["folders"] if "downloads" in entry["folder"]}
    assert {path: entry["outcome"] for path, entry in found.items()} == {
        folders["old"]: "removed", folders["busy"]: "in use: left",
    }  # fmt: skip
    assert found[folders["old"]]["why"] == "downloaded (old.example.com.7z), and in no run's recipe"
    assert {name for name, folder in folders.items() if folder.is_dir()} == {"kept", "busy", "young"}
    assert not (work_dir / "downloads" / f".old-{folders['old'].name}").exists()


def one_archive(work_dir: Path) -> Path:
    (archive,) = (work_dir / "demo-site").rglob("*.7z")
    return archive


def test_log_probs_that_no_kept_run_can_use_go_and_those_in_use_or_young_stay(work_dir: Path, tmp_path: Path) -> None:
    """The kept run has a start model and has trained it in bf16, by sums with a tail of half the weight."""
    recipe = work_dir / "runs" / "newer" / "recipe.yaml"
    settings = yaml.safe_load(recipe.read_text())
    settings["model"] = str(tiny_model(tmp_path / "start"))
    settings["train"] |= {"precision": "bf16", "loss": "ld", "ld_alpha": 0.5}
    recipe.write_text(yaml.safe_dump(settings))
    train = load_recipe(str(recipe)).train
    fp32 = train.model_copy(update={"precision": "fp32"})
    tuned, others = made_model(work_dir, 1), made_model(tmp_path / "elsewhere", 2)
    (work_dir / "runs" / "newer" / "stages" / "train").symlink_to(tuned.folder)
    assert logps_left(work_dir, {"gone": (others, train, 1.0)}) == {"gone"}  # its start model may be made again

    start = plain_steps().model(Store(work_dir), settings["model"])
    spaces = {
        "reference": (start, train, 0.5), "reference, held out": (start, train, 1.0), "policy": (tuned, train, 1.0),
        "young": (others, train, 0.5), "busy": (others, fp32, 0.5),
        "other model": (others, train, 1.0), "other precision": (start, fp32, 1.0),
        "other weight": (start, train, 0.25),
    }  # fmt: skip
    assert logps_left(work_dir, spaces) == {"reference", "reference, held out", "policy", "young", "busy"}


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"model_type": []}', "\udcff", None])
def test_all_log_probs_stay_where_a_model_of_a_kept_run_is_damaged_and_gc_says_which(
    work_dir: Path, tmp_path: Path, config: str | None
) -> None:
    recipe = work_dir / "runs" / "newer" / "recipe.yaml"
    settings = yaml.safe_load(recipe.read_text()) | {"model": str(tiny_model(tmp_path / "start"))}
    recipe.write_text(yaml.safe_dump(settings))
    plain_steps().model(Store(work_dir), settings["model"])
    train = load_recipe(str(recipe)).train
    store = LogpStore.of(work_dir, {"of": "another model"})
    store.add(pl.DataFrame({"key": ["k"], "chosen_logps": [-1.0], "rejected_logps": [-2.0]}, schema=SCHEMA))
    os.utime(store.folder, (1e9, 1e9))
    tuned = made_model(work_dir, 1)
    (work_dir / "runs" / "newer" / "stages" / "train").symlink_to(tuned.folder)
    path = tuned.path("model/config.json")
    if config is None:
        path.unlink()
    else:
        path.write_text(config, errors="surrogateescape")
    said: list[str] = []
    collect(work_dir, 1, True, said.append)
    assert store.read().height == 1 and tuned.folder.is_dir()
    assert len(said) == 1 and "all log-probs are kept" in said[0] and str(path) in said[0]
    with pytest.raises((InputError, OSError), match=r"config\.json"):
        space(tuned, train, 1.0)


def logps_left(work_dir: Path, spaces: dict[str, tuple[Manifest, TrainConfig, float]]) -> set[str]:
    """Names of `spaces` whose log-probs are there after `gc`; all are old but "young", and "busy" is in use."""
    stores = {name: LogpStore.of(work_dir, space(*given)) for name, given in spaces.items()}
    for name, store in stores.items():
        store.add(pl.DataFrame({"key": ["k"], "chosen_logps": [-1.0], "rejected_logps": [-2.0]}, schema=SCHEMA))
        if name != "young":
            os.utime(store.folder, (1e9, 1e9))
    with stores["busy"].in_use() if "busy" in stores else nullcontext():
        done = collect(work_dir, 1, True, silent)
    left = {name for name, store in stores.items() if store.read().height == 1}
    found = {Path(entry["folder"]): entry for entry in done["folders"] if "logps" in entry["folder"]}
    assert {entry["why"] for entry in found.values()} <= {"log-probs that no run can use"}
    assert {path for path, entry in found.items() if entry["outcome"] == "in use: left"} == {
        store.folder for name, store in stores.items() if name == "busy"
    }
    gone = {store.folder for name, store in stores.items() if name not in left}
    assert {path for path, entry in found.items() if entry["outcome"] == "removed"} == gone
    assert all(entry["bytes"] > 0 for entry in found.values())
    return left


def made_model(work_dir: Path, seed: int) -> Manifest:
    """A tuned model as `train` leaves it, as far as log-probs go."""

    def build(work: Workspace) -> dict[str, int]:
        (work.folder / "model").mkdir()
        (work.folder / "model" / "config.json").write_text('{"model_type": "llama"}')
        (work.folder / "model" / "model.safetensors").write_bytes(bytes([seed]))
        return {}

    return Store(work_dir).stage("train", 1, {"seed": seed}, {}, build)


def test_what_the_models_were_asked_of_late_stays_unfinished_as_it_is(work_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "asking.yaml"
    more = "evaluate: {generate: {prompts: 4, judge: {url: 'http://127.0.0.1:1', model: wise}}}\n"
    path.write_text(RECIPE.format(work_dir=work_dir, pairs=2, size=16) + more)
    recipe = load_recipe(str(path))
    run = open_run("asking", recipe)
    follow(run, all_stages(plain_steps(), store_of(recipe, "asking", []), recipe), "sample")
    planned: list[str] = []
    noted = replace(plain_steps(), judge=lambda *given: _named(plain_steps().judge(*given), planned))
    list(all_stages(noted, replace(store_of(recipe, "asking", []), plan=True), recipe))
    begun = work_dir / "partial" / planned[0]
    begun.mkdir(parents=True)
    collect(work_dir, 3, True, silent)
    assert planned[0].startswith("judge-") and begun.is_dir()


def _named(manifest: Manifest, names: list[str]) -> Manifest:
    names.append(manifest.folder.name)
    return manifest


def test_a_folder_whose_lock_is_held_is_left(work_dir: Path) -> None:
    name = sorted(folders(work_dir, "older") - folders(work_dir, "newer"))[0]
    with open(work_dir / "locks" / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = collect(work_dir, 1, True, silent)
    outcomes = {Path(entry["folder"]).name: entry["outcome"] for entry in done["folders"]}
    assert outcomes.pop(name) == "in use: left"
    assert (work_dir / "store" / name / "manifest.json").is_file()
    assert set(outcomes.values()) == {"removed"}


def test_rubbish_of_a_build_that_was_killed_goes(work_dir: Path) -> None:
    for name in (".building-train-0123456789abcdef", ".old-train-0123456789abcdef", "train-0123456789abcdef"):
        (work_dir / "store" / name).mkdir()
    done = collect(work_dir, 2, True, silent)
    assert {entry["why"] for entry in done["folders"]} == {"left by a build that was killed", "without a manifest"}
    assert not any("0123456789abcdef" in name for name in there(work_dir))


def test_where_a_recipe_cannot_be_planned_its_unfinished_work_is_kept(work_dir: Path) -> None:
    path = work_dir / "runs" / "newer" / "recipe.yaml"
    path.write_text(path.read_text().replace("demo-site", "moved-away.example.com.7z"))
    stray = work_dir / "partial" / "train-0123456789abcdef"
    stray.mkdir(parents=True)
    said: list[str] = []
    collect(work_dir, 1, True, said.append)
    assert stray.is_dir()
    assert "newer" in said[0] and "cannot be planned" in said[0]


def test_a_folder_that_is_no_work_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has no store"):
        collect(tmp_path, 10, True, silent)
