"""A whole small run, every stage finished: what evaluate and publish are tested on.

Two made sites, a random Llama of two layers with a byte tokenizer. Pairs, source and training are written by hand in
the form of their stages; dedupe, sample, model and tokenize are the real ones.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.dedupe import DedupeConfig, dedupe
from tasks.evaluate import EvaluateConfig, evaluate
from tasks.manifest import Manifest
from tasks.model import start_model
from tasks.pairs import PAIR_SCHEMA
from tasks.sample import SampleConfig, sample
from tasks.store import External, Store, Workspace
from tasks.tokenize import TokenizeConfig, tokenize
from training.config import TrainConfig

SITES = ("bread.example.com", "tea.example.com")
# What a stranger may call himself.
NAMES = ("Ann", "Bo | Co", "<script>alert('x')</script>", "=1+1", "[me](javascript:alert(1))", "Zoë\nLine", None)


@dataclass(frozen=True)
class Run:
    """The manifests of a run up to train."""

    store: Store
    stages: dict[str, Manifest]
    sources: list[Manifest]
    recipe: dict[str, Any]
    train: TrainConfig

    def held_out(self) -> pl.DataFrame:
        return pl.read_parquet(self.stages["sample"].path("held_out.parquet"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def made_pairs(count: int = 90) -> pl.DataFrame:
    """Pairs of two sites, three a question."""
    rows = []
    for number in range(count):
        question = 10 * (number // 3 + 1)
        site = SITES[number // 3 % 2]
        chosen, rejected = question + 1 + number % 3, question + 4 + number % 3
        asked = datetime(2012 + number // 12, 5, 1, tzinfo=UTC)
        licence = "CC BY-SA 4.0" if asked.year > 2017 else "CC BY-SA 3.0"
        row = dict.fromkeys(PAIR_SCHEMA.names()) | {
            "pair_id": f"{site}/{question}/{chosen}/{rejected}", "site": site,
            "question_id": question, "chosen_id": chosen, "rejected_id": rejected,
            "prompt": f"Question {question}: why does it do that?" + " <b>&amp;</b> ``` | </pre>" * (number % 5 == 0),
            "chosen": f"Because of reason {number}. " * (1 + number % 4),
            "rejected": f"No idea, {number}." * (1 + number % 3),
            "chosen_rank": 2 + number % 3, "rejected_rank": 1, "chosen_score": 2 + number % 9, "rejected_score": 1,
            "question_score": 3, "chosen_accepted": number % 3 == 0, "rejected_accepted": number % 7 == 1,
            "created": asked, "chosen_created": asked + timedelta(hours=1 + number % 3),
            "rejected_created": asked + timedelta(hours=2), "tags": ["why"],
            "question_author": NAMES[number // 3 % 7], "chosen_author": NAMES[(number + 1) % 7],
            "rejected_author": NAMES[(number + 2) % 7], "question_author_id": number // 3, "chosen_author_id": number,
            "question_license": licence, "chosen_license": licence, "rejected_license": licence,
            "question_license_stated": asked.year > 2017, "chosen_license_stated": asked.year > 2017,
            "rejected_license_stated": asked.year > 2017,
        }  # fmt: skip
        rows.append(row)
    return pl.DataFrame(rows, schema=PAIR_SCHEMA)


@pytest.fixture(scope="session")
def run_until_train(tiny_model: Path) -> Callable[..., Run]:
    """Makes a Run in a work folder: `make(work_dir, held_out=30, pairs=None, learn=0.02)`; 0 learns nothing."""

    def make(work_dir: Path, *, held_out: int = 30, pairs: pl.DataFrame | None = None, learn: float = 0.02) -> Run:
        store = Store(work_dir)
        given = made_pairs() if pairs is None else pairs

        def read(work: Workspace) -> dict[str, int]:
            (work.folder / "posts.parquet").write_bytes(b"posts")
            work.provenance["source"] = {
                "kind": "dump", "site": SITES[0], "path": str(work_dir / "bread.7z"), "file": "bread.example.com.7z",
                "size": 12, "sha256": "ab" * 32,
            }  # fmt: skip
            return {"rows": 400, "questions": 90, "answers": 300, "skipped.post_type": 10}

        def paired(work: Workspace) -> dict[str, int]:
            given.write_parquet(work.folder / "pairs.parquet")
            return {"considered": 200, "ties": 70, "capped": 200 - 70 - given.height, "pairs": given.height}

        source = store.stage("source", 1, {"kind": "dump"}, {"source": External("ab" * 32)}, read)
        stages = {"pair": store.stage("pair", 1, {"rule": "pm", "pairs": given.height}, {"source": source}, paired)}
        stages["dedupe"] = dedupe(store, stages["pair"], DedupeConfig(near=False), 42)
        stages["sample"] = sample(store, stages["dedupe"], SampleConfig(size=None, held_out=held_out), 42)
        stages["model"] = start_model(store, str(tiny_model))
        stages["tokenize"] = tokenize(store, stages["sample"], stages["model"], TokenizeConfig(max_length=128))
        stages["reference"] = _reference(store, stages["tokenize"], stages["model"])
        stages["train"] = _train(store, stages["tokenize"], stages["model"], learn)
        config = TrainConfig(precision="fp32", ranks=1, learning_rate=1e-4)
        recipe = {
            "model": "tiny", "seed": 42, "pair": {"rule": "pm", "max_pairs_per_question": 10},
            "sample": {"size": None, "held_out": held_out}, "tokenize": {"max_length": 128}, "train": config.identity(),
            "evaluate": {"bootstrap": 50},
        }  # fmt: skip
        return Run(store, stages, [source], recipe, config)

    return make


@pytest.fixture(scope="session")
def finished(run_until_train: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run up to and with evaluate; tests read it and leave it as it is."""
    run = run_until_train(tmp_path_factory.mktemp("finished"))
    run.stages["evaluate"] = judge(run)
    return run


def judge(run: Run) -> Manifest:
    """The evaluate stage of a run."""
    return evaluate(
        run.store, run.stages["train"], run.stages["tokenize"], run.stages["reference"], run.stages["sample"],
        EvaluateConfig(bootstrap=50), run.train, 42,
    )  # fmt: skip


def _reference(store: Store, tokens: Manifest, model: Manifest) -> Manifest:
    def build(work: Workspace) -> dict[str, int]:
        scored = slow_logps(model.path("model"), tokens.path("held_out"))
        scored = scored.select("pair_id", ref_chosen_logps="chosen_logps", ref_rejected_logps="rejected_logps")
        scored.write_parquet(work.folder / "held_out.parquet")
        return {"scored": scored.height}

    return store.stage("reference", 1, {}, {"tokenize": tokens, "model": model}, build)


def slow_logps(model: Path, rows: Path) -> pl.DataFrame:
    """Summed log-probs of both answers of every token row, one sequence at a time by transformers."""
    import torch
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def summed(prompt: list[int], answer: list[int]) -> float:
        with torch.inference_mode():
            logits = policy(torch.tensor([prompt + answer])).logits[0, :-1].double()
        picked = logits.log_softmax(-1)[torch.arange(len(logits)), torch.tensor((prompt + answer)[1:])]
        return float(picked[len(prompt) - 1 :].sum())

    found = [
        {"pair_id": row["pair_id"], "chosen_logps": summed(row["prompt_ids"], row["chosen_ids"]),
         "rejected_logps": summed(row["prompt_ids"], row["rejected_ids"]),
         "chosen_tokens": len(row["chosen_ids"]), "rejected_tokens": len(row["rejected_ids"])}
        for row in load_from_disk(str(rows))
    ]  # fmt: skip
    schema = {"pair_id": pl.String, "chosen_logps": pl.Float64, "rejected_logps": pl.Float64,
              "chosen_tokens": pl.Int64, "rejected_tokens": pl.Int64}  # fmt: skip
    return pl.DataFrame(found, schema=schema)


def _train(store: Store, tokens: Manifest, model: Manifest, learn: float) -> Manifest:
    """A model whose weights are the start's with noise of the size `learn`, and made-up metrics of four steps."""

    def build(work: Workspace) -> dict[str, int]:
        import shutil

        import torch
        from safetensors.torch import load_file, save_file

        shutil.copytree(model.path("model"), work.folder / "model")
        weights = load_file(model.path("model") / "model.safetensors")
        generator = torch.Generator().manual_seed(1)
        moved = {name: value + learn * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
        (work.folder / "model" / "model.safetensors").unlink()
        save_file(moved, work.folder / "model" / "model.safetensors", metadata={"format": "pt"})
        lines = [
            {"step": step, "epoch": step / 4, "loss": 0.7 - 0.02 * step, "rewards/accuracies": 0.4 + 0.1 * step,
             "rewards/margins": 0.05 * step, "rewards/length_baseline_accuracy": 0.6, "learning_rate": 1e-4,
             "grad_norm": 1.0}
            for step in range(1, 5)
        ]  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (work.folder / "metrics.jsonl").write_text(text, encoding="utf-8")
        return {"steps": 4}

    return store.stage("train", 1, {"learn": learn}, {"tokenize": tokens, "model": model}, build)
