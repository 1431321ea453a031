"""Who made a result, with what, on what: recorded in manifests, never hashed."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

LIBRARIES: Final = (
    "prefstack", "prefect", "polars", "datasets", "great-expectations", "torch", "transformers", "tokenizers",
    "deepspeed", "safetensors", "html-to-markdown", "lxml", "py7zr", "numpy",
)  # fmt: skip


def provenance() -> dict[str, Any]:
    """Commit, library versions, machine, command and time of writing."""
    return {**_constant(), "command": sys.argv, "written": datetime.now(UTC).isoformat(timespec="seconds")}


@cache
def _constant() -> dict[str, Any]:
    return {
        "commit": commit(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name)) is not None},
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """The commit of the checkout that this code runs from, `+changes` when it is edited; None outside one."""
    here = Path(__file__).parent.parent
    if not (here / ".git").exists():
        return None
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
