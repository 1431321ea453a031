"""Paths that a recipe gives: what no file of data could be is refused before it is opened."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.digests import remembered_sha256
from tasks.errors import InputError
from tasks.pairing.excluded import read_excluded
from tasks.sources.data_files import find_files
from tasks.sources.place import dumps_at, locate

LISTS: dict[str, Callable[[str], object]] = {"rows": find_files, "pair.exclude": read_excluded}


@pytest.mark.parametrize("read", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("given", ["~nobody-has-this-name/rows.jsonl", "a\0b", "/dev/zero", "/proc/kmsg"])
def test_what_is_no_file_that_ends_is_refused_unread(given: str, read: Callable[[str], object]) -> None:
    # /proc/kmsg is a regular file of no size: who reads it waits for the kernel's next message.
    with pytest.raises(InputError):
        read(given)


def test_a_pipe_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "takedown.txt")
    with pytest.raises(InputError, match=r"^pair\.exclude: .*txt is not a regular file"):
        read_excluded(str(tmp_path / "takedown.txt"))


@pytest.mark.parametrize("name", [b"/\xff.jsonl", b"/a\nb.jsonl"])
def test_a_name_that_is_no_line_of_text_is_refused_where_places_would_tell_it(name: bytes, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + name))
    path.write_text("{}")
    with pytest.raises(InputError, match="not a line of UTF-8"):
        find_files(str(tmp_path))
    assert remembered_sha256(path, tmp_path / "work").startswith("44136fa355b3678a")  # of {}


@pytest.mark.parametrize("given", ["a" * 5_000, "~nobody-has-this-name/x", "a\0b", "nowhere.7z"])
def test_a_path_that_is_no_folder_is_left_to_be_refused_by_name(given: str) -> None:
    assert dumps_at(given) == [given]
    with pytest.raises(InputError):
        locate(given, None)


def test_a_folder_of_archives_means_those_that_hold_posts(tmp_path: Path) -> None:
    # Stack Overflow comes as an archive a table; the folder of all sites ended at stackoverflow.com-Badges.7z.
    names = ["beer.stackexchange.com.7z", "stackoverflow.com-Posts.7z", "x.meta.stackexchange.com.7z"]
    others = ["stackoverflow.com-Badges.7z", "stackoverflow.com-Users.7z", "._beer.stackexchange.com.7z", "a.txt"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    (tmp_path / "folder.7z").mkdir()
    assert dumps_at(str(tmp_path)) == [str(tmp_path / name) for name in names]


def test_an_archive_whose_name_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.7z")).touch()
    with pytest.raises(InputError, match="not a line of UTF-8"):
        dumps_at(str(tmp_path))


def test_a_name_with_a_no_break_space_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "my\u00a0dumps").mkdir()
    (archive := tmp_path / "my\u00a0dumps" / "beer\u3000.stackexchange.com.7z").touch()
    assert dumps_at(str(tmp_path)) == [str(archive)]


def test_a_folder_with_a_lower_case_name_in_it_is_a_dump(tmp_path: Path) -> None:
    (tmp_path / "posts.xml").write_text("<posts />")
    assert dumps_at(str(tmp_path)) == [str(tmp_path)]
