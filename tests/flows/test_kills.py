"""`kill -9` of a whole run as every stage begins, is at work and has ended; and the same command once more."""

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import PREFSTACK, Shell
from tests.flows.installation import until
from tests.flows.test_whole_run import digests

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

FOLDERS = (
    "source", "pair", "dedupe", "sample", "card", "model", "tokenize", "reference", "train", "evaluate", "publish",
)  # fmt: skip


def stages_in(work_dir: Path) -> dict[str, int]:
    """The finished folders of the store, each with the inode of its manifest: another one was built again."""
    found = {path.parent.name: path.stat().st_ino for path in (work_dir / "store").glob("*-*/manifest.json")}
    return {name: inode for name, inode in found.items() if not name.startswith(".")}


def killed(shell: Shell, recipe: Path, there: Callable[[], bool], later: float) -> bool:
    """Start the run and kill it `later` seconds after `there` holds; False where it ended before by itself."""
    process = subprocess.Popen(
        [PREFSTACK, "run", str(recipe)], cwd=shell.folder, env=dict(shell.environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while process.poll() is None and not there():
        assert time.monotonic() < end, "the run stands still"
        time.sleep(0.002)
    time.sleep(later)
    ended = process.poll() is not None
    process.kill()
    process.wait()
    until(lambda: not left_of(shell), 40, "the end of what the run had started")
    return not ended


def left_of(shell: Shell) -> list[int]:
    """Living processes of this shell's runs, by their Prefect home."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("PREFECT_HOME") == shell.environment["PREFECT_HOME"]
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_run_that_is_killed_in_and_after_every_stage_ends_with_the_bytes_of_one_left_alone(
    tmp_path: Path, shell: Shell, tiny_recipe: Path
) -> None:
    calm = shell.run("run", str(tiny_recipe), "--json", "--set", "work_dir=calm")
    assert calm.status == 0, calm.err[-3000:]
    work_dir, chance = tmp_path / "work", random.Random(0)
    finished: dict[str, int] = {}
    kills = 0
    for folder in FOLDERS:
        for place in (f".building-{folder}-*", f"{folder}-*/manifest.json"):  # in it, and as it has ended
            kills += killed(
                shell,
                tiny_recipe,
                lambda place=place: any((work_dir / "store").glob(place)),
                chance.uniform(0.0, 0.4) if place.startswith(".") else 0.0,
            )
            now = stages_in(work_dir)
            assert {name: now.get(name) for name in finished} == finished, "a finished stage was built again"
            finished = now
    print(f"{kills} kills of {2 * len(FOLDERS)} tries met the run at work")
    assert kills >= len(FOLDERS)

    last = shell.run("run", str(tiny_recipe), "--json")
    assert last.status == 0, last.err[-3000:]
    assert {name: stages_in(work_dir)[name] for name in finished} == finished
    for stage, entry in json.loads(calm.out)["stages"].items():
        assert digests(json.loads(last.out)["stages"][stage]["folder"]) == digests(entry["folder"]), stage
    assert not list((work_dir / "store").glob(".building-*"))
