"""The store, driven as a run drives it: reuse, damage, forcing, and what fails in a build."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from tasks.config import StageConfig
from tasks.errors import InputError, Surroundings
from tasks.manifest import MANIFEST, Manifest
from tasks.store import External, Store, Workspace

DUMP = External("d" * 64)


@dataclass
class Heard:
    """A report that keeps what it is told."""

    messages: list[str] = field(default_factory=list)

    def message(self, stage: str, text: str) -> None:
        self.messages.append(text)

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
        pass


@dataclass
class Writer:
    """A `build` that writes one file and counts how often it was called."""

    text: str = "one\n"
    calls: int = 0

    def __call__(self, work: Workspace) -> dict[str, int]:
        self.calls += 1
        (work.folder / "part").mkdir()
        (work.folder / "part" / "rows.txt").write_text(self.text)
        return {"rows": len(self.text.splitlines())}


def stage(store: Store, writer: Writer, name: str = "pair", of: Manifest | External = DUMP, **config: Any) -> Manifest:
    return store.stage(name, 1, config, {"of": of}, writer)


def test_a_second_run_finds_the_stage_and_builds_nothing(tmp_path: Path) -> None:
    writer = Writer()
    first = stage(Store(tmp_path), writer)
    second = stage(Store(tmp_path), writer)
    assert (writer.calls, first.reused, second.reused) == (1, False, True)
    assert second.counts == {"rows": 1}
    assert second.folder == tmp_path / "store" / f"pair-{first.fingerprint}"
    assert set(second.files) == {"part/rows.txt"}
    # sha256 of "one\n"
    assert second.files["part/rows.txt"].sha256 == "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806"
    assert second.files["part/rows.txt"].size == 4


def test_the_manifest_stores_neither_its_folder_nor_how_it_was_found(tmp_path: Path) -> None:
    made = stage(Store(tmp_path), Writer())
    raw = json.loads((made.folder / MANIFEST).read_text())
    assert set(raw) == {
        "stage", "version", "fingerprint", "config", "inputs", "files", "counts", "seconds", "provenance",
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps({key: raw[key] for key in raw if key != "provenance"})


class Settings(StageConfig):
    """A stage's config of which `cores` does not matter."""

    incidental = frozenset({"cores"})
    size: int = 3
    cores: int = 1


def fingerprint_of(work_dir: Path, config: Settings, version: int = 1, of: External = DUMP, run: str = "") -> str:
    store = Store(work_dir, run=run)
    return store.stage("pair", version, config.identity(), {"of": of}, Writer()).fingerprint


@pytest.mark.parametrize(
    ("config", "version", "of"),
    [(Settings(size=4), 1, DUMP), (Settings(), 2, DUMP), (Settings(), 1, External("e" * 64))],
)
def test_config_version_and_inputs_move_the_fingerprint(
    config: Settings, version: int, of: External, tmp_path: Path
) -> None:
    assert fingerprint_of(tmp_path, config, version, of) != fingerprint_of(tmp_path, Settings())


def test_incidental_keys_work_folder_and_run_do_not_move_the_fingerprint(tmp_path: Path) -> None:
    here = fingerprint_of(tmp_path / "here", Settings())
    assert fingerprint_of(tmp_path / "elsewhere", Settings(cores=64), run="another") == here


def test_another_host_and_another_day_give_the_same_fingerprint(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tasks.store import External, Store
from tests_stage import build
store = Store(Path({str(tmp_path / "there")!r}))
print(store.stage("pair", 1, {{"size": 3}}, {{"of": External("d" * 64)}}, build).fingerprint)
"""
    (tmp_path / "tests_stage.py").write_text("def build(work):\n    return {}\n")
    other = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "HOSTNAME": "elsewhere",
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
    }
    said = subprocess.run([sys.executable, "-c", program], env=other, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == fingerprint_of(tmp_path / "here", Settings())


def test_a_file_of_another_size_is_named_and_the_stage_rebuilt(tmp_path: Path) -> None:
    heard, writer = Heard(), Writer()
    store = Store(tmp_path, report=heard)
    made = stage(store, writer)
    (made.folder / "part" / "rows.txt").write_text("one and a half\n")
    again = stage(store, writer)
    assert (writer.calls, again.reused, (again.folder / "part" / "rows.txt").read_text()) == (2, False, "one\n")
    [message] = heard.messages
    assert "part/rows.txt" in message and "15 bytes" in message and made.folder.name in message
    why = "the folder before has 15 bytes in part/rows.txt where its manifest says 4"
    assert (again.provenance["built_again"], "built_again" in made.provenance) == (why, False)


def test_a_lost_file_is_named_and_the_stage_rebuilt(tmp_path: Path) -> None:
    heard, writer = Heard(), Writer()
    store = Store(tmp_path, report=heard)
    (stage(store, writer).folder / "part" / "rows.txt").unlink()
    stage(store, writer)
    assert writer.calls == 2 and "has lost part/rows.txt" in heard.messages[0]


def test_a_flipped_byte_is_found_by_verify_alone(tmp_path: Path) -> None:
    heard, writer = Heard(), Writer()
    path = stage(Store(tmp_path), writer).folder / "part" / "rows.txt"
    path.write_text("onE\n")
    assert stage(Store(tmp_path), writer).reused
    stage(Store(tmp_path, verify=True, report=heard), writer)
    assert writer.calls == 2 and path.read_text() == "one\n" and "other bytes in part/rows.txt" in heard.messages[0]


@pytest.mark.parametrize("left", ["", "[]", "null", '"text"', "{}", '{"stage": "pair"}', "\udcff"])
def test_a_manifest_that_cannot_be_read_is_no_manifest(left: str, tmp_path: Path) -> None:
    writer = Writer()
    made = stage(Store(tmp_path), writer)
    (made.folder / MANIFEST).write_bytes(left.encode("utf-8", "surrogateescape"))
    assert Manifest.read(made.folder) is None
    assert not stage(Store(tmp_path), writer).reused and writer.calls == 2


def test_a_forced_stage_that_comes_out_the_same_rebuilds_nothing_else(tmp_path: Path) -> None:
    upper, lower = Writer(), Writer("two\n")
    stage(Store(tmp_path), lower, "sample", of=stage(Store(tmp_path), upper))
    forced = Store(tmp_path, run="second", force=frozenset({"pair"}))
    below = stage(forced, lower, "sample", of=stage(forced, upper))
    assert (upper.calls, lower.calls, below.reused) == (2, 1, True)


def test_a_forced_stage_that_comes_out_different_rebuilds_what_was_made_of_it(tmp_path: Path) -> None:
    heard, upper, lower = Heard(), Writer(), Writer("two\n")
    before = stage(Store(tmp_path), lower, "sample", of=stage(Store(tmp_path), upper))
    upper.text = "one\nmore\n"
    forced = Store(tmp_path, run="second", force=frozenset({"pair"}), report=heard)
    after = stage(forced, lower, "sample", of=stage(forced, upper))
    assert (upper.calls, lower.calls, after.reused) == (2, 2, False)
    assert after.fingerprint == before.fingerprint
    assert "have since come out different" in heard.messages[0]


def test_what_a_run_has_forced_is_not_built_again_when_it_is_retried(tmp_path: Path) -> None:
    writer = Writer()
    stage(Store(tmp_path), writer)
    for run, calls in (("second", 2), ("second", 2), ("third", 3)):
        stage(Store(tmp_path, run=run, force=frozenset({"pair"})), writer)
        assert writer.calls == calls


def test_forcing_ingest_forces_its_sources(tmp_path: Path) -> None:
    writer = Writer()
    stage(Store(tmp_path), writer, "source")
    stage(Store(tmp_path, run="second", force=frozenset({"ingest"})), writer, "source")
    assert writer.calls == 2


def test_a_plan_builds_nothing_and_knows_what_is_there(tmp_path: Path) -> None:
    upper, lower = Writer(), Writer()
    plan = Store(tmp_path, plan=True)
    planned = stage(plan, lower, "sample", of=stage(plan, upper))
    assert planned.planned and not any(tmp_path.iterdir())
    made = stage(Store(tmp_path), upper)
    assert not stage(plan, upper).planned
    assert stage(plan, lower, "sample", of=made).planned
    assert stage(Store(tmp_path), lower, "sample", of=made).fingerprint == planned.fingerprint
    assert stage(replace(plan, force=frozenset({"pair"})), upper).planned
    assert (upper.calls, lower.calls) == (1, 1)


def test_a_build_that_fails_leaves_its_partial_folder_and_nothing_else(tmp_path: Path) -> None:
    def fail(work: Workspace) -> dict[str, int]:
        (work.partial / "shard-0").write_text("kept")
        (work.folder / "half").write_text("gone")
        raise InputError("the input is bad")

    def finish(work: Workspace) -> dict[str, int]:
        (work.folder / "whole").write_text((work.partial / "shard-0").read_text())
        return {}

    store = Store(tmp_path)
    with pytest.raises(InputError):
        store.stage("pair", 1, {}, {"of": DUMP}, fail)
    assert list((tmp_path / "store").iterdir()) == []
    made = store.stage("pair", 1, {}, {"of": DUMP}, finish)
    assert (made.folder / "whole").read_text() == "kept"
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_partial_folder_made_of_other_bytes_is_emptied(tmp_path: Path) -> None:
    def fail(work: Workspace) -> dict[str, int]:
        (work.partial / "shard-0").write_text("of the old input")
        raise InputError("interrupted")

    found: list[list[str]] = []

    def look(work: Workspace) -> dict[str, int]:
        found.append([path.name for path in work.partial.glob("shard-*")])
        return {}

    upper = Writer()
    with pytest.raises(InputError):
        Store(tmp_path).stage("sample", 1, {}, {"of": stage(Store(tmp_path), upper)}, fail)
    upper.text = "different\n"
    forced = Store(tmp_path, run="second", force=frozenset({"pair"}))
    forced.stage("sample", 1, {}, {"of": stage(forced, upper)}, look)
    assert found == [[]]


def full(work: Workspace, name: str) -> Path:
    """A path in the stage folder on a device that is always full."""
    path = work.folder / name
    path.symlink_to("/dev/full")
    return path


def by_python(work: Workspace) -> dict[str, int]:
    full(work, "rows.txt").write_text("x" * 10_000)
    return {}


def by_polars(work: Workspace) -> dict[str, int]:
    pl.DataFrame({"a": range(1000)}).write_parquet(full(work, "rows.parquet"))
    return {}


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no /dev/full")
@pytest.mark.parametrize("build", [by_python, by_polars])
def test_a_full_disk_is_the_surroundings_whoever_met_it(
    build: Callable[[Workspace], dict[str, int]], tmp_path: Path
) -> None:
    with pytest.raises(Surroundings, match=r"pair: the disk is full at .+; free some space and run again"):
        Store(tmp_path).stage("pair", 1, {}, {"of": DUMP}, build)


def test_an_error_that_is_not_about_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    def build(work: Workspace) -> dict[str, int]:
        save_file({"a": np.zeros(2)}, work.folder / "nowhere" / "a.safetensors")
        return {}

    with pytest.raises(Exception, match="No such file") as raised:
        Store(tmp_path).stage("pair", 1, {}, {"of": DUMP}, build)
    assert not isinstance(raised.value, Surroundings)


def test_a_work_folder_that_cannot_be_written_is_the_surroundings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Surroundings, match="nothing can be written"):
        stage(Store(tmp_path / "file" / "below"), Writer())


def test_a_file_that_a_library_wrote_for_its_owner_alone_is_readable_in_the_store(tmp_path: Path) -> None:
    def build(work: Workspace) -> dict[str, int]:
        (work.folder / "weights").write_bytes(b"1")
        (work.folder / "weights").chmod(0o600)
        return {}

    mask = os.umask(0o022)
    try:
        made = Store(tmp_path).stage("model", 1, {}, {}, build)
    finally:
        os.umask(mask)
    assert made.path("weights").stat().st_mode & 0o777 == 0o644


def test_what_a_kill_after_publishing_left_is_cleared_when_the_stage_is_found(tmp_path: Path) -> None:
    store, writer = Store(tmp_path), Writer()
    made = stage(store, writer)
    left = tmp_path / "partial" / made.folder.name
    left.mkdir(parents=True)
    (left / "shard").write_text("half")
    assert stage(store, writer).reused and writer.calls == 1
    assert not left.exists()
