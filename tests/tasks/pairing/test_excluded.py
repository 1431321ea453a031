"""Takedown, driven as the pipeline drives it: ids in a recipe, and no pair that any of them is in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.errors import InputError
from tasks.ingest import SourceConfig, ingest_source
from tasks.manifest import Manifest, total
from tasks.pair import PairConfig, pair
from tasks.pairing.excluded import excluded_name, read_excluded
from tasks.store import Store
from tests.tasks.test_pair import answer, outcome, question, write_dump

SITE = "bread.stackexchange.com"
# Three answers of different votes to each question, so three pairs a question.
ROWS = [
    question(1, OwnerUserId=10), answer(2, 1, 9, OwnerUserId=20), answer(3, 1, 3, OwnerUserId=30), answer(4, 1, 0),
    question(5, OwnerUserId=30), answer(6, 5, 9, OwnerUserId=20), answer(7, 5, 3, OwnerUserId=10), answer(8, 5, 0),
]  # fmt: skip

Outcome = tuple[Manifest, pl.DataFrame, pl.DataFrame]
MakePairs = Callable[..., Outcome]


@pytest.fixture
def paired(tmp_path: Path) -> MakePairs:
    """The pairs of ROWS without the ids `exclude`."""
    source = ingest_source(Store(tmp_path), SourceConfig(path=str(write_dump(tmp_path / "dumps" / SITE, ROWS))))

    def run(exclude: list[str] | str, **keys: Any) -> Outcome:
        return outcome(pair(Store(tmp_path), [source], PairConfig(exclude=exclude, **keys), 42))

    return run


def ids(pairs: pl.DataFrame) -> set[str]:
    return {name.removeprefix(f"{SITE}/") for name in pairs["pair_id"]}


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("q/1", {"1/2/3", "1/2/4", "1/3/4"}),  # a question takes all its pairs with it
        ("a/3", {"1/2/3", "1/3/4"}),
        ("3", {"1/2/3", "1/3/4"}),
        ("users/20", {"1/2/3", "1/2/4", "5/6/7", "5/6/8"}),
        ("users/30", {"1/2/3", "1/3/4", "5/6/7", "5/6/8", "5/7/8"}),  # who answers 1 and asks 5
    ],
)
def test_no_pair_is_left_that_an_id_is_in(paired: MakePairs, name: str, gone: set[str]) -> None:
    all_of_them = ids(paired([])[1])
    done, pairs, dropped = paired([f"https://{SITE}/{name}"])
    assert ids(pairs) == all_of_them - gone
    assert ids(dropped) == gone
    assert set(dropped["reason"]) == {"excluded"}
    assert done.counts["dropped.excluded"] == len(gone)
    assert done.counts["exclude.ids"] == 1
    assert done.counts["exclude.unmatched"] == 0


def test_what_is_left_out_takes_nobodys_place_under_the_cap(paired: MakePairs) -> None:
    done, pairs, _ = paired([f"{SITE}/a/2"], max_pairs_per_question=1)
    assert [name.split("/")[1] for name in pairs["pair_id"]] == ["1", "5"]
    assert done.counts["capped"] == 2  # of question 5; question 1 had but one pair left


def test_an_id_that_nothing_bears_is_counted_and_written_down(paired: MakePairs) -> None:
    done, pairs, _ = paired([f"{SITE}/a/99", f"{SITE}/users/2", "tea.stackexchange.com/q/1", f"{SITE}/q/5"])
    assert done.counts["exclude.ids"] == 4
    assert done.counts["exclude.unmatched"] == 3
    unmatched = [f"{SITE}/99", f"{SITE}/users/2", "tea.stackexchange.com/1"]
    assert done.provenance["exclude_unmatched"] == unmatched
    assert all(name.startswith("1/") for name in ids(pairs))


def test_a_file_and_a_list_of_the_same_ids_are_the_same_stage(paired: MakePairs, tmp_path: Path) -> None:
    first, _, _ = paired([f"{SITE}/q/1", f"{SITE}/users/20"])
    listed = tmp_path / "takedown.txt"
    listed.write_text(f"\ufeff# asked on Monday\r\nhttps://{SITE}/users/20  # by letter\n\n{SITE}/q/1\n", "utf-8")
    second, _, _ = paired(str(listed))
    moved = listed.rename(tmp_path / "elsewhere.txt")
    third, _, _ = paired(str(moved))
    assert first.folder == second.folder == third.folder
    assert second.reused and third.reused
    assert "takedown" not in json.dumps(second.config)
    moved.write_text(f"{SITE}/q/1\n", "utf-8")
    assert paired(str(moved))[0].folder != first.folder


def test_a_line_that_is_no_id_is_named(paired: MakePairs, tmp_path: Path) -> None:
    listed = tmp_path / "takedown.txt"
    listed.write_text(f"{SITE}/q/1\n{SITE}/questions/5/how-to\n", "utf-8")
    with pytest.raises(InputError, match=r"takedown\.txt, line 2: .*how-to' is not SITE/q/ID"):
        paired(str(listed))
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read"):
        paired(str(tmp_path / "nowhere.txt"))
    with pytest.raises(ValidationError, match="'bread/1' is not SITE/q/ID"):
        PairConfig(exclude=["bread/1"])


def test_an_address_is_read_as_attribution_writes_it() -> None:
    assert excluded_name("https://Beer.StackExchange.com/q/007") == "beer.stackexchange.com/7"
    assert excluded_name("beer.stackexchange.com/users/7") == "beer.stackexchange.com/users/7"
    assert excluded_name("tulu/0123456789abcdef") == "tulu/0123456789abcdef"
    for wrong in ("7", "beer.stackexchange.com", "beer.stackexchange.com/q/", "beer.stackexchange.com/q/-1",
                  "tulu/0123456789ABCDEF", "beer.stackexchange.com/1/4/7"):  # fmt: skip
        with pytest.raises(ValueError, match="is not SITE/q/ID"):
            excluded_name(wrong)


def test_ready_made_pairs_are_left_out_by_what_their_source_tells(tmp_path: Path) -> None:
    whole = {"site": SITE, "question_id": 1, "chosen_id": 2, "rejected_id": 3, "chosen_author_id": 20}
    rows = [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No.", **whole},
        {"prompt": "Why?", "chosen": "So.", "rejected": "Hm.", **whole, "rejected_id": 4, "chosen_author_id": 21},
        {"prompt": "When?", "chosen": "Now.", "rejected": "Never."},
        {"prompt": "Where?", "chosen": "Here.", "rejected": "There."},
    ]
    given = tmp_path / "given.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    source = ingest_source(Store(tmp_path), SourceConfig(kind="jsonl", path=str(given)))
    _, pairs, _ = outcome(pair(Store(tmp_path), [source], PairConfig(), 42))
    nameless = next(name for name, prompt in pairs.select("pair_id", "prompt").iter_rows() if prompt == "When?")
    done, kept, dropped = outcome(
        pair(Store(tmp_path), [source], PairConfig(exclude=[f"{SITE}/users/20", nameless, f"{SITE}/users/3"]), 42)
    )
    assert sorted(kept["prompt"]) == ["Where?", "Why?"]
    assert set(dropped["pair_id"]) == {f"{SITE}/1/2/3", nameless}
    assert set(dropped["reason"]) == {"excluded"}
    assert total(done.counts, "dropped") == 2
    assert done.counts["exclude.unmatched"] == 1


def test_no_id_is_no_digest() -> None:
    assert read_excluded([]).digest is None
