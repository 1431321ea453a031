"""Pictures and pages of a run: whole, readable as they are, and safe whatever a row says."""

import logging
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.artifact_tables import gate_table
from flows.run_pages import gate_html, lineage_svg, write_gate
from flows.slot import log_name
from flows.trainer_log import TAIL, trainer_log
from tasks.errors import StageFailed


def stage(name: str, fingerprint: str, *inputs: str, **more: Any) -> dict[str, Any]:
    made_of = {f"input-{position}": {"fingerprint": given, "content": "c"} for position, given in enumerate(inputs)}
    return {
        "stage": name,
        "fingerprint": fingerprint,
        "inputs": made_of,
        "counts": {"rows": 1234},
        "config": {},
        **more,
    }


LINEAGE: dict[str, Any] = {
    "name": "a <b> & c",
    "sources": [stage("source", "f0", source={"file": "beer.stackexchange.com.7z"}), stage("source", "f1", source={})],
    "stages": {
        "pair": stage("pair", "f2", "f0", "f1"), "dedupe": stage("dedupe", "f3", "f2"),
        "sample": stage("sample", "f4", "f3"), "model": stage("model", "f5"),
        "tokenize": stage("tokenize", "f6", "f4", "f5"), "train": stage("train", "f7", "f6", "f5"),
    },
    "weights": {"digest": "0123456789abcdef0123"},
}  # fmt: skip


def test_the_picture_of_the_lineage_has_a_box_a_stage_and_an_arrow_for_each_thing_it_was_made_of() -> None:
    picture = ET.fromstring(lineage_svg(LINEAGE))
    space = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{space}rect")) == 1 + 2 + 6  # the ground, two sources, six stages
    assert len(picture.findall(f"{space}path")) == 2 + 1 + 1 + 2 + 2
    words = [text.text or "" for text in picture.iter(f"{space}text")]
    assert "beer.stackexchang…" in words and "1,234 rows" in words and "f7" in words
    assert words[-1] == "a <b> & c: weights 0123456789abcdef…"


def test_the_same_lineage_is_the_same_picture() -> None:
    assert lineage_svg(LINEAGE) == lineage_svg(LINEAGE)


def test_the_page_of_a_gate_shows_what_failed_and_runs_nothing_that_a_row_says(tmp_path: Path) -> None:
    failed = {
        "expectation": "expect_column_values_to_be_unique", "column": "pair_id", "arguments": {"column": "pair_id"},
        "severity": "critical", "success": False, "seen": "2 of 9 rows fail", "examples": ["<script>x</script>"],
        "notes": "A pair counts once.",
    }  # fmt: skip
    page = gate_html("sampled", "sample-ab", {"rows": 9, "expectations": [failed, failed | {"success": True}]})
    assert "1 of 2 expectations fail" in page and "no (critical)" in page and "A pair counts once." in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "http" not in page  # nothing from elsewhere
    waived = gate_html("sampled", "sample-ab", {"rows": 9, "expectations": [failed | {"waived": "known <b>"}]})
    assert "no (waived: known &lt;b&gt;)" in waived and "no (critical)" not in waived
    assert gate_table({"expectations": [failed | {"waived": "known"}]})[0]["held"] == "waived: known"
    path = write_gate("sampled", "sample-ab", {"rows": 9, "expectations": [failed]}, tmp_path)
    assert path == tmp_path / "gates" / "sampled.html" and path.is_file()


def test_a_failed_training_says_the_end_of_its_log_and_keeps_the_whole(tmp_path: Path) -> None:
    partial, run = tmp_path / "partial" / "train-ab", tmp_path / "runs" / "one"
    partial.mkdir(parents=True)
    run.mkdir(parents=True)
    said: list[tuple[int, str]] = []
    lines = [f"line {number}" for number in range(500)]
    with (
        pytest.raises(StageFailed, match="loss"),
        trainer_log("train", "train-ab", tmp_path, run, lambda level, text: said.append((level, text))),
    ):
        (partial / "train.log").write_text("\n".join(lines) + "\n")
        raise StageFailed("train: step 3: the loss is not finite")
    assert (run / "train.log").read_text().splitlines() == lines
    (error,) = [text for level, text in said if level == logging.ERROR]
    assert error.splitlines()[1:] == lines[-TAIL:]
    # What is said while it goes on is throttled.
    info = [text for level, text in said if level == logging.INFO]
    assert 0 < len(info) <= 21 and "more lines" in info[-1]


def test_the_logs_of_both_models_examinations_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    for subject, fingerprint in (("model", "ab"), ("train", "cd")):
        folder = tmp_path / "partial" / f"benchmark-{fingerprint}" / "benchmark"
        folder.mkdir(parents=True)
        name = log_name("benchmark", (SimpleNamespace(stage=subject), "config"))
        with trainer_log("benchmark", f"benchmark-{fingerprint}", tmp_path, run, lambda level, text: None, name):
            (folder / "benchmark.log").write_text(subject)
    assert {path.name: path.read_text() for path in run.iterdir()} == {
        "benchmark-start.log": "model", "benchmark-tuned.log": "train",
    }  # fmt: skip
    assert log_name("train", ()) == "train"


def test_the_reference_of_pairs_to_judge_by_alone_has_a_log_of_its_own() -> None:
    of_training, of_judges = (SimpleNamespace(stage="tokenize", counts={"train": n, "held_out": 6}) for n in (16, 0))
    assert log_name("reference", (of_training, "model")) == "reference"
    assert log_name("reference", (of_judges, "model")) == "reference-evaluate"


def test_a_log_of_an_earlier_attempt_is_not_said_again(tmp_path: Path) -> None:
    partial, run = tmp_path / "partial" / "train-ab", tmp_path / "runs" / "one"
    partial.mkdir(parents=True)
    run.mkdir(parents=True)
    (partial / "train.log").write_text("old\n")
    said: list[str] = []
    with (
        trainer_log("train", "train-ab", tmp_path, run, lambda level, text: said.append(text)),
        open(partial / "train.log", "a") as log,
    ):
        log.write("new\n")
    assert said == ["new"]
