"""Llamas of a given shape with random weights: speed and memory depend on the shape alone."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.shape import ModelShape


def write_random_model(folder: Path, shape: ModelShape, precision: str) -> Path:
    """Weights and config of a Llama of `shape` in `folder`, stored in `precision`."""
    config = LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.mlp, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads, head_dim=shape.head_size,
        vocab_size=shape.vocabulary, tie_word_embeddings=shape.tied, max_position_embeddings=4096,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(config.dtype)
    try:
        LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    return folder
