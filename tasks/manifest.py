"""The record of a finished stage: what it was made of, what it wrote, and what it counted."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MANIFEST = "manifest.json"


class StoredFile(BaseModel):
    """One file of a stage folder, as it was when the stage was published."""

    model_config = ConfigDict(frozen=True)
    size: int  # bytes
    sha256: str


class InputRecord(BaseModel):
    """What a stage was made of: the recipe of the input, and the bytes it had."""

    model_config = ConfigDict(frozen=True)
    fingerprint: str
    content: str


class Manifest(BaseModel):
    """What `manifest.json` holds, and the folder that it was read from (which is not stored)."""

    model_config = ConfigDict(frozen=True)
    stage: str
    version: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, InputRecord]
    files: dict[str, StoredFile]
    counts: dict[str, int]
    seconds: float
    """Wall-clock seconds that the building took."""
    provenance: dict[str, Any]
    """Commit, library versions, hardware, command, sources: recorded, never hashed."""

    folder: Path = Field(exclude=True)
    reused: bool = Field(default=False, exclude=True)
    """Whether the run that holds this manifest found it finished."""
    planned: bool = Field(default=False, exclude=True)
    """True when a plan says that this stage would be built: no folder, no files, no counts."""

    @property
    def content(self) -> str:
        """Digest of the names and bytes of the files, logs apart: logs tell the time of day."""
        named = {name: file.sha256 for name, file in self.files.items() if not name.endswith(".log")}
        return digest_json(named)

    def path(self, name: str) -> Path:
        """Where the file or sub-folder `name` of this stage lies."""
        return self.folder / name

    def record(self) -> InputRecord:
        """What a stage made of this one writes down about it."""
        return InputRecord(fingerprint=self.fingerprint, content=self.content)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest in `folder`, or None where the folder is not a finished stage."""
        try:
            raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            return cls.model_validate({**raw, "folder": folder} if isinstance(raw, dict) else raw)
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError, ValidationError):
            return None


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def fingerprint(stage: str, version: int, config: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    """Sixteen hex digits that name a stage's result: its name, version, config and its inputs' fingerprints."""
    return digest_json({"stage": stage, "version": version, "config": dict(config), "inputs": dict(inputs)})[:16]


def total(counts: Mapping[str, int], prefix: str) -> int:
    """The sum of the counts named `prefix.SOMETHING`."""
    return sum(value for name, value in counts.items() if name.startswith(prefix + "."))


def reasons(prefix: str, names: Iterable[str], tally: Mapping[str, int]) -> dict[str, int]:
    """`tally` as dotted counts, with a zero for each known reason that did not occur."""
    return {f"{prefix}.{name}": int(tally.get(name, 0)) for name in names}
