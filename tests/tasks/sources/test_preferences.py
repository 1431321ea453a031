"""Questions with ranked answers become posts, and the pair stage makes pairs of them as of a dump's."""

import json
import random
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from data_checks import ingested, paired
from tasks.errors import InputError, RecipeError
from tasks.gate import gate
from tasks.ingest import SourceConfig, ingest_source
from tasks.keyed import keyed_rank
from tasks.manifest import Manifest, total
from tasks.pair import PairConfig, pair
from tasks.sources import preferences
from tasks.store import Store

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "hub_samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples of public sets are not here")
SITE = "beer.stackexchange.com"

Read = Callable[..., tuple[Manifest, pl.DataFrame, pl.DataFrame]]


def answer(number: int, rank: Any = 1, **change: Any) -> dict[str, Any]:
    return {
        "answer_id": number, "author": f"Author {number}", "author_id": 100 + number, "pm_score": rank,
        "author_profile": f"https://{SITE}/users/{100 + number}", "selected": False, "text": f"<p>Since {number}.</p>",
    } | change  # fmt: skip


def question(number: int, *answers: dict[str, Any], site: str = SITE, **change: Any) -> dict[str, Any]:
    return {
        "qid": number, "question": f"<p>Why <b>{number}</b>?</p>", "answers": list(answers), "date": "2014/01/21",
        "metadata": [f"https://{site}/questions/{number}", f"https://{site}", f"https://{site}/users/9/"],
    } | change  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Ingest rows; the counts must add up whatever they are, and the gate must pass."""

    def run(rows: list[Any], work: str = "work", **keys: Any) -> tuple[Manifest, pl.DataFrame, pl.DataFrame]:
        path = tmp_path / f"rows-{random.random()}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        store = Store(tmp_path / work)
        found = ingest_source(store, SourceConfig(kind="preferences", path=str(path), **keys))
        posts = pl.read_parquet(sorted(found.path("posts.parquet").rglob("*.parquet")))
        dropped = pl.read_parquet(found.path("dropped.parquet"))
        assert found.counts["rows"] == found.counts["questions"] + found.counts["answers"] + total(
            found.counts, "skipped"
        )
        assert posts.height == found.counts["questions"] + found.counts["answers"]
        assert dropped.height == total(found.counts, "skipped")
        return found, posts, dropped

    return run


def test_posts_have_what_the_set_tells_and_null_for_the_rest(read: Read) -> None:
    _, posts, _ = read([question(1, answer(4, 3, selected=True), answer(7, -1, author=" ", author_id=None))])
    told = [
        {name: value for name, value in post.items() if value is not None} for post in posts.drop("created").to_dicts()
    ]
    assert told == [
        {"site": SITE, "id": 1, "post_type": 1, "accepted_id": 4, "owner_id": 9, "body": "<p>Why <b>1</b>?</p>"},
        {"site": SITE, "id": 4, "post_type": 2, "parent_id": 1, "owner_id": 104, "owner_name": "Author 4",
         "body": "<p>Since 4.</p>", "rank": 3},
        {"site": SITE, "id": 7, "post_type": 2, "parent_id": 1, "body": "<p>Since 7.</p>", "rank": -1},
    ]  # fmt: skip


def test_pairs_are_made_by_rank_and_a_tie_is_none(read: Read, tmp_path: Path) -> None:
    source, _, _ = read([question(1, answer(2, 0), answer(3, 5, selected=True), answer(4, 0)), question(8, answer(9))])
    store = Store(tmp_path / "work")
    gate(store, source, ingested.check())
    made = pair(store, [source], PairConfig(), 42)
    gate(store, made, paired.check())
    assert {name: count for name, count in made.counts.items() if count} == {"considered": 3, "ties": 1, "pairs": 2}
    row = pl.read_parquet(made.path("pairs.parquet")).row(0, named=True)
    known = {name: value for name, value in row.items() if value is not None and name != "created"}
    assert known == {
        "pair_id": f"{SITE}/1/3/2", "site": SITE, "question_id": 1, "chosen_id": 3, "rejected_id": 2,
        "prompt": "Why **1**?", "chosen": "Since 3.", "rejected": "Since 2.", "chosen_rank": 5, "rejected_rank": 0,
        "chosen_accepted": True, "rejected_accepted": False, "question_author_id": 9, "chosen_author": "Author 3",
        "chosen_author_id": 103, "rejected_author": "Author 2", "rejected_author_id": 102,
        "question_license": "CC BY-SA 3.0", "question_license_stated": False,
    }  # fmt: skip


def test_the_cap_is_the_same_draw_as_for_a_dump(read: Read, tmp_path: Path) -> None:
    source, _, _ = read([question(1, *(answer(number, number) for number in range(10, 16)))])
    made = pair(Store(tmp_path / "work"), [source], PairConfig(max_pairs_per_question=4), 7)
    every = [f"{SITE}/1/{high}/{low}" for low, high in combinations(range(10, 16), 2)]
    expected = sorted(sorted(every, key=lambda name: keyed_rank(7, "cap", name))[:4])
    assert sorted(pl.read_parquet(made.path("pairs.parquet"))["pair_id"]) == expected
    assert made.counts["capped"] == 11


def test_numbers_are_each_sites_own(read: Read, tmp_path: Path) -> None:
    rows = [question(1, answer(2, 1), answer(3, 2), site=site) for site in ("Wine.StackExchange.com", SITE)]
    source, posts, _ = read(rows)
    assert sorted(set(posts["site"])) == [SITE, "wine.stackexchange.com"]
    store = Store(tmp_path / "work")
    gate(store, source, ingested.check())
    names = pl.read_parquet(pair(store, [source], PairConfig(), 42).path("pairs.parquet"))["pair_id"]
    assert sorted(names) == [f"{SITE}/1/3/2", "wine.stackexchange.com/1/3/2"]


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        ("nothing", ["malformed"]),
        (question(2, answer(5), answers="none"), ["bad_type"]),
        (question(2, answer(5), question=None), ["bad_type"] * 2),
        (question(2, answer(5), metadata=None), ["no_site"] * 2),
        (question(2, answer(5), qid=3), ["bad_id"] * 2),
        (question(2, answer(5), qid=-1, metadata=[f"https://{SITE}"]), ["bad_id"] * 2),
        (question(2, answer(5, selected=True), answer(6, selected=True)), ["several_accepted"] * 3),
        (question(2, answer(5), question="nul \0"), ["bad_character"] * 2),
        (question(2, answer(5, rank="3"), answer(6)), ["bad_score"]),
        (question(2, answer(5, rank=None), answer(6)), ["bad_score"]),
        (question(2, answer(5, answer_id=None), answer(6)), ["bad_id"]),
        (question(2, answer(5, text=None), answer(6)), ["bad_type"]),
        (question(2, answer(5, text="\ud800"), answer(6)), ["bad_character"]),
        (question(2, answer(5, text="x" * 1_000_001), answer(6)), ["too_long"]),
        (question(2, answer(5), answer(5)), ["duplicate_id"]),
        (question(1, answer(5)), ["duplicate_id"]),
    ],
)
def test_a_fault_costs_the_answer_or_the_question_with_its_answers(row: Any, reasons: list[str], read: Read) -> None:
    _, _, dropped = read([question(1, answer(10), answer(11, 2)), row])
    assert dropped["reason"].to_list() == reasons
    assert dropped["place"].str.starts_with("line ").all()


def test_the_order_of_rows_and_the_size_of_parts_change_no_byte(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    rows = [
        question(100 * number, *(answer(100 * number + k, k) for k in range(1, 5)), site=f"s{number % 3}.example.com")
        for number in range(1, 30)
    ]
    rows += [question(100, answer(101, 9), site="s1.example.com", question="<p>Another body</p>")]
    stored = set()
    for number in range(3):
        random.Random(number).shuffle(rows)
        found, posts, _ = read(rows, work=f"w{number}")
        stored.add(json.dumps({name: file.sha256 for name, file in found.files.items() if "dropped" not in name}))
        monkeypatch.setattr(preferences, "_PART", 7)
        monkeypatch.setattr(preferences, "_HELD", 20)
    assert len(stored) == 1
    assert posts.height == 29 * 5
    assert found.counts["skipped.duplicate_id"] == 2


def test_a_site_is_cut_into_parts_that_workers_convert_apart(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferences, "_PUBLISHED", 10)
    monkeypatch.setattr("tasks.ordered.BATCH", 5)
    found, posts, _ = read([question(10 * n, answer(10 * n + 1, 1), answer(10 * n + 2, 2)) for n in range(1, 9)])
    assert len([name for name in found.files if name.startswith("posts.parquet/")]) == 3
    assert posts["id"].is_sorted()


def test_votes_are_not_made_up_from_ranks(read: Read, tmp_path: Path) -> None:
    source, _, _ = read([question(1, answer(2), answer(3, 2))])
    with pytest.raises(RecipeError, match=r"pair\.rule is votes"):
        pair(Store(tmp_path / "work"), [source], PairConfig(rule="votes"), 42)


def test_two_sources_with_posts_of_one_site_are_refused(read: Read, tmp_path: Path) -> None:
    sources = [read([question(number, answer(5), answer(6, 2))])[0] for number in (1, 2)]
    with pytest.raises(RecipeError, match=SITE):
        pair(Store(tmp_path / "work"), sources, PairConfig(), 42)


def test_nothing_but_faults_is_a_table_without_rows(read: Read, tmp_path: Path) -> None:
    source, posts, _ = read([question(1, answer(2), metadata=[])])
    assert posts.is_empty()
    assert gate(Store(tmp_path / "work"), source, ingested.check()).counts["failed_critical"] == 0
    assert pair(Store(tmp_path / "work"), [source], PairConfig(), 42).counts["considered"] == 0


def test_a_file_of_pairs_is_no_file_of_preferences(read: Read) -> None:
    with pytest.raises(InputError, match=r"not of kind preferences.*question, answers"):
        read([{"question": "q", "response_j": "a", "response_k": "b"}])


@needs_samples
def test_the_sample_in_the_form_of_the_public_set_is_read_whole(tmp_path: Path) -> None:
    path = SAMPLES / "made_h4_stack_exchange_preferences.parquet"
    store = Store(tmp_path)
    source = ingest_source(store, SourceConfig(kind="preferences", path=str(path)))
    rows = pl.read_parquet(path)
    assert source.counts["questions"] == rows.height == 60
    assert source.counts["answers"] == rows["answers"].list.len().sum()
    gate(store, source, ingested.check())
    made = pair(store, [source], PairConfig(max_pairs_per_question=None), 42)
    ranked = rows["answers"].list.eval(pl.element().struct.field("pm_score")).to_list()
    assert made.counts["pairs"] == sum(a != b for ranks in ranked for a, b in combinations(ranks, 2))


@needs_samples
def test_pairs_made_of_ranks_say_what_the_set_made_of_them_says(tmp_path: Path) -> None:
    """The paired sample was made of the same posts by another converter: nearly all texts agree but for markup."""
    store = Store(tmp_path)
    config = SourceConfig(kind="preferences", path=str(SAMPLES / "made_h4_stack_exchange_preferences.parquet"))
    made = pair(store, [ingest_source(store, config)], PairConfig(), 42)
    other = ingest_source(store, SourceConfig(kind="paired", path=str(SAMPLES / "made_stack_exchange_paired.parquet")))

    def texts(manifest: Manifest) -> set[tuple[str, ...]]:
        rows = pl.read_parquet(manifest.path("pairs.parquet")).select("prompt", "chosen", "rejected").rows()
        return {tuple("".join(filter(str.isalnum, text)) for text in row) for row in rows}

    assert len(texts(made) & texts(other)) >= 0.8 * other.counts["pairs"]
