"""Data sets on a hub: pinned or refused, streamed by the real client from a hub on loopback, told when out of reach."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.errors import InputError, RecipeError
from tasks.ingest import SourceConfig, ingest_source
from tasks.store import Store
from tests.tasks.sources.hub_server import hub

NAME = "allenai/tulu-2.5-preference-data"
COMMIT = "6e87e7ba11eeb2a21db459cf13267f62d1feea23"

# What the public set's card says of its files: each split is one of them.
CARD = """\
---
configs:
- config_name: default
  data_files:
  - {split: stack_exchange_60k, path: data/stack_exchange_60k-*}
  - {split: other, path: data/other-*}
dataset_info:
  features:
  - {name: chosen, list: [{name: role, dtype: string}, {name: content, dtype: string}]}
  - {name: rejected, list: [{name: role, dtype: string}, {name: content, dtype: string}]}
  - {name: source, dtype: string}
  splits:
  - {name: stack_exchange_60k, num_bytes: 1, num_examples: 60908}
  - {name: other, num_bytes: 1, num_examples: 2}
---
"""

SCRIPT = """
import json, sys
from pathlib import Path
from tasks.errors import PrefstackError
from tasks.ingest import SourceConfig, ingest_source
from tasks.store import Store

for given in json.loads(sys.argv[2]):
    try:
        found = ingest_source(Store(Path(sys.argv[1])), SourceConfig.model_validate(given))
        said = {"counts": found.counts, "folder": str(found.folder), "source": found.provenance["source"]}
    except PrefstackError as error:
        said = {"error": type(error).__name__, "status": error.status, "message": str(error)}
    print("ANSWER", json.dumps(said))
"""


def ask(url: str, sources: list[dict[str, Any]], folder: Path, **environment: str) -> list[dict[str, Any]]:
    """What ingest makes of each source when the hub is at `url`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder / "work"), json.dumps(sources)], capture_output=True, text=True,
        env={**kept, "HF_ENDPOINT": url, "HF_HOME": str(folder / "home"), **environment}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == len(sources)
    return answers


def row(number: int) -> dict[str, Any]:
    talk = [
        [{"role": "user", "content": f"Why {number}?"}, {"role": "assistant", "content": f"{side} {number}"}]
        for side in ("good", "bad")
    ]
    return {"chosen": talk[0], "rejected": talk[1], "source": "stack-exchange-paired"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "data").mkdir()
    (folder / "README.md").write_text(CARD)
    for split, rows in (("stack_exchange_60k", range(1200)), ("other", range(2000, 2002))):
        table = pl.DataFrame([row(number) for number in rows])
        table.write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_one_split_is_streamed_and_no_other_file_is_touched(repository: Path, tmp_path: Path) -> None:
    source = {"kind": "tulu", "path": NAME, "revision": COMMIT}
    with hub(repository, NAME, COMMIT) as running:
        one, everything, none, no_set, no_commit = ask(
            running.url,
            [
                source | {"files": "data/stack_exchange_60k*"},
                source,
                source | {"files": "data/nothing*"},
                source | {"path": "no/such-set"},
                source | {"revision": "0" * 40},
            ],
            tmp_path,
        )
        first = running.read.index("data/other-00000-of-00001.parquet")
    assert set(running.read[:first]) == {"README.md", "data/stack_exchange_60k-00000-of-00001.parquet"}
    assert (one["counts"]["rows"], one["counts"]["pairs"]) == (1200, 1200)
    assert one["source"] == {
        "kind": "tulu", "name": "tulu", "site": None, "path": NAME, "revision": COMMIT,
        "files": "data/stack_exchange_60k*",
    }  # fmt: skip
    assert everything["counts"]["pairs"] == 1202
    for answer, said in ((none, "data"), (no_set, "no/such-set"), (no_commit, "0" * 12)):
        assert (answer["error"], answer["status"]) == ("InputError", 3)
        assert said in answer["message"]
    # Rows from a hub and from a file are the same pairs in the same bytes.
    local = repository / "data" / "stack_exchange_60k-00000-of-00001.parquet"
    here = ingest_source(Store(tmp_path / "here"), SourceConfig(kind="tulu", path=str(local)))
    assert here.path("pairs.parquet").read_bytes() == (Path(one["folder"]) / "pairs.parquet").read_bytes()


def test_json_lines_on_a_hub_are_read_too(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    (folder / "data").mkdir(parents=True)
    rows = "".join(json.dumps(row(number)) + "\n" for number in range(3))
    (folder / "data" / "stack_exchange_60k.jsonl").write_text(rows)
    (folder / "data" / "broken.jsonl").write_text('{"chosen": \n')
    source = {"kind": "tulu", "path": NAME, "revision": COMMIT}
    with hub(folder, NAME, COMMIT) as running:
        good, broken = ask(
            running.url,
            [source | {"files": "data/stack_exchange_60k*"}, source | {"files": "data/broken.jsonl"}],
            tmp_path,
        )
    assert good["counts"]["pairs"] == 3
    assert (broken["error"], broken["status"]) == ("InputError", 3)


def test_a_hub_out_of_reach_is_no_fault_of_the_input(tmp_path: Path) -> None:
    source = {
        "kind": "paired",
        "path": "lvwerra/stack-exchange-paired",
        "revision": COMMIT,
        "files": "data/rl/*.parquet",
    }
    (answer,) = ask("http://127.0.0.1:9", [source], tmp_path, HF_HUB_OFFLINE="1")
    assert (answer["error"], answer["status"]) == ("Surroundings", 1)
    assert "cannot be reached" in answer["message"]


@pytest.mark.slow
def test_a_hub_that_refuses_connections_is_no_fault_of_the_input(tmp_path: Path) -> None:
    """The client tries for 23 seconds of its own."""
    (answer,) = ask("http://127.0.0.1:9", [{"kind": "tulu", "path": NAME, "revision": COMMIT}], tmp_path)
    assert (answer["error"], answer["status"]) == ("Surroundings", 1)


def test_a_set_that_is_not_pinned_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RecipeError, match="revision: <the 40 hex digits"):
        ingest_source(store, SourceConfig(kind="tulu", path=NAME))
    with pytest.raises(RecipeError, match=r"'main' of .* is not a commit"):
        ingest_source(store, SourceConfig(kind="tulu", path=NAME, revision="main"))
    with pytest.raises(RecipeError, match="sha256 pins a file"):
        ingest_source(store, SourceConfig(kind="tulu", path=NAME, revision=COMMIT, sha256="0" * 64))
    with pytest.raises(InputError, match="no such file"):
        ingest_source(store, SourceConfig(kind="tulu", path="data/pairs.jsonl"))


def test_a_plan_asks_no_hub_and_the_commit_and_the_files_name_the_result(tmp_path: Path) -> None:
    store = replace(Store(tmp_path), plan=True)
    planned = [
        ingest_source(store, SourceConfig.model_validate({"kind": "tulu", "path": NAME, "revision": COMMIT} | more))
        for more in ({}, {"files": "data/a*"}, {"files": "data/b*"}, {"revision": "1" * 40}, {"name": "other"})
    ]
    assert all(manifest.planned for manifest in planned)
    assert len({manifest.fingerprint for manifest in planned}) == 5


def test_a_folder_here_goes_before_a_set_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "set").mkdir(parents=True)
    (tmp_path / "org" / "set" / "x.jsonl").write_text(json.dumps(row(1)) + "\n")
    found = ingest_source(Store(tmp_path / "work"), SourceConfig(kind="tulu", path="org/set"))
    assert found.counts["pairs"] == 1
