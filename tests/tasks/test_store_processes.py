"""The store under several processes: a kill in the middle of a build, and two that want the same stage."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.folders import damage
from tasks.manifest import Manifest

SLOW_BUILD = """
import sys, time
from pathlib import Path
from tasks.store import External, Store

def build(work):
    for number in range(20):
        (work.folder / f"part-{number}.txt").write_text(f"{number}\\n" * 1000)
        print(number, flush=True)
        time.sleep(float(sys.argv[2]))
    return {"parts": 20}

made = Store(Path(sys.argv[1])).stage("pair", 1, {}, {"of": External("d" * 64)}, build)
print("reused" if made.reused else "built", flush=True)
"""


def start(work_dir: Path, pause: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(work_dir), str(pause)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("after", [1, 7, 19])
def test_a_killed_build_leaves_nothing_that_looks_finished_and_its_retry_the_same_bytes(
    after: int, tmp_path: Path
) -> None:
    killed = start(tmp_path / "killed", 0.05)
    assert killed.stdout is not None
    while int(killed.stdout.readline()) < after:
        pass
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    folders = list((tmp_path / "killed" / "store").iterdir())
    assert [Manifest.read(folder) for folder in folders] == [None] * len(folders)
    assert not any(folder.name.startswith("pair-") for folder in folders)

    for name in ("killed", "calm"):
        said = start(tmp_path / name, 0.0).communicate()[0]
        assert said.splitlines()[-1] == "built"
    retried, calm = (Manifest.read(next((tmp_path / name / "store").iterdir())) for name in ("killed", "calm"))
    assert retried is not None and calm is not None
    assert retried.files == calm.files and len(calm.files) == 20


def test_of_two_processes_that_want_one_stage_the_second_waits_and_reuses(tmp_path: Path) -> None:
    first = start(tmp_path, 0.05)
    assert first.stdout is not None
    first.stdout.readline()  # it is building
    second = start(tmp_path, 0.05)
    assert second.communicate()[0].split() == ["reused"]
    assert first.communicate()[0].split()[-1] == "built"
    assert len(list((tmp_path / "store").iterdir())) == 1


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path) -> None:
    first = start(tmp_path, 60)
    assert first.stdout is not None
    first.stdout.readline()
    first.kill()
    first.wait()
    first.stdout.close()
    begun = time.monotonic()
    assert start(tmp_path, 0.0).communicate()[0].split()[-1] == "built"
    assert time.monotonic() - begun < 30


@pytest.mark.faults
def test_kills_at_thirty_moments_leave_the_finished_folder_or_none(tmp_path: Path) -> None:
    """From before the first file to after the last rename; each kill may meet any step of publishing."""
    begun = time.monotonic()
    start(tmp_path / "calm", 0.01).communicate()
    whole = time.monotonic() - begun
    [calm] = (Manifest.read(folder) for folder in (tmp_path / "calm" / "store").iterdir())
    assert calm is not None
    outcomes = set()
    for number in range(30):
        work_dir = tmp_path / str(number)
        killed = start(work_dir, 0.01)
        time.sleep(whole * (0.4 + 0.7 * number / 30))
        killed.kill()
        killed.communicate()
        found = [Manifest.read(folder) for folder in (work_dir / "store").glob("pair-*")]
        assert all(manifest is not None and damage(manifest, verify=True) is None for manifest in found)
        outcomes.add(len(found))
        start(work_dir, 0.0).communicate()
        [retried] = (Manifest.read(folder) for folder in (work_dir / "store").iterdir())
        assert retried is not None and retried.files == calm.files
    assert outcomes == {0, 1}  # some kills came before the end and some after, so some came close to it
