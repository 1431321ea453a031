"""Pairs from elsewhere to judge by: none of whose questions training has seen, whatever they are written in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.keyed import keyed_rank
from tasks.manifest import Manifest, total
from tasks.pairs import DEDUPED_SCHEMA, PAIR_SCHEMA
from tasks.store import External, Store, Workspace
from tasks.unseen import BEGINNING, said, unseen

SITE = "beer.stackexchange.com"


def table(store: Store, name: str, file: str, rows: Sequence[dict[str, Any]], schema: pl.Schema) -> Manifest:
    def build(work: Workspace) -> dict[str, int]:
        whole = [dict.fromkeys(schema.names()) | {"chosen": "c", "rejected": "r"} | row for row in rows]
        pl.DataFrame(whole, schema=schema).write_parquet(work.folder / file)
        return {"rows": len(rows)}

    return store.stage(name, 1, {}, {"source": External(f"{name}-{rows}")}, build)


def chosen(
    folder: Path, train: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]], number: int = 100, seed: int = 42
) -> tuple[Manifest, list[str], list[tuple[str, str]]]:
    """The stage, the ids of the pairs to judge by, and the ids and reasons of those dropped."""
    store = Store(folder)
    sampled = table(store, "sample", "train.parquet", train, DEDUPED_SCHEMA)
    made = table(store, "pair", "pairs.parquet", pairs, PAIR_SCHEMA)
    done = unseen(store, made, sampled, number, seed)
    held = pl.read_parquet(done.path("held_out.parquet"))
    dropped = pl.read_parquet(done.path("dropped.parquet"))
    counts = done.counts
    assert counts["pairs"] == counts["held_out"] + counts["not_sampled"] + total(counts, "dropped") == len(pairs)
    assert held.schema == PAIR_SCHEMA == pl.read_parquet(done.path("train.parquet")).schema
    return done, held["pair_id"].to_list(), list(dropped.select("pair_id", "reason").iter_rows())


def row(name: str, prompt: str, site: str | None = None, question: int | None = None) -> dict[str, Any]:
    return {"pair_id": name, "prompt": prompt, "site": site, "question_id": question}


def test_a_question_that_training_has_seen_is_left_out_by_number_and_by_words(tmp_path: Path) -> None:
    train = [row("t1", "Why is 2^10 more?"), row("t2", "Edited since", SITE, 7), row("t3", "Which *hop* is `best`?")]
    pairs = [
        row("a", "Why is 2<sup>10</sup>\nmore?"),
        row("b", "As it was asked first", SITE, 7),
        row("c", "The same number elsewhere", "wine.stackexchange.com", 7),
        row("d", "The same number nowhere", None, 7),
        row("e", "WHICH hop is best? "),
        row("f", "Which hop is worst?"),
    ]
    _, held, dropped = chosen(tmp_path, train, pairs)
    assert sorted(held) == ["c", "d", "f"]
    assert dropped == [("a", "seen_prompt"), ("b", "seen_question"), ("e", "seen_prompt")]


def test_as_many_as_asked_for_are_drawn_by_the_rank_of_their_names(tmp_path: Path) -> None:
    pairs = [row(f"p{number}", f"Question {number}?") for number in range(50)]
    done, held, _ = chosen(tmp_path, [row("t", "Question 3?")], pairs, number=9, seed=5)
    free = [pair["pair_id"] for pair in pairs if pair["pair_id"] != "p3"]
    assert held == sorted(free, key=lambda name: keyed_rank(5, "held_out", name))[:9]
    assert done.counts["not_sampled"] == 40
    _, fewer, _ = chosen(tmp_path, [row("t", "Question 3?")], pairs, number=4, seed=5)
    assert fewer == held[:4]


def test_all_seen_leaves_an_empty_table_that_later_stages_can_read(tmp_path: Path) -> None:
    done, held, dropped = chosen(tmp_path, [row("t", "Q")], [row("a", "q!"), row("b", "_q_")])
    assert (held, len(dropped), done.counts["held_out"]) == ([], 2, 0)


def test_more_than_a_batch_is_judged_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.ordered.BATCH", 3)
    pairs = [row(f"p{number:02}", f"Question {number}?") for number in range(20)]
    _, held, dropped = chosen(tmp_path, [row("t", f"Question {number}?") for number in (0, 5, 19)], pairs)
    assert [name for name, _ in dropped] == ["p00", "p05", "p19"]
    assert len(held) == 17


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("See [this](https://a.b/c_(d)) now", "See this now"),
        ("![alt text](/i.png) look", "alt text look"),
        ("<http://www.videojs.com/> is it", "is it"),
        ("- a\n- b", "* a\n* b"),
        ("a\\_b \\* c", "a_b * c"),
        ("ﬁne Ⅷ", "fine VIII"),
    ],
)
def test_markup_says_nothing(one: str, other: str) -> None:
    assert said(one) == said(other)


def test_the_beginning_decides_and_a_prompt_of_signs_is_itself() -> None:
    assert said("a" * BEGINNING + " one end") == said("a" * BEGINNING + " another end")
    assert said("?") == "?" != said("!")


@given(prompt=st.text(min_size=1), more=st.text(" \t\n*_>#`~|-", max_size=5))
def test_signs_around_a_prompt_change_nothing_that_it_says(prompt: str, more: str) -> None:
    assume("<" not in prompt or ">" not in more)  # together they may be a tag, which says nothing: <A is said, <A> not
    if any(letter.isalnum() for letter in said(prompt)):
        assert said(f"{more}{prompt}{more}") == said(prompt)
