"""Takedown: the posts, users and pairs that a recipe leaves out, by their ids (`pair.exclude`).

in   a list of ids, or a text file with one id a line; what follows a # and empty lines say nothing
out  Excluded: per site the posts and users, and the pairs of sources without ids

    SITE/q/ID SITE/a/ID SITE/ID   a post and every pair that it is in; a question takes all its pairs with it
    SITE/users/ID                 a user: every pair in which question or answer is theirs
    SOURCE/HEX                    one pair of a source without ids: its pair_id, sixteen hexadecimal digits

Posts and users are written as in the columns `url` and `author_url` of attribution.csv, with https:// or without. A
site counts its posts in one row of numbers, so the letter of a post is for the reader: SITE/q/5 and SITE/a/5 are one.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, reduce
from operator import or_
from pathlib import Path
from typing import Final

import polars as pl

from tasks.errors import InputError
from tasks.given_paths import absolute_path, refuse_endless
from tasks.manifest import digest_json
from tasks.pairs import is_host

_ADDRESS: Final = re.compile(r"(?:https?://)?([^/\s]+)/(?:(q|a|users)/)?([0-9]{1,18})", re.IGNORECASE)
_PAIR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[0-9a-f]{16}")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_SLICE: Final = 1_000_000  # pairs whose names are held at once
_FORMS: Final = "SITE/q/ID, SITE/a/ID, SITE/ID, SITE/users/ID or, of a source without ids, SOURCE/HEX"


@dataclass
class Excluded:
    """What is left out, and which of it was met. Names are in the form SITE/ID, SITE/users/ID and SOURCE/HEX."""

    names: frozenset[str] = frozenset()
    met: set[str] = field(default_factory=set)
    """Of `names`, those that the sources have."""

    @cached_property
    def _of_sites(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """Numbers of posts and of users, by site."""
        posts: defaultdict[str, list[int]] = defaultdict(list)
        users: defaultdict[str, list[int]] = defaultdict(list)
        for name in sorted(self.names):
            if _PAIR.fullmatch(name):
                continue
            site, *kind, number = name.split("/")
            (users if kind else posts)[site].append(int(number))
        return dict(posts), dict(users)

    @cached_property
    def _listed(self) -> pl.Series:
        return pl.Series(sorted(self.names), dtype=pl.String).implode()

    @property
    def digest(self) -> str | None:
        """What stands in a fingerprint: of the ids, in whatever order and wherever they were written; null = none."""
        return digest_json(sorted(self.names)) if self.names else None

    @property
    def unmet(self) -> list[str]:
        """The names that nothing in the sources bears, in order."""
        return sorted(self.names - self.met)

    def of_site(self, site: str) -> bool:
        """Whether a post or a user of `site` is left out."""
        return any(site in numbers for numbers in self._of_sites)

    def post(self, site: str, post_id: str, owner_id: str) -> pl.Expr:
        """Whether a post of `site` with its id and its owner's in these columns is left out; never null."""
        posts, users = self._of_sites
        return _among(post_id, posts.get(site, ())) | _among(owner_id, users.get(site, ()))

    def meet(self, site: str, posts: pl.LazyFrame) -> None:
        """Note which names of `site` there are among `posts` (`id`, `owner_id`)."""
        if not self.of_site(site):
            return
        found = posts.filter(self.post(site, "id", "owner_id")).select("id", "owner_id").collect()
        self.met |= {f"{site}/{number}" for number in found["id"]} & self.names
        self.met |= {f"{site}/users/{number}" for number in found["owner_id"].drop_nulls()} & self.names

    def of_pairs(self, pairs: pl.DataFrame) -> pl.Series:
        """Which of `pairs` (PAIR_KEYS) are left out by name, posts or authors, as far as their source tells these.

        What is met is noted.
        """
        hits = [pl.Series(dtype=pl.Boolean)]
        for part in pairs.iter_slices(_SLICE):
            names = [part["pair_id"]]
            for form, columns in (("{}/{}", _POSTS), ("{}/users/{}", _USERS)):
                names += [part.select(name=pl.format(form, "site", column))["name"] for column in columns]
            met = [name.is_in(self._listed).fill_null(value=False) for name in names]
            self.met |= {name for series, hit in zip(names, met, strict=True) for name in series.filter(hit)}
            hits.append(reduce(or_, met))
        return pl.concat(hits)


_POSTS: Final = ("question_id", "chosen_id", "rejected_id")
_USERS: Final = ("question_author_id", "chosen_author_id", "rejected_author_id")
PAIR_KEYS: Final = ("pair_id", "site", *_POSTS, *_USERS)


def read_excluded(given: Sequence[str] | str) -> Excluded:
    """The ids in a list, or in the file at the path `given`.

    ValueError for one in the list that is none; InputError where the file cannot be read or has such a line.
    """
    if not isinstance(given, str):
        return Excluded(frozenset(map(excluded_name, given)))
    path = absolute_path(given)
    refuse_endless(path, "pair.exclude: ")
    facts = path.stat()
    return Excluded(_names_in(path, (facts.st_size, facts.st_mtime_ns, facts.st_ino)))


@lru_cache(maxsize=2)
def _names_in(path: Path, _facts: tuple[int, ...]) -> frozenset[str]:
    """The ids in a file; a long one, which takes seconds, is read once and not wherever a run asks for it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"pair.exclude: {path} cannot be read: {said}") from error
    names = set()
    for number, line in enumerate(lines, start=1):
        text = _COMMENT.sub("", line).strip()
        if not text:
            continue
        try:
            names.add(excluded_name(text))
        except ValueError as error:
            raise InputError(f"pair.exclude: {path}, line {number}: {error}") from error
    return frozenset(names)


def excluded_name(text: str) -> str:
    """The id `text` as SITE/ID, SITE/users/ID or SOURCE/HEX; ValueError where it is none."""
    if _PAIR.fullmatch(text):
        return text
    found = _ADDRESS.fullmatch(text)
    if found is None or not is_host(found[1]):
        raise ValueError(f"{text[:80]!r} is not {_FORMS}")
    users = "users/" if (found[2] or "").lower() == "users" else ""
    return f"{found[1].lower()}/{users}{int(found[3])}"


def _among(column: str, numbers: Sequence[int]) -> pl.Expr:
    if not numbers:
        return pl.lit(value=False)
    return pl.col(column).is_in(list(numbers)).fill_null(value=False)
