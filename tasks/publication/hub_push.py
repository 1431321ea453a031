"""A published folder to a hub, in one commit: the model at the top, what tells where it came from beside it.

in   the folder of `publish`; the token from the environment variable HF_TOKEN, never from a file or an argument
out  a repository on the hub that HF_ENDPOINT names
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tasks.credentials import credential
from tasks.errors import InputError, RecipeError, Surroundings
from tasks.folders import damage
from tasks.manifest import Manifest

# What the card and the data card point to. The pairs' texts are not part of a model: they stay here.
BESIDE: Final = ("attribution.csv", "data_card.md", "lineage.json", "report.html", "train_pair_ids.txt", "plots")


def push(published: Manifest, repo: str, *, private: bool) -> dict[str, Any]:
    """Make `repo` (NAMESPACE/NAME) where it is not there, and commit the files. Gives repo, url, commit, files, bytes.

    Raises RecipeError for a name that is none, InputError where a file has changed since it was published, Surroundings
    where there is no token, where the hub refuses it, or where the hub cannot be reached.
    """
    token = credential("HF_TOKEN")
    if not token:
        raise Surroundings("HF_TOKEN is not set: pushing needs a token that may write, in the environment alone")
    fault = damage(published, verify=True)
    if fault is not None:
        raise InputError(f"{published.folder} {fault}: run the recipe again before it is pushed")
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.constants import ENDPOINT

    endpoint = os.environ.get("HF_ENDPOINT") or ENDPOINT
    hub = HfApi(endpoint=endpoint, token=token)
    files = files_to_push(published)
    with named_failures(endpoint, repo):
        made = hub.create_repo(repo, private=private, exist_ok=True)
        commit = hub.create_commit(
            made.repo_id,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()],
            commit_message=f"prefstack {published.stage}-{published.fingerprint}",
        )
    return {
        "repo": made.repo_id, "url": str(made), "commit": commit.oid, "files": sorted(files),
        "bytes": sum(path.stat().st_size for path in files.values()),
    }  # fmt: skip


def files_to_push(published: Manifest) -> dict[str, Path]:
    """Name in the repository to file: model/ at the top, BESIDE beside it."""
    found = {}
    for name in sorted(published.files):
        top, _, rest = name.partition("/")
        if top == "model":
            found[rest] = published.path(name)
        elif top in BESIDE:
            found[name] = published.path(name)
    return found


@contextmanager
def named_failures(endpoint: str, repo: str) -> Iterator[None]:
    """What the hub's client raises, as one sentence; the token is in none of them."""
    import httpx2  # what huggingface_hub asks with
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError as error:
        raise RecipeError(f"{repo!r} is no name of a repository: it must look like NAMESPACE/NAME") from error
    except OfflineModeIsEnabled as error:
        raise Surroundings(f"HF_HUB_OFFLINE is set: {endpoint} is not asked; unset it to push") from error
    except HfHubHTTPError as error:
        raise Surroundings(_refusal(error.response.status_code, endpoint, repo, str(error))) from error
    except (ValueError, RuntimeError) as error:
        # The card's metadata, an upload of a large file: the client has no types of its own for these.
        said = " ".join(f"{error} {error.__cause__ or ''}".split())[:300]
        raise Surroundings(f"the hub {endpoint} did not take {repo}: {said}") from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise Surroundings(f"the hub {endpoint} cannot be reached: {said}; push again when it can be") from error


def _refusal(status: int, endpoint: str, repo: str, said: str) -> str:
    if status == 401:
        return f"the hub {endpoint} does not accept the token in HF_TOKEN (401): make a new one that may write"
    if status == 403:
        return f"the token in HF_TOKEN may not write to {repo} on {endpoint} (403)"
    return f"the hub {endpoint} refused {repo} with status {status}: {' '.join(said.split())[:300]}"
