"""Posts that end the worker which converts them."""

from pathlib import Path

import pytest

from tasks.ingest import SourceConfig, ingest_source
from tasks.pair import PairConfig, pair
from tasks.store import Store
from tasks.workers import WorkerDied
from tests.tasks.test_pair import SITE, answer, outcome, question, write_dump

# Imported by every worker as it starts: a converter that crashes at posts with a certain word.
CRASHES = """
import os, signal
import tasks.pairing.markdown as markdown
convert = markdown.to_markdown
def crash(html, site):
    if "CRASH" in html:
        with open({deaths!r}, "a") as handle:
            handle.write("x")
        os.kill(os.getpid(), signal.{signal})
    return convert(html, site)
markdown.to_markdown = crash
"""


def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal: str) -> Path:
    """The file that gets one letter for each worker that dies."""
    deaths = tmp_path / "deaths"
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(CRASHES.format(deaths=str(deaths), signal=signal))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "start"))
    return deaths


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGKILL"])
def test_a_post_that_ends_two_workers_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    rows = [question(1), answer(2, 1, 9), answer(3, 1, 3, Body="<p>CRASH</p>"), answer(4, 1, 0)]
    source = ingest_source(Store(tmp_path), SourceConfig(path=str(write_dump(tmp_path / "dumps" / SITE, rows))))
    deaths = crashing(tmp_path, monkeypatch, signal)
    _, pairs, dropped = outcome(pair(Store(tmp_path), [source], PairConfig(), 42))
    assert deaths.read_text() == "xx"
    assert pairs["pair_id"].to_list() == [f"{SITE}/1/2/4"]
    assert dropped.select("pair_id", "reason").rows() == [
        (f"{SITE}/1/2/3", "unconvertible_rejected"), (f"{SITE}/1/3/4", "unconvertible_chosen"),
    ]  # fmt: skip


def test_workers_that_die_of_many_posts_are_no_fault_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.pairing.conversion._MOST_DEATHS", 3)
    rows = [question(1), *(answer(number, 1, number, Body="<p>CRASH</p>") for number in (2, 4, 8))]
    source = ingest_source(Store(tmp_path), SourceConfig(path=str(write_dump(tmp_path / "dumps" / SITE, rows))))
    crashing(tmp_path, monkeypatch, "SIGSEGV")
    with pytest.raises(WorkerDied, match="signal 11"):
        pair(Store(tmp_path), [source], PairConfig(), 42)
