"""Files and folders that are whole or not there, whatever happens: how a result gets into the store, and is checked."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tasks.digests import sha256_of, sync_file, sync_folder
from tasks.errors import PrefstackError
from tasks.manifest import InputRecord, Manifest, StoredFile, canonical_json

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def disk_is_full(error: Exception) -> bool:
    """Whether `error` says so; polars, safetensors and tokenizers say it in words of their own and without errno."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return not isinstance(error, PrefstackError) and any(os.strerror(code) in str(error) for code in _FULL)


def keep_partial(partial: Path, records: Mapping[str, InputRecord]) -> None:
    """Make `partial`, or empty it where it was left by a build from inputs that have since come out different."""
    stamp = partial / ".inputs.json"
    made_of = canonical_json({key: record.content for key, record in records.items()})
    try:
        if stamp.read_text(encoding="utf-8") == made_of:
            return
    except (OSError, UnicodeDecodeError):
        pass  # not there, or torn by a kill: nothing that can be trusted
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_text(stamp, made_of)


def damage(manifest: Manifest, *, verify: bool) -> str | None:
    """What is wrong with the files of a finished stage, or None. Sizes always; digests when `verify`."""
    for name, stored in manifest.files.items():
        path = manifest.folder / name
        try:
            size = path.stat().st_size
        except OSError:
            return f"has lost {name}"
        if size != stored.size:
            return f"has {size} bytes in {name} where its manifest says {stored.size}"
        if verify and sha256_of(path) != stored.sha256:
            return f"has other bytes in {name} than its manifest says"
    return None


def stored_files(folder: Path) -> dict[str, StoredFile]:
    """Every file under `folder`, by its path within it, with size and sha256."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found[name] = StoredFile(size=path.stat().st_size, sha256=sha256_of(path))
    return found


def write_text(path: Path, text: str) -> None:
    """Write `text` so that `path` holds all of it or what it held before, whatever happens."""
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    sync_file(scratch)
    scratch.rename(path)


def sync_tree(folder: Path) -> None:
    """Force every file and folder under `folder` to disk, readable by whom the umask lets read.

    Some libraries write through private temporary files: safetensors would leave weights that only root can read.
    """
    mask = os.umask(0)
    os.umask(mask)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
        else:
            if path.stat().st_mode & 0o777 != 0o666 & ~mask:
                path.chmod(0o666 & ~mask)
            sync_file(path)
    sync_folder(folder)


def publish(building: Path, folder: Path) -> None:
    """Put `building` in the place of `folder`, by renames alone."""
    old = folder.parent / f".old-{folder.name}"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(building, folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
