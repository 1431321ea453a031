"""AlpacaEval's instruction set and the answers that it compares to: a file of the hub's data set, or one of ours.

in   a JSON list of {"instruction", "output", "generator"}, as the tool `alpaca_eval` has them
out  the same, checked: the tool merges by instruction, so each must stand there once
"""

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from tasks.errors import InputError, RecipeError, Surroundings, Transient

REPO: Final = "tatsu-lab/alpaca_eval"
FILE: Final = "alpaca_eval_gpt4_baseline.json"  # AlpacaEval 2: 805 instructions, answered by gpt4_1106_preview
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_KEY: Final = "evaluate.benchmarks.alpaca_eval"


def refuse_unpinned(revision: str | None) -> str:
    """The commit of the hub's data set; RecipeError where the recipe names none: a branch moves."""
    if revision is None or not _COMMIT.fullmatch(revision):
        raise RecipeError(
            f"{_KEY}: give reference_outputs, a JSON file of instructions and the answers to compare to, or as "
            f"revision the 40 hex digits of a commit of the hub's data set {REPO}"
        )
    return revision


def hub_reference(revision: str) -> Path:
    """The hub's instructions with the answers to compare to, in the hub's own cache.

    Raises RecipeError where the hub has no such file, Surroundings where it does not answer, Transient where the
    connection broke.
    """
    import httpx2
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    where = f"{REPO} at {revision[:12]}"
    try:
        # Told outright, since the library reads the variable when it is imported.
        endpoint = os.environ.get("HF_ENDPOINT")
        return Path(hf_hub_download(REPO, FILE, repo_type="dataset", revision=revision, endpoint=endpoint))
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise Surroundings(
            f"{_KEY}: the hub cannot be reached for {where}: {_first_line(error)}; reference_outputs takes a file"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise RecipeError(f"{_KEY}: the hub has no {FILE} in {where}: {_first_line(error)}") from error
    except (httpx2.HTTPError, errors.HfHubHTTPError, errors.FileMetadataError, ConnectionError) as error:
        raise Transient(f"{_KEY}: fetching {FILE} of {where} broke off: {_first_line(error)}") from error


def read_instructions(path: Path, *keys: str) -> list[dict[str, Any]]:
    """The entries of `path`, which have `instruction` and `keys` as texts; InputError that names the entry."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{_KEY}: {path} cannot be read as JSON: {error}") from error
    if not isinstance(found, list) or not found:
        raise InputError(f"{_KEY}: {path} is no JSON list of objects with an instruction each")
    seen: dict[str, int] = {}
    for number, one in enumerate(found, 1):
        for key in ("instruction", *keys):
            if not isinstance(one, dict) or not isinstance(one.get(key), str):
                raise InputError(f"{_KEY}: entry {number} of {path} has no text as {key!r}")
        before = seen.setdefault(one["instruction"], number)
        if before != number:
            raise InputError(
                f"{_KEY}: entries {before} and {number} of {path} have the same instruction; leave one out, since "
                "alpaca_eval would compare each with both"
            )
    return found


def refuse_without_reference(asked: list[dict[str, Any]], reference: list[dict[str, Any]], path: Path) -> None:
    """InputError where an instruction has no answer to compare to: the tool would leave it out without a word."""
    answered = {one["instruction"] for one in reference}
    for number, one in enumerate(asked, 1):
        if one["instruction"] not in answered:
            raise InputError(f"{_KEY}: instruction {number} has no answer to compare to in {path}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
