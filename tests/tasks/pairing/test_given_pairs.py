"""Sources of different kinds in one recipe: one table of pairs, one set of rules, counts that add up."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from data_checks import deduped, ingested, paired
from tasks.dedupe import DedupeConfig, dedupe
from tasks.gate import gate
from tasks.ingest import SourceConfig, SourceKind, ingest_source
from tasks.keyed import keyed_rank
from tasks.manifest import Manifest, total
from tasks.pair import PairConfig, pair
from tasks.sample import SampleConfig, sample
from tasks.store import Store

SITE = "beer.stackexchange.com"


def source(store: Store, kind: SourceKind, rows: list[dict[str, Any]], name: str | None = None) -> Manifest:
    path = store.work_dir / f"{kind}-{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = ingest_source(store, SourceConfig(kind=kind, path=str(path), name=name))
    gate(store, found, ingested.check())
    return found


def paired_row(question: int, number: int) -> dict[str, Any]:
    return {
        "qid": question, "question": f"Why {question}?", "response_j": f"good {number}", "response_k": f"bad {number}",
        "metadata": [f"https://{SITE}/questions/{question}"],
    }  # fmt: skip


def outcome(made: Manifest) -> pl.DataFrame:
    counts = made.counts
    planned = counts["ties"] + counts["capped"] + counts["not_candidate"]
    assert counts["considered"] == planned + total(counts, "dropped") + counts["pairs"]
    pairs = pl.read_parquet(made.path("pairs.parquet"))
    assert pairs.height == counts["pairs"]
    assert pl.read_parquet(made.path("dropped.parquet")).height == total(counts, "dropped")
    return pairs


def test_the_cap_holds_where_a_source_tells_its_questions_and_only_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    told = source(store, "paired", [paired_row(1, number) for number in range(8)] + [paired_row(2, 9)])
    untold = source(store, "jsonl", [{"prompt": "Why?", "chosen": f"a{n}", "rejected": "b"} for n in range(8)])
    pairs = outcome(made := pair(store, [told, untold], PairConfig(max_pairs_per_question=3), 42))
    assert made.counts["capped"] == 5
    assert pairs.filter(pl.col("pair_id").str.starts_with("jsonl/")).height == 8
    every = pl.read_parquet(told.path("pairs.parquet")).filter(pl.col("question_id") == 1)["pair_id"].to_list()
    kept = pairs.filter(pl.col("question_id") == 1)["pair_id"].to_list()
    assert sorted(kept) == sorted(sorted(every, key=lambda name: keyed_rank(42, "cap", name))[:3])


def test_the_cap_of_a_question_holds_over_all_sources_that_tell_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = source(store, "paired", [paired_row(1, number) for number in range(8)], name="a")
    two = source(store, "paired", [paired_row(1, number) for number in range(8, 16)], name="b")
    pairs = outcome(made := pair(store, [one, two], PairConfig(max_pairs_per_question=3), 42))
    assert (pairs.height, made.counts["capped"]) == (3, 13)
    assert pairs.equals(outcome(pair(Store(tmp_path / "other"), [two, one], PairConfig(max_pairs_per_question=3), 42)))


def test_what_the_cap_left_out_does_not_come_in_with_a_copy_of_its_source(tmp_path: Path) -> None:
    store = Store(tmp_path)
    told = source(store, "paired", [paired_row(1, number) for number in range(8)])
    made = pair(store, [told, told], PairConfig(max_pairs_per_question=3), 42)
    assert outcome(made).height == 3
    assert (made.counts["capped"], made.counts["dropped.duplicate_id"]) == (5, 8)


def test_the_least_gap_holds_for_pairs_that_come_ready_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = [
        {"prompt": f"p{n}", "chosen": "a", "rejected": "b", "chosen_rank": n, "rejected_rank": 0} for n in range(1, 6)
    ]
    made = pair(store, [source(store, "jsonl", rows)], PairConfig(min_gap=3), 42)
    assert sorted(outcome(made)["chosen_rank"]) == [3, 4, 5]
    assert made.counts["dropped.min_gap"] == 2
    gate(store, made, paired.check(3))


def test_ranks_as_far_apart_as_ranks_can_be_are_no_small_gap(tmp_path: Path) -> None:
    store = Store(tmp_path)
    far = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_rank": 2**63 - 1, "rejected_rank": -(2**63)}
    told = source(store, "jsonl", [far])
    for least in (0, 3, 2**63 - 1):
        assert outcome(pair(store, [told], PairConfig(min_gap=least), 42)).height == 1


def test_the_same_pair_in_two_sources_of_one_name_counts_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    one = source(store, "jsonl", [row])
    two = source(store, "jsonl", [row, row | {"prompt": "q"}], name="jsonl")
    made = pair(store, [one, two], PairConfig(), 42)
    assert outcome(made).height == 2
    assert made.counts["dropped.duplicate_id"] == 1


def test_sources_of_every_kind_go_through_to_the_sample(tmp_path: Path) -> None:
    store = Store(tmp_path)
    talk = {
        side: [{"role": "user", "content": "Why 1?"}, {"role": "assistant", "content": text}]
        for side, text in (("chosen", "good 0"), ("rejected", "bad 0"))
    }
    ranked = {
        "qid": 5, "question": "<p>Why 5?</p>", "metadata": [f"https://{SITE}/questions/5"],
        "answers": [
            {"answer_id": 10 + rank, "pm_score": rank, "selected": False, "text": f"<p>a{rank}</p>"}
            for rank in range(3)
        ],
    }  # fmt: skip
    sources = [
        source(store, "preferences", [ranked]),
        source(store, "paired", [paired_row(number, number) for number in range(1, 9)]),
        source(store, "tulu", [talk]),
        source(store, "jsonl", [{"prompt": "WHY 1?", "chosen": "Good 0", "rejected": "Bad 0"}]),
    ]
    made = pair(store, sources, PairConfig(), 42)
    assert outcome(made).height == 3 + 8 + 1 + 1
    gate(store, made, paired.check())
    clean = dedupe(store, made, DedupeConfig(near=False), 42)
    gate(store, clean, deduped.check())
    assert clean.counts["dropped.exact_duplicate"] == 1  # of tulu and jsonl, which say the same but for case
    clusters = pl.read_parquet(clean.path("pairs.parquet")).filter(pl.col("prompt").str.to_lowercase() == "why 1?")
    assert clusters["cluster"].n_unique() == 1
    drawn = sample(store, clean, SampleConfig(size=None, held_out=3), 42)
    assert drawn.counts["kept"] == 12
    again = pair(replace(store, force=frozenset({"pair"})), sources[::-1], PairConfig(), 42)
    assert not again.reused
    assert again.files == made.files
