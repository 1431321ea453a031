"""Lineage says nothing of when and where; the funnel adds up what the stages counted."""

from pathlib import Path
from typing import Any

import pytest

from tasks.manifest import Manifest
from tasks.publication.lineage import funnel, in_order, portable, source_facts


def manifest(stage: str, counts: dict[str, int], **source: Any) -> Manifest:
    return Manifest(
        stage=stage, version=1, fingerprint=f"{stage}-{len(counts)}", config={}, inputs={}, files={}, counts=counts,
        seconds=1.0, provenance={"source": source}, folder=Path("/nowhere"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/ann/dumps/beer.stackexchange.com.7z", "beer.stackexchange.com.7z"),
        ("~/dumps/beer.7z", "beer.7z"),
        ("file:///srv/beer.7z", "beer.7z"),
        (r"C:\dumps\beer.7z", "beer.7z"),
        (Path("/srv/beer.7z"), "beer.7z"),
        ("https://ann:secret@dumps.example.com/beer.7z?token=1#x", "https://dumps.example.com/beer.7z"),
        ("HTTPS://ann:secret@dumps.example.com/beer.7z?token=1#x", "https://dumps.example.com/beer.7z"),
        ("allenai/tulu-2-13b@main", "allenai/tulu-2-13b@main"),
        ("beer.7z", "beer.7z"),
        ({"a": ["/x/y", 1, None, 0.5, True]}, {"a": ["y", 1, None, 0.5, True]}),
        ({"mtime": 12, "written": "today", "sha256": "ab"}, {"sha256": "ab"}),
    ],
)
def test_what_is_written_down_is_the_same_on_every_machine(given: Any, shown: Any) -> None:
    assert portable(given) == shown


def test_a_local_path_gives_way_to_the_files_name() -> None:
    local = manifest("source", {}, path="dumps/beer.7z", file="beer.7z", sha256="ab")
    assert source_facts(local) == {"file": "beer.7z", "sha256": "ab"}
    remote = manifest("source", {}, path="https://dumps.example.com/beer.7z", file="beer.7z")
    assert source_facts(remote)["path"] == "https://dumps.example.com/beer.7z"


def test_the_funnel_sums_the_sources_and_names_what_was_lost() -> None:
    sources = [
        manifest("source", {"rows": 100, "questions": 30, "answers": 60, "skipped.post_type": 10}),
        manifest("source", {"rows": 50, "questions": 20, "answers": 30, "skipped.post_type": 0}),
    ]
    stages = {
        "pair": manifest("pair", {"considered": 80, "ties": 30, "capped": 0, "dropped.empty": 2, "pairs": 48}),
        "dedupe": manifest("dedupe", {"pairs": 48, "kept": 40, "dropped.exact": 8}),
        "sample": manifest("sample", {"kept": 40, "train": 25, "held_out": 10, "not_sampled": 5}),
        "tokenize": manifest("tokenize", {"train": 24, "held_out": 10, "dropped.prompt_too_long": 1}),
    }
    steps = {step.label: step for step in funnel(stages, sources)}
    assert steps["rows read"].left == 150
    assert steps["questions"].lost == {"skipped.post_type": 10}
    assert steps["pairs with a preference"].lost == {"ties": 30, "dropped.empty": 2}
    assert steps["pairs after duplicates"].lost == {"dropped.exact": 8}
    assert steps["training pairs drawn"].lost == {"not_sampled": 5}
    assert steps["training pairs as tokens"] == (
        "tokenize",
        "training pairs as tokens",
        24,
        {"dropped.prompt_too_long": 1},
    )


def test_pairs_from_elsewhere_are_a_step_of_their_own() -> None:
    counts = {"pairs": 50, "held_out": 30, "not_sampled": 15, "dropped.seen_question": 5}
    stages = {name: manifest(name, {}) for name in ("pair", "dedupe", "sample", "tokenize")}
    (only,) = funnel(stages | {"unseen": manifest("unseen", counts)}, [])
    assert (only.stage, only.left, only.lost) == ("unseen", 30, {"not_sampled": 15, "dropped.seen_question": 5})


def test_a_count_that_nobody_recorded_is_no_step() -> None:
    stages = {name: manifest(name, {}) for name in ("pair", "dedupe", "sample", "tokenize")}
    assert funnel(stages, []) == []


def test_sources_are_in_the_same_order_whatever_the_recipe_says() -> None:
    first, second = manifest("source", {"rows": 1}), manifest("source", {"rows": 1, "answers": 1})
    assert in_order([first, second]) == in_order([second, first])
