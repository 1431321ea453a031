"""Pair, driven as the pipeline drives it: dumps in, a stage folder out."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import polars as pl
import pytest

from tasks.errors import InputError, RecipeError
from tasks.ingest import SourceConfig, ingest_source
from tasks.keyed import keyed_rank
from tasks.manifest import Manifest, total
from tasks.pair import PairConfig, pair
from tasks.pairing import candidates
from tasks.pairs import PAIR_SCHEMA
from tasks.store import External, Store, Workspace

SITE = "bread.stackexchange.com"


def question(number: int, **more: Any) -> dict[str, Any]:
    usual = {"Body": f"<p>Why {number}?</p>", "Title": f"Title {number}", "Tags": "<a><b>", "Score": 7}
    return {"Id": number, "PostTypeId": 1, "CreationDate": "2014-01-21T20:26:05.383", **usual, **more}


def answer(number: int, parent: int, score: int, **more: Any) -> dict[str, Any]:
    usual = {"Body": f"<p>Since {number}.</p>", "Score": score, "CreationDate": "2019-01-21T20:26:05.383"}
    return {"Id": number, "PostTypeId": 2, "ParentId": parent, **usual, **more}


def write_dump(folder: Path, rows: Sequence[dict[str, Any]], users: dict[int, str] | None = None) -> Path:
    folder.mkdir(parents=True)

    def element(row: dict[str, Any]) -> str:
        given = ((name, str(value)) for name, value in row.items() if value is not None)
        return "<row " + " ".join(f"{name}={quoteattr(value)}" for name, value in given) + " />\n"

    (folder / "Posts.xml").write_text(f"<posts>\n{''.join(map(element, rows))}</posts>", encoding="utf-8")
    named = [{"Id": number, "DisplayName": name} for number, name in (users or {}).items()]
    (folder / "Users.xml").write_text(f"<users>\n{''.join(map(element, named))}</users>", encoding="utf-8")
    return folder


@pytest.fixture
def paired(tmp_path: Path) -> Callable[..., tuple[Manifest, pl.DataFrame, pl.DataFrame]]:
    """The manifest, the pairs and the dropped pairs of rows; the counts must add up whatever they are."""

    def run(
        rows: Sequence[dict[str, Any]],
        seed: int = 42,
        work: str = "work",
        users: dict[int, str] | None = None,
        **keys: Any,
    ) -> tuple[Manifest, pl.DataFrame, pl.DataFrame]:
        folder = write_dump(tmp_path / f"dumps-{work}-{random.random()}" / SITE, rows, users)
        source = ingest_source(Store(tmp_path / work), SourceConfig(path=str(folder)))
        return outcome(pair(Store(tmp_path / work), [source], PairConfig(**keys), seed))

    return run


def outcome(done: Manifest) -> tuple[Manifest, pl.DataFrame, pl.DataFrame]:
    pairs = pl.read_parquet(done.path("pairs.parquet"))
    dropped = pl.read_parquet(done.path("dropped.parquet"))
    counts = done.counts
    assert pairs.schema == PAIR_SCHEMA
    assert counts["pairs"] == pairs.height
    assert dropped.height == total(counts, "dropped")
    assert dropped.columns == ["pair_id", "reason", "place"]
    planned = counts["ties"] + counts["capped"] + counts["not_candidate"]
    assert counts["considered"] == planned + total(counts, "dropped") + counts["pairs"]
    return done, pairs, dropped


def test_one_pair_has_every_column_as_the_posts_have_it(paired: Callable[..., Any]) -> None:
    rows = [
        question(1, AcceptedAnswerId=4, OwnerUserId=10, ContentLicense="CC BY-SA 3.0"),
        answer(4, 1, 3, OwnerUserId=11, LastEditDate="2020-05-05T00:00:00"),
        answer(7, 1, 1, OwnerDisplayName="user9", CreationDate="2010-01-01T00:00:00.500"),
    ]
    _, pairs, _ = paired(rows, users={10: "Ann", 11: "Bo", 12: "Cy"})
    assert pairs.to_dicts() == [
        {
            "pair_id": f"{SITE}/1/4/7", "site": SITE, "question_id": 1, "chosen_id": 4, "rejected_id": 7,
            "prompt": "Why 1?", "chosen": "Since 4.", "rejected": "Since 7.",
            "chosen_rank": 3, "rejected_rank": 1, "chosen_score": 3, "rejected_score": 1, "question_score": 7,
            "chosen_accepted": True, "rejected_accepted": False,
            "created": datetime(2014, 1, 21, 20, 26, 5, 383000, UTC),
            "chosen_created": datetime(2019, 1, 21, 20, 26, 5, 383000, UTC),
            "rejected_created": datetime(2010, 1, 1, 0, 0, 0, 500000, UTC), "tags": ["a", "b"],
            "question_author": "Ann", "chosen_author": "Bo", "rejected_author": "user9",
            "question_author_id": 10, "chosen_author_id": 11, "rejected_author_id": None,
            "question_license": "CC BY-SA 3.0", "chosen_license": "CC BY-SA 4.0", "rejected_license": "CC BY-SA 2.5",
            "question_license_stated": True, "chosen_license_stated": False, "rejected_license_stated": False,
        }
    ]  # fmt: skip


def test_an_author_nobody_knows_is_null_and_the_profile_names_one_who_has_both(paired: Callable[..., Any]) -> None:
    rows = [
        question(1, OwnerUserId=5), answer(2, 1, 9, OwnerUserId=6, OwnerDisplayName="old"),
        answer(3, 1, 0, OwnerUserId=7, OwnerDisplayName="gone"),
    ]  # fmt: skip
    _, pairs, _ = paired(rows, users={6: "new"})
    assert pairs.select("question_author", "chosen_author", "rejected_author").row(0) == (None, "new", "gone")
    assert pairs.select("question_author_id", "chosen_author_id", "rejected_author_id").row(0) == (5, 6, 7)


def test_votes_4_and_2_are_a_tie_under_pm_and_5_and_4_are_not(paired: Callable[..., Any]) -> None:
    rows = [question(1), answer(2, 1, 4), answer(3, 1, 2), answer(4, 1, 5)]
    done, pairs, _ = paired(rows)
    assert pairs["pair_id"].to_list() == [f"{SITE}/1/4/2", f"{SITE}/1/4/3"]
    assert done.counts["ties"] == 1
    done, pairs, _ = paired(rows, work="votes", rule="votes")
    assert sorted(pairs["pair_id"]) == [f"{SITE}/1/2/3", f"{SITE}/1/4/2", f"{SITE}/1/4/3"]


def test_acceptance_can_invert_votes_under_pm(paired: Callable[..., Any]) -> None:
    rows = [question(1, AcceptedAnswerId=2), answer(2, 1, 4), answer(3, 1, 4), answer(4, 1, 2)]
    _, pairs, _ = paired(rows)
    assert [(row["chosen_id"], row["rejected_id"]) for row in pairs.to_dicts()] == [(2, 3), (2, 4)]
    assert pairs["chosen_accepted"].all() and not pairs["rejected_accepted"].any()


def test_an_accepted_answer_of_another_question_is_not_accepted(paired: Callable[..., Any]) -> None:
    rows = [question(1, AcceptedAnswerId=12), answer(2, 1, 4), answer(3, 1, 1), question(11), answer(12, 11, 4),
            answer(13, 11, 1)]  # fmt: skip
    _, pairs, _ = paired(rows)
    assert pairs.height == 2
    assert not pairs["chosen_accepted"].any()


def test_pairs_closer_than_the_least_gap_are_dropped_by_name(paired: Callable[..., Any]) -> None:
    rows = [question(1), answer(2, 1, 10), answer(3, 1, 8), answer(4, 1, 8), answer(5, 1, -(2**63)),
            answer(6, 1, 2**63 - 1)]  # fmt: skip
    done, pairs, dropped = paired(rows, rule="votes", min_gap=3)
    assert done.counts["ties"] == 1 and done.counts["dropped.min_gap"] == 2
    assert dropped.sort("pair_id").rows() == [
        (f"{SITE}/1/2/3", "min_gap", "question 1, answers 2 and 3"),
        (f"{SITE}/1/2/4", "min_gap", "question 1, answers 2 and 4"),
    ]
    assert pairs.height == 7  # the two extremes differ by more than int64 holds


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([question(1, Body="<p> </p>"), answer(2, 1, 4), answer(3, 1, 1)], "empty_prompt"),
        ([question(1), answer(2, 1, 4, Body=None), answer(3, 1, 1)], "empty_chosen"),
        ([question(1), answer(2, 1, 4), answer(3, 1, 1, Body="<br>")], "empty_rejected"),
        ([question(1), answer(2, 1, 4), answer(3, 1, 1, Body="<b>" * 3000 + "x")], "unconvertible_rejected"),
    ],
)
def test_a_side_without_text_drops_the_pair_with_its_reason(
    paired: Callable[..., Any], rows: list[dict[str, Any]], reason: str
) -> None:
    done, pairs, dropped = paired(rows)
    assert pairs.is_empty()
    assert dropped.rows() == [(f"{SITE}/1/2/3", reason, "question 1, answers 2 and 3")]
    assert done.counts[f"dropped.{reason}"] == 1


def test_the_title_goes_before_the_body_when_asked_and_saves_an_empty_one(paired: Callable[..., Any]) -> None:
    rows = [question(1), answer(2, 1, 4), answer(3, 1, 1), question(11, Body=""), answer(12, 11, 4), answer(13, 11, 1),
            question(21, Title=None), answer(22, 21, 4), answer(23, 21, 1)]  # fmt: skip
    _, pairs, _ = paired(rows, include_title=True)
    assert pairs["prompt"].to_list() == ["Title 1\n\nWhy 1?", "Title 11", "Why 21?"]


def busy(questions: int = 12, answers: int = 9) -> list[dict[str, Any]]:
    """Questions with many answers, scores that tie now and then."""
    draw = random.Random(5)
    rows: list[dict[str, Any]] = []
    for at in range(1, questions + 1):
        rows.append(question(100 * at, AcceptedAnswerId=100 * at + draw.randrange(1, 12)))
        rows += [answer(100 * at + k, 100 * at, draw.randrange(-3, 40)) for k in range(1, answers + 1)]
    return rows


def test_the_cap_keeps_the_pairs_of_lowest_keyed_rank(paired: Callable[..., Any]) -> None:
    rows = busy()
    _, everything, _ = paired(rows, max_pairs_per_question=None, work="all")
    _, capped, _ = paired(rows, max_pairs_per_question=4)
    for number in everything["question_id"].unique():
        names = everything.filter(pl.col("question_id") == number)["pair_id"].to_list()
        expected = sorted(names, key=lambda name: keyed_rank(42, "cap", name))[:4]
        assert sorted(capped.filter(pl.col("question_id") == number)["pair_id"]) == sorted(expected)


def test_fewer_candidates_are_part_of_more_and_are_those_of_lowest_rank(paired: Callable[..., Any]) -> None:
    rows = busy()
    _, capped, _ = paired(rows, work="capped")
    expected = sorted(capped["pair_id"].to_list(), key=lambda name: keyed_rank(42, "sample", name))
    for number in (1, 7, 40):
        done, pairs, _ = paired(rows, candidates=number)
        assert sorted(pairs["pair_id"]) == sorted(expected[:number])
        assert done.counts["not_candidate"] == len(expected) - number


def test_another_seed_draws_other_pairs(paired: Callable[..., Any]) -> None:
    drawn = [set(paired(busy(), seed=seed, candidates=20)[1]["pair_id"]) for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_the_order_of_rows_the_work_folder_the_threads_and_what_waits_in_memory_change_no_byte(
    paired: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*busy(), answer(90_001, 77, 3), answer(201, 200, 6, Body="<p>another 201</p>")]
    first, _, _ = paired(rows, candidates=60, min_gap=2, users={1: "A"})
    for attempt in range(3):
        random.Random(attempt).shuffle(rows)
        monkeypatch.setattr(candidates, "BLOCK", (1, 50, 10**6)[attempt])
        monkeypatch.setattr(candidates, "SHARE", (10, 40, 10**6)[attempt])
        monkeypatch.setattr("tasks.pair.cores", lambda attempt=attempt: 1 + attempt)
        monkeypatch.setattr("tasks.pair.HELD", (0, 20_000, 10**9)[attempt])
        again, _, _ = paired(rows, work=f"other-{attempt}", candidates=60, min_gap=2, users={1: "A"})
        assert again.counts == first.counts
        assert {name: file.sha256 for name, file in again.files.items()} == {
            name: file.sha256 for name, file in first.files.items()
        }


def test_batches_of_any_size_give_the_same_pairs(paired: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole, _ = paired(busy())
    monkeypatch.setattr("tasks.pair.BATCH", 7)
    _, batched, _ = paired(busy(), work="batched")
    assert batched.equals(whole)


def test_a_question_with_more_answers_than_can_be_true_is_refused(
    paired: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MAX_ANSWERS", 8)
    with pytest.raises(InputError, match="question 100 has 9 answers"):
        paired(busy(questions=1))


def test_questions_whose_answers_make_more_pairs_than_can_be_true_are_refused(
    paired: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MAX_PAIRS", 30)
    monkeypatch.setattr(candidates, "MAX_PAIRS_PER_ANSWER", 2)
    # Nine answers make 36 pairs, and 30 + 2 * 9 = 48 may be; two such questions make 72, and 66 may be.
    done, _, _ = paired(busy(questions=1))
    assert done.counts["considered"] == 36
    with pytest.raises(InputError, match=r"make 72 pairs, more than the 66 .* question 100 has the most answers, 9"):
        paired(busy(questions=2), work="two")


def test_without_a_cap_pairs_are_drawn_block_by_block_to_the_same_bytes(
    paired: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _, _ = paired(busy(), candidates=25, max_pairs_per_question=None)
    assert whole.counts["capped"] == 0 and whole.counts["not_candidate"] > 0
    monkeypatch.setattr(candidates, "BLOCK", 7)
    blocks, _, _ = paired(busy(), work="blocks", candidates=25, max_pairs_per_question=None)
    assert blocks.counts == whole.counts
    assert {name: file.sha256 for name, file in blocks.files.items()} == {
        name: file.sha256 for name, file in whole.files.items()
    }


def test_a_dump_without_pairs_gives_no_pairs(paired: Callable[..., Any]) -> None:
    for number, rows in enumerate([[], [question(1)], [question(1), answer(2, 1, 4)]]):
        done, pairs, _ = paired(rows, work=f"work-{number}")
        assert pairs.is_empty() and done.counts["considered"] == 0


def test_several_sites_are_drawn_from_together_in_any_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    sources = [
        ingest_source(store, SourceConfig(path=str(write_dump(tmp_path / name, busy()))))
        for name in ("b.example.com", "a.example.com")
    ]
    done, pairs, _ = outcome(pair(store, sources, PairConfig(candidates=80), 42))
    assert pairs["site"].unique(maintain_order=True).to_list() == ["a.example.com", "b.example.com"]
    again = pair(store, sources[::-1], PairConfig(candidates=80), 42)
    assert again.reused and again.fingerprint == done.fingerprint


def test_two_dumps_of_one_site_are_a_mistake_in_the_recipe(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    sources = [
        ingest_source(store, SourceConfig(path=str(write_dump(tmp_path / name / SITE, [question(at + 1)]))))
        for at, name in enumerate(("old", "new"))
    ]
    with pytest.raises(RecipeError, match=SITE):
        pair(store, sources, PairConfig(), 42)


def given_pairs(store: Store, name: str, names: Sequence[str]) -> Manifest:
    """The manifest of a source that gave pairs."""

    def build(work: Workspace) -> dict[str, int]:
        rows = [dict.fromkeys(PAIR_SCHEMA.names()) | {"pair_id": given, "prompt": f"p{given}"} for given in names]
        pl.DataFrame(rows, schema=PAIR_SCHEMA).write_parquet(work.folder / "pairs.parquet")
        return {"rows": len(rows), "pairs": len(rows)}

    return store.stage("source", 1, {"kind": "jsonl", "name": name}, {"source": External(name)}, build)


def test_pairs_of_other_sources_are_taken_over_and_repeated_names_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.pair.BATCH", 2)
    store = Store(tmp_path / "work")
    dump = ingest_source(store, SourceConfig(path=str(write_dump(tmp_path / SITE, busy(2)))))
    others = [
        given_pairs(store, "one", ["one/a", "one/b", "one/a", "one/c"]),
        given_pairs(store, "two", ["two/a", "one/c", "two/b"]),
    ]
    done, pairs, dropped = outcome(pair(store, [*others, dump], PairConfig(), 42))
    assert pairs.filter(pl.col("site").is_null())["pair_id"].sort().to_list() == [
        "one/a", "one/b", "one/c", "two/a", "two/b",
    ]  # fmt: skip
    assert pairs.filter(pl.col("pair_id") == "one/b")["prompt"].to_list() == ["pone/b"]
    assert sorted(dropped["pair_id"]) == ["one/a", "one/c"]
    assert set(dropped["reason"]) == {"duplicate_id"}
    names = pairs["pair_id"].to_list()
    few, drawn, _ = outcome(pair(store, [dump, *others], PairConfig(candidates=9), 42))
    assert sorted(drawn["pair_id"]) == sorted(sorted(names, key=lambda name: keyed_rank(42, "sample", name))[:9])
    assert few.counts["not_candidate"] == done.counts["pairs"] - 9


def test_a_run_that_ends_while_pairs_are_put_together_goes_on_with_the_texts_that_are_there(
    paired: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [question(1), answer(2, 1, 5), answer(3, 1, 1)]
    undisturbed, _, _ = paired(rows, work="undisturbed")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tasks.pair.assemble", interrupted)
        with pytest.raises(KeyboardInterrupt):
            paired(rows)
    assert paired(rows)[0].files == undisturbed.files
