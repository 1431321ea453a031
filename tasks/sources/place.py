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
from tasks.given_paths import refuse_endless, refuse_unreadable_name
from tasks.pairs import is_host

SEVEN_ZIP: Final = b"7z\xbc\xaf\x27\x1c"
_OTHER_TABLES: Final = frozenset({"Badges", "Comments", "PostHistory", "PostLinks", "Tags", "Users", "Votes"})


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


def dumps_at(given: str) -> list[str]:
    """The dumps that the path of a source means: of a folder of archives each that holds posts, else the path itself.

    InputError where a folder has neither Posts.xml nor archives; what else is wrong with the path, `locate` says.
    """
    try:
        path = Path(given).expanduser()
        if not path.is_dir() or _named(path, "Posts.xml"):
            return [given]
        archives = sorted(str(entry) for entry in path.rglob("*") if _is_archive_of_posts(entry))
    except (OSError, ValueError, RuntimeError):
        return [given]
    if not archives:
        raise InputError(f"{path} is a folder without Posts.xml and without .7z archives: name a dump")
    for archive in archives:
        refuse_unreadable_name(archive, path)
    return archives


def _is_archive_of_posts(path: Path) -> bool:
    """Not those of other tables, where a site comes as an archive a table, nor what macOS leaves beside a file."""
    table = path.stem.rpartition("-")[2] if "-" in path.stem else ""
    if path.suffix.lower() != ".7z" or table in _OTHER_TABLES or path.name.startswith("._"):
        return False
    return path.is_file()


def locate(given: str, site: str | None) -> Dump:
    """The dump at `given`. InputError where there is none; RecipeError where nothing tells the site."""
    try:
        path = Path(os.path.abspath(Path(given).expanduser()))
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            posts = _only(path, "Posts.xml")
            refuse_endless(posts)
            return Dump(path, _site(site, path, [path.name]), False, posts, _beside(posts))
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is neither a regular file nor a folder")
        refuse_endless(path)
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
        refuse_endless(users)
    return found[0] if len(found) == 1 and found[0] != posts else None


def _named(folder: Path, name: str) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.name.lower() == name.lower() and entry.is_file())
