"""Paths as a recipe gives them: made absolute, and refused where reading them could wait or fill the memory for ever.

in   a path from a recipe: anything that somebody typed
out  an absolute path, or InputError with one sentence
"""

import os
import re
import stat
from pathlib import Path
from typing import Final

from tasks.errors import InputError

_NO_TEXT: Final = re.compile(r"[\x00-\x1f\ud800-\udfff]")  # a surrogate is a byte that is no UTF-8


def absolute_path(given: str) -> Path:
    """`given` with ~ as the home folder. InputError where that is no path."""
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:  # a ~NAME that nobody has
        raise InputError(f"{given!r} is no path: {error}") from error
    if "\0" in given:
        raise InputError(f"{given!r} is no path: embedded null byte")
    return Path(os.path.abspath(path))


def refuse_endless(path: Path, key: str = "") -> None:
    """InputError where `path` is no regular file with something in it; the message begins with `key`.

    It is not opened: who opens a pipe waits, and so does who reads some files of the system, which have no size.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{key}{path} cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{key}{path} is not a regular file")
    if found.st_size == 0:
        raise InputError(f"{key}{path} is empty")


def refuse_unreadable_name(name: str, folder: Path) -> None:
    """InputError where the name of a file in `folder` could not stand in places, manifests and messages."""
    if _NO_TEXT.search(name):
        raise InputError(f"{folder} holds a file whose name is not a line of UTF-8: {name!r}; rename it")
