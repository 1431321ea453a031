"""Where a dump lies, and which site it is of.

in   the `path` and `site` of a source: a .7z archive, a folder that holds Posts.xml, or a Posts.xml
out  the files to read, and the host name of the site
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.errors import InputError, RecipeError
from tasks.pairs import is_host

SEVEN_ZIP: Final = b"7z\xbc\xaf\x27\x1c"


@dataclass(frozen=True)
class Dump:
    """The files of one site's dump."""

    path: Path
    """What the recipe named, made absolute."""
    site: str
    archive: bool
    """Whether `posts` (and `users`, where there is one) is a .7z rather than XML."""
    posts: Path
    users: Path | None
    """Users.xml beside a Posts.xml, or SITE-Users.7z beside SITE-Posts.7z; one archive has both in `posts`."""


def locate(given: str, site: str | None) -> Dump:
    """The dump at `given`. InputError where there is none; RecipeError where nothing tells the site."""
    try:
        path = Path(os.path.abspath(Path(given).expanduser()))
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            posts = _only(path, "Posts.xml")
            _refuse_empty(posts)
            return Dump(path, _site(site, path, [path.name]), False, posts, _beside(posts))
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is neither a regular file nor a folder")
        _refuse_empty(path)
        with open(path, "rb") as handle:
            archive = handle.read(len(SEVEN_ZIP)) == SEVEN_ZIP
        if not archive and path.suffix.lower() != ".7z":
            return Dump(path, _site(site, path, [path.parent.name]), False, path, _beside(path))
    except OSError as error:
        raise InputError(f"{given} cannot be read: {error.strerror or error}") from error
    except (ValueError, RuntimeError) as error:  # a NUL in the path, a ~NAME that nobody has
        raise InputError(f"{given!r} is no path: {error}") from error
    # A .7z without the signature goes this way too: unpacking says what is wrong with it.
    stem = path.stem if path.suffix.lower() == ".7z" else path.name
    name = stem.removesuffix("-Posts")
    users = path.with_name(f"{name}-Users{path.suffix}")
    split = name != stem and users.is_file()  # Stack Overflow alone comes as one archive a table
    return Dump(path, _site(site, path, [name, path.parent.name]), True, path, users if split else None)


def _refuse_empty(path: Path) -> None:
    """Before it is read: some files of the system have no size, and who reads them waits for ever."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")


def _site(given: str | None, path: Path, names: list[str]) -> str:
    if given is not None:
        if not is_host(given):
            raise RecipeError(f"site: {given!r} is not a host name such as beer.stackexchange.com")
        return given.lower()
    for name in names:
        if is_host(name):
            return name.lower()
    raise RecipeError(
        f"ingest.sources: neither archive nor folder tells which site {path} is of; "
        "write {path: ..., site: beer.stackexchange.com}"
    )


def _only(folder: Path, name: str) -> Path:
    """The file `name` in `folder`, in whatever case (some dumps have lower-case names)."""
    found = _named(folder, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{folder} holds {len(found)} files called {name} but for the case: which one is meant?")
    archives = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() == ".7z")
    hint = f"; it holds {archives[0]}: give the path of that" if archives else ""
    raise InputError(f"{folder} holds no {name}{hint}")


def _beside(posts: Path) -> Path | None:
    found = _named(posts.parent, "Users.xml")
    for users in found:
        _refuse_empty(users)
    return found[0] if len(found) == 1 and found[0] != posts else None


def _named(folder: Path, name: str) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.name.lower() == name.lower() and entry.is_file())
