"""The files of a model, found in a folder or on a hub, checked, and brought into the store as safetensors.

Python code in a model's folder is never run, and weights in torch's format are read without unpickling objects.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tasks.errors import InputError, RecipeError, Surroundings, Transient
from tasks.tokens.tokenizer_files import write_json, write_tokenizer

_SAFE_INDEX: Final = "model.safetensors.index.json"
_TORCH_INDEX: Final = "pytorch_model.bin.index.json"
_TOKENIZER: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "merges.txt",
)  # fmt: skip
_VOCABULARIES: Final = {"tokenizer.json", "tokenizer.model", "vocab.json"}

Progress = Callable[[float, float | None, str], None]


def model_files(folder: Path) -> list[Path]:
    """The files of the model in `folder` that matter, by name. InputError when one that is needed is missing."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: it is not a model's folder")
    config = read_json(folder / "config.json")
    if "quantization_config" in config:
        raise InputError(f"{folder} holds quantized weights, which cannot be trained: take the model they were made of")
    if "model_type" not in config:
        raise InputError(f"{folder}/config.json names no model_type")
    tokenizer = [folder / name for name in _TOKENIZER if (folder / name).is_file()]
    if not _VOCABULARIES & {path.name for path in tokenizer}:
        raise InputError(f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json)")
    others = [folder / name for name in ("config.json", "generation_config.json") if (folder / name).is_file()]
    return sorted([*others, *tokenizer, *_weights(folder)])


def _weights(folder: Path) -> list[Path]:
    for index, single in ((_SAFE_INDEX, "model.safetensors"), (_TORCH_INDEX, "pytorch_model.bin")):
        if (folder / index).is_file():
            mapped = read_json(folder / index).get("weight_map")
            if not isinstance(mapped, dict) or not all(isinstance(name, str) for name in mapped.values()):
                raise InputError(f"{folder / index} has no weight_map")
            shards = [folder / name for name in sorted(set(mapped.values()))]
            lost = [shard.name for shard in shards if shard.parent != folder or not shard.is_file()]
            if lost:
                raise InputError(f"{folder} lacks {', '.join(lost)}, which {index} names")
            return [folder / index, *shards]
        if (folder / single).is_file():
            return [folder / single]
    if (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder} holds an adapter, not a whole model: merge it into its model first")
    raise InputError(f"{folder} has no weights (model.safetensors or pytorch_model.bin, or their index)")


def bring(files: Sequence[Path], target: Path, *, link: bool, progress: Progress) -> dict[str, int]:
    """Put the model that `files` (of one folder) make up into `target`, and count its parameters.

    `link` makes hard links where it can: for files that nobody changes in place. Weights keep their values and their
    precision; torch's format becomes safetensors. The tokenizer is written anew with the Tulu chat template.
    """
    folder = files[0].parent
    size = sum(path.stat().st_size for path in files)
    done = parameters = 0
    for path in files:
        if path.suffix == ".bin":
            _to_safetensors(path, target / _safe_name(path.name))
            parameters += count_parameters(target / _safe_name(path.name))
        elif path.name == _TORCH_INDEX:
            index = read_json(path)
            index["weight_map"] = {name: _safe_name(shard) for name, shard in index["weight_map"].items()}
            write_json(target / _SAFE_INDEX, index)
        elif path.name not in _TOKENIZER:
            _copy(path, target / path.name, link=link)
            if path.suffix == ".safetensors":
                parameters += count_parameters(target / path.name)
        done += path.stat().st_size
        progress(done, size, "bytes")
    _bring_tokenizer(folder, target)
    return {"parameters": parameters}


def _safe_name(name: str) -> str:
    return name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"


def _copy(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copyfile(source, target)


def _to_safetensors(source: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    try:
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises whatever its parsers do
        raise InputError(f"{source} cannot be read as weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{source} holds something else than weights by name")
    # A tensor that shares its memory with another (tied embeddings) is written once for each name.
    save_file({name: value.clone().contiguous() for name, value in state.items()}, target, metadata={"format": "pt"})


def count_parameters(path: Path) -> int:
    """How many numbers the safetensors file `path` holds. InputError when it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name} is damaged: {error}") from error
    count = 0
    for shape in shapes:
        each = 1
        for length in shape:
            each *= length
        count += each
    return count


def _bring_tokenizer(folder: Path, target: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # tokenizer.json is taken as it stands; without one transformers makes it from what there is.
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
        backend = tokenizer.backend_tokenizer
    except Exception as error:  # each format has a parser and errors of its own
        raise InputError(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    settings: dict[str, Any] = {
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
        "unk_token": tokenizer.unk_token,
    }
    if tokenizer.model_max_length < 1e9:  # beyond that it is transformers' way to say unknown
        settings["model_max_length"] = tokenizer.model_max_length
    write_tokenizer(backend, settings, target, str(folder))


def download(repo: str, revision: str) -> Path:
    """The files of a hub model in the hub's own cache, fetched where they are not there yet.

    Raises RecipeError when there is no such model or revision, Surroundings when the hub does not answer, Transient
    when the connection broke.
    """
    import httpx2
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    small = ["*.json", "tokenizer.model", "merges.txt", "README.md"]
    try:
        for weights in ("*.safetensors", "*.bin"):
            found = Path(
                snapshot_download(
                    repo, revision=revision, allow_patterns=[*small, weights], ignore_patterns=["*/*", "consolidated*"]
                )
            )
            if any(found.glob(weights)):
                break
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise RecipeError(
            f"model: the hub has no {repo} at revision {revision}, or shows it only to those who log in: "
            f"{_first_line(error)}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise Surroundings(f"model: the hub cannot be reached for {repo}: {_first_line(error)}") from error
    except (httpx2.HTTPError, errors.FileMetadataError, ConnectionError, TimeoutError) as error:
        raise Transient(f"model: fetching {repo} broke off: {_first_line(error)}") from error
    return found


def stated_license(folder: Path) -> str | None:
    """The licence that the card (README.md) of the model in `folder` states; None where it states none."""
    from huggingface_hub import metadata_load

    try:
        stated = (metadata_load(folder / "README.md") or {}).get("license")
    except (OSError, ValueError, AttributeError, yaml.YAMLError):  # none there, or none that can be read
        return None
    return stated if isinstance(stated, str) and stated.strip() else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. InputError when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object")
    return value
