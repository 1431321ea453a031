"""Digests are remembered, and never taken for those of another file."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from tasks.digests import remembered_sha256, sha256_of
from tasks.errors import InputError


def notes(work_dir: Path) -> list[Path]:
    return sorted((work_dir / "digests").iterdir())


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "dump.7z"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert remembered_sha256(path, tmp_path / "work") == sha256_of(path)


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "dump.7z"
    path.write_bytes(b"abc")
    first = remembered_sha256(path, tmp_path)
    [note] = notes(tmp_path)
    # A note that says otherwise is believed: the file was not read.
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": "remembered"}))
    assert remembered_sha256(path, tmp_path) == "remembered" != first


@pytest.mark.parametrize("change", ["size", "time", "inode", "path"])
def test_a_file_that_changed_is_read_again(change: str, tmp_path: Path) -> None:
    path = tmp_path / "dump.7z"
    path.write_bytes(b"abc")
    remembered_sha256(path, tmp_path)
    facts = path.stat()
    if change == "size":
        path.write_bytes(b"abcd")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    elif change == "time":
        path.write_bytes(b"xyz")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    elif change == "inode":
        other = tmp_path / "other"
        other.write_bytes(b"xyz")
        os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        other.rename(path)
    else:
        path = tmp_path / "moved.7z"
        path.write_bytes(b"xyz")
    assert remembered_sha256(path, tmp_path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("left", [b"", b"null", b"[1]", b'{"key": 3}', b"\xff"])
def test_a_note_that_cannot_be_read_is_written_anew(left: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dump.7z"
    path.write_bytes(b"abc")
    remembered_sha256(path, tmp_path)
    [note] = notes(tmp_path)
    note.write_bytes(left)
    assert remembered_sha256(path, tmp_path) == sha256_of(path)
    assert json.loads(note.read_text())["sha256"] == sha256_of(path)


def test_a_digest_that_cannot_be_noted_is_given_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "dump.7z"
    path.write_bytes(b"abc")
    (tmp_path / "work").write_text("a file where the folder of notes should be")
    assert remembered_sha256(path, tmp_path / "work") == sha256_of(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.7z cannot be read: No such file"):
        remembered_sha256(tmp_path / "nothing.7z", tmp_path)
