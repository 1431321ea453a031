"""The generate stage on a small run: answers of both models, the same as transformers gives one by one."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from tasks.errors import StageFailed
from tasks.evaluation.answers import ANSWERS_SCHEMA
from tasks.generate import GenerateConfig, draw_prompts, generate
from tasks.manifest import Manifest
from tasks.results import results
from tasks.store import Workspace
from tasks.tokens.token_rows import read_token_rows

Make = Callable[..., Any]
CONFIG = GenerateConfig(prompts=4, max_new_tokens=12, batch_size=3)


def generated(run: Any, config: GenerateConfig = CONFIG, **changes: Manifest) -> Manifest:
    stages = run.stages | changes
    return generate(run.store, stages["train"], stages["model"], stages["tokenize"], config, run.train, 42, 50)


@pytest.fixture(scope="module")
def made(finished: Any) -> Manifest:
    return generated(finished)


@pytest.fixture(scope="module")
def rows(made: Manifest) -> pl.DataFrame:
    return pl.read_parquet(made.path("generations.parquet"))


def one_by_one(model: Path, ids: list[int], new: int) -> list[int]:
    """The greedy answer by plain forward passes without cache, padding or batch."""
    import torch
    from transformers import AutoModelForCausalLM

    writer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    seen = list(ids)
    with torch.inference_mode():
        for _ in range(new):
            seen.append(int(writer(torch.tensor([seen])).logits[0, -1].argmax()))
            if seen[-1] == 1:
                break
    return seen[len(ids) :]


def test_both_models_answer_the_same_prompts_in_both_modes(made: Manifest, rows: pl.DataFrame, finished: Any) -> None:
    assert rows.schema == ANSWERS_SCHEMA
    assert rows.group_by("model", "mode").len()["len"].to_list() == [4] * 4
    assert rows["pair_id"].n_unique() == 4
    assert set(rows["pair_id"]) <= set(finished.held_out()["pair_id"])
    counts = made.counts
    assert counts["questions"] == 12 == counts["prompts"] + counts["skipped.no_room"] + counts["skipped.not_drawn"]
    assert counts["answers"] == 16 == counts["stopped"] + counts["cut"]


def test_a_padded_batch_gives_what_one_prompt_alone_gives(rows: pl.DataFrame, finished: Any) -> None:
    prompts = dict(read_token_rows(finished.stages["tokenize"].path("held_out")).select("pair_id", "prompt_ids").rows())
    assert len({len(prompts[key]) for key in rows["pair_id"]}) > 1  # else nothing is padded
    folders = {"start": finished.stages["model"].path("model"), "tuned": finished.stages["train"].path("model")}
    for row in rows.filter(mode="greedy").to_dicts():
        wanted = one_by_one(folders[row["model"]], prompts[row["pair_id"]], 12)
        assert row["ids"] == wanted
        assert row["stopped"] == (wanted[-1] == 1)
        assert row["tokens"] == len(wanted)


def test_an_answer_that_stopped_does_not_show_its_end(rows: pl.DataFrame) -> None:
    assert not any("</s>" in text for text in rows["text"])
    assert rows.filter(mode="sampled", model="start")["ids"].to_list() != (
        rows.filter(mode="greedy", model="start")["ids"].to_list()
    )


def test_the_same_prompts_are_drawn_whatever_is_asked_of_them(finished: Any) -> None:
    folder = finished.stages["tokenize"].path("held_out")
    all_of_them, few = draw_prompts(folder, CONFIG, 42, None)
    _, more = draw_prompts(folder, GenerateConfig(prompts=7), 42, None)
    assert all_of_them.height == 12
    assert more["pair_id"].to_list()[:4] == few["pair_id"].to_list()
    assert draw_prompts(folder, CONFIG, 43, None)[1]["pair_id"].to_list() != few["pair_id"].to_list()


def test_an_interrupted_generation_goes_on_to_the_same_bytes(
    made: Manifest, run_until_train: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_until_train(tmp_path)
    asked: list[int] = []
    import tasks.evaluation.writing as stage

    real = stage.run_ranks

    def counted(work: Any, module: Any, job: Path, folder: Path, **settings: Any) -> Any:
        batches = json.loads(job.read_text())["batches"]
        asked.append(len(batches))
        if len(asked) == 1:  # half of it, and then the lights go out
            job.write_text(json.dumps(json.loads(job.read_text()) | {"batches": batches[: len(batches) // 2]}))
            real(work, module, job, folder, **settings)
            raise StageFailed("the lights went out")
        return real(work, module, job, folder, **settings)

    monkeypatch.setattr(stage, "run_ranks", counted)
    with pytest.raises(StageFailed, match="lights"):
        generated(run)
    again = generated(run)
    assert asked == [8, 4]
    assert again.files == made.files
    assert not list((tmp_path / "partial").glob("generate-*"))


def test_the_batch_names_no_result_and_a_plan_starts_nothing(made: Manifest, finished: Any) -> None:
    assert generated(finished, CONFIG.model_copy(update={"batch_size": 1})).reused
    run = replace(finished, store=replace(finished.store, plan=True))
    assert generated(run, GenerateConfig(prompts=5)).planned


def test_prompts_without_room_for_an_answer_are_counted(finished: Any) -> None:
    found = generated(finished, GenerateConfig(prompts=3, max_new_tokens=500))  # of 512 positions
    assert found.counts["skipped.no_room"] == 12
    said = json.loads(found.path("generation.json").read_text())
    assert said["reason"] == (
        "no prompt leaves room for evaluate.generate.max_new_tokens = 500 in the model's 512 positions"
    )
    assert pl.read_parquet(found.path("generations.parquet")).height == 0


def test_without_held_out_pairs_there_is_nothing_to_ask(run_until_train: Make, tmp_path: Path) -> None:
    found = generated(run_until_train(tmp_path, held_out=0))
    said = json.loads(found.path("generation.json").read_text())
    assert said["reason"] == "there is no held-out pair to take a prompt from"
    assert found.counts["answers"] == 0


def test_broken_weights_are_named_with_the_prompt(finished: Any) -> None:
    def broken(work: Workspace) -> dict[str, int]:
        shutil.copytree(finished.stages["train"].path("model"), work.folder / "model")
        place = work.folder / "model" / "model.safetensors"
        weights = {name: value * float("nan") for name, value in load_file(place).items()}
        place.unlink()
        save_file(weights, place, metadata={"format": "pt"})
        return {}

    train = finished.store.stage("train", 1, {"broken": True}, {"model": finished.stages["model"]}, broken)
    with pytest.raises(StageFailed, match=r"evaluate: rank 0: the logits after the prompt of pair \S+ are no numbers"):
        generated(finished, GenerateConfig(prompts=1, max_new_tokens=2), train=train)


def test_results_are_the_metrics_of_evaluate_with_a_section_more(made: Manifest, finished: Any) -> None:
    evaluated = finished.stages["evaluate"]
    joined = results(finished.store, evaluated, {"generate": made}, finished.stages["model"], finished.stages["train"])
    metrics = json.loads(joined.path("metrics.json").read_text())
    before = json.loads(evaluated.path("metrics.json").read_text())
    assert metrics == before | {"generation": json.loads(made.path("generation.json").read_text())}
    for name in evaluated.files:
        if name != "metrics.json":
            assert joined.files[name] == evaluated.files[name]
    assert joined.counts["pairs"] == evaluated.counts["pairs"]
    assert joined.counts["generate.answers"] == 16
