"""Generation by vLLM against a stand-in for it (tests/tasks/stand_in): what it is asked, and what its answers become.

The real library was never run here.
"""

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.errors import RecipeError, StageFailed
from tasks.evaluation import engine
from tasks.evaluation.engine import engine_here
from tasks.generate import GenerateConfig, generate
from tasks.manifest import Manifest
from tasks.tokens.token_rows import read_token_rows
from training.jobs import AnswerBatch
from training.sampling import prompt_seed
from training.status import TrainerError
from training.vllm_answers import _handfuls, own_device

STAND_IN = Path(__file__).parent / "stand_in"
CONFIG = GenerateConfig(prompts=5, max_new_tokens=6, batch_size=2, engine="vllm", top_p=0.9)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in in the way of the ranks; the folder of what it is asked."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STAND_IN), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("VLLM_STAND_IN", str(tmp_path))
    return tmp_path


def generated(run: Any, config: GenerateConfig, seed: int = 42) -> Manifest:
    stages = run.stages
    return generate(run.store, stages["train"], stages["model"], stages["tokenize"], config, run.train, seed, 50)


def test_vllm_is_asked_for_the_same_prompts_with_seeds_of_their_own(finished: Any, asked: Path) -> None:
    made = generated(finished, CONFIG)
    start, tuned = (json.loads(path.read_text()) for path in sorted(asked.iterdir()))
    assert (start["model"], tuned["model"]) == ("model", "train")
    assert start["asked"] == tuned["asked"] and len(start["asked"]) == 10  # both modes at once
    assert start["sampling"] == tuned["sampling"]
    longest = max(map(len, start["asked"]))
    assert start["settings"] == {"dtype": "float32", "max_model_len": longest + 6, "generation_config": "vllm"}
    assert start["environment"] == {
        "VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "CUDA_VISIBLE_DEVICES": "0"
    }  # fmt: skip
    rows = pl.read_parquet(made.path("generations.parquet"))
    prompts = dict(read_token_rows(finished.stages["tokenize"].path("held_out")).select("pair_id", "prompt_ids").rows())
    seeds = {prompt_seed(42, key) for key in rows["pair_id"]}
    sampled = [one for one in start["sampling"] if one["temperature"]]
    assert {one["seed"] for one in sampled} == seeds and len(seeds) == 5
    assert {(one["temperature"], one["top_p"], one["max_tokens"]) for one in sampled} == {(0.7, 0.9, 6)}
    assert made.provenance["generation"] == {"engine": "vllm", "precision": "fp32", "ranks": 1, "vllm": "stand-in"}
    for row in rows.to_dicts():
        wanted = [7, 7, 1] if len(prompts[row["pair_id"]]) % 2 == 0 else [8] * 6
        if row["mode"] == "sampled":
            wanted[0] = 2 + prompt_seed(42, row["pair_id"]) % 200
        assert (row["ids"], row["stopped"], row["tokens"]) == (wanted, wanted[-1] == 1, len(wanted))
        assert "</s>" not in row["text"]
    assert made.counts["stopped"] == rows["stopped"].sum() and 0 < made.counts["stopped"] < 20
    # What is there is taken where nobody says which engine; that of another engine is another result.
    auto = CONFIG.model_copy(update={"engine": "auto"})
    assert generated(finished, auto).fingerprint == made.fingerprint
    other = generated(finished, CONFIG.model_copy(update={"engine": "transformers"}))
    assert other.fingerprint != made.fingerprint
    assert generated(finished, auto).fingerprint == made.fingerprint


def test_without_a_device_auto_is_transformers_and_says_so_in_the_fingerprint(finished: Any) -> None:
    made = generated(finished, GenerateConfig(prompts=2, max_new_tokens=3))
    assert made.config["engine"] == "transformers"
    assert generated(finished, GenerateConfig(prompts=2, max_new_tokens=3, engine="transformers")).reused


def test_auto_is_vllm_only_where_it_can_be_imported_and_has_a_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vllm").mkdir()  # a folder of that name is no installation
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not engine.vllm_installed()
    monkeypatch.syspath_prepend(str(STAND_IN))
    assert engine.vllm_installed()
    assert engine_here("auto", 0.7) == "transformers"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert engine_here("auto", 0.7) == "vllm"
    assert engine_here("transformers", 0.7) == "transformers"
    assert [engine_here("auto", one) for one in (0.009, 0.01, 2.0, 2.1)] == [
        "transformers", "vllm", "vllm", "transformers"
    ]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.005, 3.0])
def test_a_temperature_that_vllm_would_change_or_refuse_is_refused(temperature: float) -> None:
    with pytest.raises(ValidationError, match=r"evaluate\.generate\.engine vllm draws at 0\.01 to 2\.0"):
        GenerateConfig(engine="vllm", temperature=temperature)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("abort", r"vLLM ended the answer to pair \S+ with 'abort'"),
     ("nan", r"the logits after the prompt of pair \S+ are no numbers")],
)  # fmt: skip
def test_an_answer_that_went_wrong_is_named(
    finished: Any, asked: Path, fault: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_FAULT", fault)
    with pytest.raises(StageFailed, match=said):
        generated(finished, CONFIG, seed=43)


def test_vllm_that_is_not_there_is_named(finished: Any) -> None:
    with pytest.raises(RecipeError, match=r"engine is vllm, which cannot be imported \(ModuleNotFoundError"):
        generated(finished, CONFIG, seed=44)


def test_each_rank_has_a_device_of_its_own() -> None:
    assert [own_device(None, 1), own_device("4, 7", 1), own_device("", 1)] == ["1", "7", ""]
    with pytest.raises(TrainerError, match="asks for 3 GPUs and CUDA_VISIBLE_DEVICES has 2"):
        own_device("4,7", 2)


def test_so_many_prompts_are_handed_over_at_a_time() -> None:
    def batch(size: int) -> AnswerBatch:
        return AnswerBatch("start", "greedy", tuple(range(size)))

    handed = _handfuls([batch(size) for size in (128, 128, 1, 300, 2)])
    assert [[len(one.numbers) for one in group] for group in handed] == [[128, 128], [1], [300], [2]]
