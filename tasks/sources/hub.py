"""A data set on a hub, at one commit, read as a stream: nothing is downloaded that is not read.

in   id (`org/name`), commit, and a pattern of the files to read
out  rows in the order of the files, each with its place

A branch or a tag moves, and what was read under its name yesterday cannot be read again; so only a commit is taken.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from tasks.errors import InputError, PrefstackError, RecipeError, Surroundings
from tasks.manifest import digest_json
from tasks.sources.data_files import SUFFIXES
from tasks.sources.json_rows import Row

if TYPE_CHECKING:
    from datasets import IterableDataset

_BATCH: Final = 500  # rows decoded at a time
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def is_hub_id(given: str) -> bool:
    """Whether a path that is no file here may be the id of a data set."""
    return _ID.fullmatch(given) is not None and not given.lower().endswith((*SUFFIXES, ".7z", ".xml", ".gz"))


def pinned(given: str, revision: str | None) -> str:
    """The commit to read; RecipeError where the recipe names none."""
    if revision is None:
        raise RecipeError(
            f"ingest.sources: {given} is no file or folder here; to read it from the hub, pin it: "
            f"{{path: {given}, revision: <the 40 hex digits of a commit>}}"
        )
    if not _COMMIT.fullmatch(revision):
        raise RecipeError(
            f"ingest.sources: revision {revision!r} of {given} is not a commit; a branch or a tag moves, so give the "
            "40 hex digits"
        )
    return revision


def hub_digest(given: str, revision: str, files: str | None) -> str:
    """What stands for the bytes of the data set: a commit names them, and the pattern which of them are read."""
    return digest_json({"hub": given, "revision": revision, "files": files})


def hub_rows(given: str, revision: str, files: str | None) -> Iterator[Row]:
    """All rows of the files that match `files` (None: of every split, in the order of their names).

    Surroundings where the hub cannot be reached, InputError where it has no such data or they cannot be read.
    """
    number = 0
    try:
        for name, split in _splits(given, revision, files):
            for table in split.with_format("arrow").iter(_BATCH):
                for values in table.to_pylist():
                    number += 1
                    yield Row(f"{name}row {number}", values)
            if name:
                number = 0
    except Exception as error:
        if isinstance(error, PrefstackError | RecursionError) or _own_disk(error):
            raise
        raise _explained(error, f"{given} at {revision[:12]}", number) from error


def _splits(given: str, revision: str, files: str | None) -> "list[tuple[str, IterableDataset]]":
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    if files is not None:
        return [("", load_dataset(given, data_files=files, revision=revision, split="train", streaming=True))]
    found = load_dataset(given, revision=revision, streaming=True)
    return [(f"{name} ", found[name]) for name in sorted(found)]


def _own_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)


def _explained(error: Exception, what: str, number: int) -> PrefstackError:
    """The error by whose move is next, told from all that led to it: the libraries wrap each other's."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    said = " ".join(str(error).split())[:300] or type(error).__name__
    for cause in _chain(error):
        status: Any = cause.response.status_code if isinstance(cause, HfHubHTTPError) and cause.response else 0
        unreachable = isinstance(cause, httpx.TransportError | ConnectionError | TimeoutError)
        if unreachable or status in (408, 429) or status >= 500:
            return Surroundings(f"the hub cannot be reached for {what}: {said}; run again when it can")
    if number:
        return InputError(f"{what} cannot be read after row {number}: {said}")
    return InputError(f"{what} cannot be read: {said}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__
