"""Tokenize's and model's manifests for a tiny Llama, as the stages before would have made them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.manifest import Manifest
from tasks.store import Store, Workspace

TokensOf = Callable[..., Manifest]
ModelOf = Callable[[Store, int], Manifest]


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads a rank would wait for each other where others use the cores too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "work")


@pytest.fixture(scope="session")
def tokens_of() -> TokensOf:
    """A tokenize stage with so many train and held-out pairs, so many a question; a smaller one is the beginning of a
    larger."""

    def write(folder: Path, prefix: str, pairs: int, seed: int, of_question: int) -> None:
        draw = np.random.default_rng(seed)

        def ids(low: int, high: int) -> list[int]:
            return [int(token) for token in draw.integers(3, 97, draw.integers(low, high))]

        rows = [
            {"pair_id": f"{prefix}/{n}", "prompt_ids": ids(2, 20), "chosen_ids": ids(1, 30), "rejected_ids": ids(1, 30)}
            for n in range(pairs)
        ]
        # Pairs of one question: its prompt, and the chosen answer of one is the rejected one of the next.
        for n, row in enumerate(rows):
            if n % of_question:
                row |= {"prompt_ids": rows[n - 1]["prompt_ids"], "rejected_ids": rows[n - 1]["chosen_ids"]}
        Dataset.from_list(rows).save_to_disk(str(folder))

    def make(store: Store, train: int, held_out: int, of_question: int = 1) -> Manifest:
        def build(work: Workspace) -> dict[str, int]:
            write(work.folder / "train", "train", train, 1, of_question)
            if held_out:
                write(work.folder / "held_out", "held", held_out, 2, of_question)
            return {"train": train, "held_out": held_out}

        return store.stage("tokenize", 1, {"train": train, "held_out": held_out, "of": of_question}, {}, build)

    return make


@pytest.fixture(scope="session")
def model_of() -> ModelOf:
    """A model stage: two layers of random weights, and what lies beside weights."""

    def make(store: Store, seed: int) -> Manifest:
        def build(work: Workspace) -> dict[str, int]:
            torch.manual_seed(seed)
            config = LlamaConfig(
                vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6,
                num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
            )  # fmt: skip
            LlamaForCausalLM(config).save_pretrained(work.folder / "model")
            (work.folder / "model" / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
            return {}

        return store.stage("model", 1, {"seed": seed}, {}, build)

    return make
