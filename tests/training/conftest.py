"""Small models with random weights, made on the spot."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 97


def write_tiny_llama(folder: Path, *, tied: bool = True, seed: int = 0) -> Path:
    """A 2-layer Llama with grouped heads, as safetensors and config.json, without a tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        # Large enough that a wrong mask or position shows in the log-probs.
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama whose head is its embedding, as SmolLM2's is."""
    return write_tiny_llama(tmp_path_factory.mktemp("tied"))


@pytest.fixture(scope="session")
def tiny_untied_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama with a head of its own, as Llama 2's is."""
    return write_tiny_llama(tmp_path_factory.mktemp("untied"), tied=False)
