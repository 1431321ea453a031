"""A Llama model in a GGUF file -> the files that transformers loads: fp32 safetensors, config, tokenizer.

transformers can read the same file (`gguf_file=`), in four times the time and with a tokenizer that forgets the first
of SmolLM2's two pre-tokenizers: digits one by one, then GPT-2's pattern. The weights are the same, bit for bit.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.errors import InputError
from tasks.tokens.tokenizer_files import write_json, write_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9

_F32: Final = 0
_CONTROL: Final = 3  # tokenizer.ggml.token_type of a special token

# A block of 32 weights: Q4_1 has scale, minimum and sixteen bytes of two weights; Q8_0 has scale and 32 weights.
_BLOCK: Final = 32
_Q4_1: Final = 3
_Q8_0: Final = 8
_BLOCKS: Final = {
    _Q4_1: np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("packed", "u1", 16)]),
    _Q8_0: np.dtype([("scale", "<f2"), ("weights", "i1", 32)]),
}

# GGUF's name of a tensor within a layer -> transformers' name.
_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]  # rows first, as transformers has them
    kind: int
    offset: int  # from the start of the file


@dataclass(frozen=True)
class Gguf:
    """What the head of a GGUF file says, and where its tensors lie."""

    raw: mmap.mmap
    values: Mapping[str, Any]
    tensors: Mapping[str, _Tensor]


def read_gguf(path: Path) -> Gguf:
    """The head of the GGUF file at `path`. InputError when it is not one."""
    try:
        with open(path, "rb") as handle:
            raw = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return _head(raw)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise InputError(f"{path} is not a GGUF file that can be read: {error}") from error


def _head(raw: mmap.mmap) -> Gguf:
    at = 4

    def number(form: str) -> Any:
        nonlocal at
        (found,) = struct.unpack_from(f"<{form}", raw, at)
        at += struct.calcsize(f"<{form}")
        return found

    def text() -> str:
        nonlocal at
        size = number("Q")
        at += size
        return raw[at - size : at].decode("utf-8")

    def value(kind: int) -> Any:
        if kind == _STRING:
            return text()
        if kind == _ARRAY:
            of, size = number("I"), number("Q")
            return [value(of) for _ in range(size)]
        return number(_SCALARS[kind])

    if raw[:4] != b"GGUF" or number("I") not in (2, 3):
        raise ValueError("it does not begin with GGUF, version 2 or 3")
    tensor_count, value_count = number("Q"), number("Q")
    values = {}
    for _ in range(value_count):
        key = text()
        values[key] = value(number("I"))
    heads = []
    for _ in range(tensor_count):
        name = text()
        shape = tuple(number("Q") for _ in range(number("I")))[::-1]
        heads.append((name, shape, number("I"), number("Q")))
    align = values.get("general.alignment", 32)
    start = -(-at // align) * align
    return Gguf(raw, values, {name: _Tensor(shape, kind, start + offset) for name, shape, kind, offset in heads})


def weights(gguf: Gguf, name: str) -> NDArray[np.float32]:
    """The tensor `name`, dequantized to fp32."""
    tensor = gguf.tensors[name]
    count = int(np.prod(tensor.shape))
    if tensor.kind == _F32:
        return np.frombuffer(gguf.raw, "<f4", count, tensor.offset).reshape(tensor.shape)
    if tensor.kind not in _BLOCKS:
        raise InputError(f"tensor {name} has GGUF type {tensor.kind}; F32, Q4_1 and Q8_0 can be read")
    blocks = np.frombuffer(gguf.raw, _BLOCKS[tensor.kind], count // _BLOCK, tensor.offset)
    scale = blocks["scale"].astype(np.float32)[:, None]
    if tensor.kind == _Q8_0:
        return (blocks["weights"].astype(np.float32) * scale).reshape(tensor.shape)
    packed = blocks["packed"]  # low halves are the block's first sixteen weights, high halves the others
    quanta = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)
    return (quanta * scale + blocks["minimum"].astype(np.float32)[:, None]).reshape(tensor.shape)


def state_dict(gguf: Gguf) -> dict[str, NDArray[np.float32]]:
    """Every tensor in fp32 under transformers' name."""
    state = {}
    for name in gguf.tensors:
        found = weights(gguf, name)
        if name.startswith("blk."):
            _, layer, part, _ = name.split(".")
            if part in ("attn_q", "attn_k"):
                heads = gguf.values["llama.attention.head_count" + ("_kv" if part == "attn_k" else "")]
                # llama.cpp interleaves the two halves of each head's rotary dimensions; transformers does not.
                found = found.reshape(heads, -1, 2, found.shape[-1]).swapaxes(1, 2).reshape(found.shape)
            state[f"model.layers.{layer}.{_LAYER[part]}.weight"] = np.ascontiguousarray(found)
        else:
            state[f"{_OUTER[name.removesuffix('.weight')]}.weight"] = found
    return state


def model_config(gguf: Gguf) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM."""
    values = gguf.values
    if values["general.architecture"] != "llama":
        raise InputError(f"the GGUF file holds a {values['general.architecture']} model; only llama can be read")
    heads = values["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(values["tokenizer.ggml.tokens"]),
        "hidden_size": values["llama.embedding_length"],
        "intermediate_size": values["llama.feed_forward_length"],
        "num_hidden_layers": values["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": values["llama.attention.head_count_kv"],
        "head_dim": values["llama.embedding_length"] // heads,
        "hidden_act": "silu",
        "max_position_embeddings": values["llama.context_length"],
        "rms_norm_eps": float(np.format_float_scientific(np.float32(values["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": values["llama.rope.freq_base"],
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "bos_token_id": values["tokenizer.ggml.bos_token_id"],
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
        "pad_token_id": values["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
    }


def tokenizer_of(gguf: Gguf) -> "tuple[Tokenizer, dict[str, Any]]":
    """The byte-level BPE, splitting as SmolLM2 does (digits one by one first), and its special tokens by role."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    values = gguf.values
    kind = (values["tokenizer.ggml.model"], values["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        raise InputError(f"the GGUF file has a tokenizer {kind[0]}/{kind[1]}; only gpt2/smollm can be read")
    tokens: list[str] = values["tokenizer.ggml.tokens"]
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in values["tokenizer.ggml.merges"])]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = values["tokenizer.ggml.token_type"]
    special = [token for token, of in zip(tokens, types, strict=True) if of == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    named = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    roles = {role: tokens[values[f"tokenizer.ggml.{key}_token_id"]] for role, key in named.items()}
    return tokenizer, roles | {"model_max_length": values["llama.context_length"]}


def convert(path: Path, folder: Path) -> None:
    """Write model.safetensors, config.json, generation_config.json and the tokenizer of `path` into `folder`."""
    from safetensors.numpy import save_file

    gguf = read_gguf(path)
    config = model_config(gguf)
    save_file(state_dict(gguf), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json", {key: value for key, value in config.items() if key.endswith("_token_id")}
    )
    tokenizer, settings = tokenizer_of(gguf)
    write_tokenizer(tokenizer, settings, folder, path.name)
