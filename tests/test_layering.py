"""Imports point one way, and what a reused run does not need it does not load.

flows → tasks, data_checks, training's config      tasks → training, data_checks      those two → themselves
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ALLOWED = {
    "flows": {"flows", "tasks", "data_checks"},
    "tasks": {"tasks", "data_checks", "training"},
    "data_checks": {"data_checks"},
    "training": {"training"},
}

STAGES = {"ingest", "pair", "dedupe", "sample", "model", "tokenize", "reference", "train", "evaluate", "publish"}

# Prefect knows the stages; the stages and the trainer do not know Prefect.
FOREIGN = {
    "tasks": {"prefect", "deepspeed", "great_expectations"},
    "data_checks": {"prefect", "torch", "transformers", "datasets", "deepspeed"},
    "training": {"prefect", "polars", "great_expectations", "pandas"},
}

HEAVY = ["torch", "transformers", "tokenizers", "datasets", "great_expectations", "pandas", "deepspeed", "matplotlib",
         "py7zr", "scipy"]  # fmt: skip


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert len(found) > 3, f"no files of {package} were found: the rules below would hold of nothing"
    return found


def imports(path: Path) -> Iterator[tuple[str, set[str], int]]:
    """Module, the names taken from it, and line of every import of `path`, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, set(), node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.module or "", {name.name for name in node.names}, node.lineno


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    wrong, ours = [], 0
    for path in files(package):
        for module, _, line in imports(path):
            top = module.partition(".")[0]
            ours += top in ALLOWED
            if top in ALLOWED and top not in ALLOWED[package]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert ours > 0, f"{package} imports nothing of ours: is this list of imports empty?"
    assert wrong == []


@pytest.mark.parametrize("package", FOREIGN)
def test_a_package_stays_clear_of_what_is_not_its_business(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files(package)
        for module, _, line in imports(path)
        if module.partition(".")[0] in FOREIGN[package]
    ]
    assert wrong == []


def test_stage_files_do_not_import_each_other() -> None:
    """Configs are for everyone: `evaluate` takes held-out pairs from sources as `ingest` knows them."""
    wrong = []
    for stage in sorted(STAGES):
        path = ROOT / "tasks" / f"{stage}.py"
        assert path.is_file(), f"{stage} is no stage file any more: this rule would hold of nothing"
        for module, names, line in imports(path):
            package, _, other = module.partition(".")
            if package == "tasks" and other in STAGES and not all(name.endswith("Config") for name in names):
                wrong.append(f"{path.name}:{line} imports {', '.join(sorted(names))} from {module}")
    assert wrong == []


def test_there_is_no_place_for_odds_and_ends() -> None:
    for package in ALLOWED:
        assert [path for path in files(package) if path.stem in ("utils", "helpers", "common", "misc")] == []


@pytest.mark.parametrize("module", ["flows.pipeline", "flows.commands", "tasks.gate"])
def test_importing_the_order_of_things_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(sorted(set({HEAVY!r}) & set(sys.modules)), 'polars' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.split("\n")[0] == "[] True"


def test_the_command_line_loads_nothing_before_the_server_of_a_run_is_started() -> None:
    slow = {*HEAVY, "numpy", "polars", "prefect", "pydantic", "httpx"}
    program = f"import sys, flows.cli; print(sorted({slow!r} & set(sys.modules)), 'typer' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.split("\n")[0] == "[] True"
