"""Digests of files, and making sure that bytes are on the disk."""

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path

from tasks.errors import InputError


def sha256_of(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def remembered_sha256(path: Path, work_dir: Path) -> str:
    """`sha256_of(path)`, remembered by path, size, mtime and inode: 100 GB are not read at every run.

    Raises InputError when the file cannot be read.
    """
    try:
        facts = path.stat()
        key = [str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino]
        note = work_dir / "digests" / (hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24] + ".json")
        try:
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["key"] == key:
                return str(known["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no note, or not one of ours: read the file
        digest = sha256_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    # A digest that cannot be noted is only read again; whether the disk is full is for the store to say.
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        scratch = note.with_name(f"{note.name}.{os.getpid()}.{threading.get_ident()}")
        scratch.write_text(json.dumps({"key": key, "sha256": digest}), encoding="utf-8")
        scratch.rename(note)
    return digest


def sync_file(path: Path) -> None:
    """Force the file's bytes to disk."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(path: Path) -> None:
    """Force the folder's entries (names, renames) to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
