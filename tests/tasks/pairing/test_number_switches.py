"""Switches of `pair` that numbers decide: each leaves out what it names, counts it, and leaves the draw as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.ingest import SourceConfig, ingest_source
from tasks.pair import PairConfig, pair
from tasks.store import Store
from tests.tasks.test_pair import answer, outcome, question, write_dump

SITE = "bread.stackexchange.com"
Paired = Callable[..., tuple[dict[str, int], set[str], dict[str, str]]]


@pytest.fixture
def paired(tmp_path: Path) -> Paired:
    """Counts, the pairs that stay, and the reason of each other, by QUESTION/CHOSEN/REJECTED."""

    def run(rows: list[dict[str, Any]], **keys: Any) -> tuple[dict[str, int], set[str], dict[str, str]]:
        dumps = tmp_path / f"dumps-{sum(1 for _ in tmp_path.iterdir())}"
        source = ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(write_dump(dumps / SITE, rows))))
        done, pairs, dropped = outcome(pair(Store(tmp_path / "work"), [source], PairConfig(**keys), 42))
        names = {name.removeprefix(f"{SITE}/") for name in pairs["pair_id"]}
        reasons = {row["pair_id"].removeprefix(f"{SITE}/"): row["reason"] for row in dropped.iter_rows(named=True)}
        return done.counts, names, reasons

    return run


def at(day: int) -> str:
    return f"2014-01-{day:02d}T00:00:00.000"


def test_the_later_answer_must_win_and_at_the_same_instant_neither_is_later(paired: Paired) -> None:
    rows = [
        question(1), answer(2, 1, 9, CreationDate=at(2)), answer(3, 1, 3, CreationDate=at(1)),
        answer(4, 1, 0, CreationDate=at(3)), answer(5, 1, 1, CreationDate=at(1)),
    ]  # fmt: skip
    counts, kept, reasons = paired(rows, later_wins=True)
    assert kept == {"1/2/3", "1/2/5"}
    assert reasons == dict.fromkeys(("1/2/4", "1/3/4", "1/5/4", "1/3/5"), "later_wins")
    assert counts["dropped.later_wins"] == 4


def test_a_closed_question_goes_with_all_its_pairs(paired: Paired) -> None:
    rows = [question(1, ClosedDate=at(9)), answer(2, 1, 9), answer(3, 1, 0), question(4), answer(5, 4, 9),
            answer(6, 4, 0)]  # fmt: skip
    assert paired(rows)[1] == {"1/2/3", "4/5/6"}
    counts, kept, reasons = paired(rows, drop_closed=True)
    assert kept == {"4/5/6"}
    assert reasons == {"1/2/3": "closed"}
    assert counts["dropped.closed"] == 1


def test_wiki_posts_go_whether_they_ask_or_answer(paired: Paired) -> None:
    wiki = {"CommunityOwnedDate": at(9)}
    rows = [question(1, **wiki), answer(2, 1, 9), answer(3, 1, 0),
            question(4), answer(5, 4, 9), answer(6, 4, 3, **wiki), answer(7, 4, 0)]  # fmt: skip
    counts, kept, reasons = paired(rows, drop_community=True)
    assert kept == {"4/5/7"}
    assert reasons == dict.fromkeys(("1/2/3", "4/5/6", "4/6/7"), "community")
    assert counts["dropped.community"] == 3


def test_of_several_reasons_the_first_in_order_is_counted(paired: Paired) -> None:
    rows = [question(1, ClosedDate=at(9), CommunityOwnedDate=at(9)), answer(2, 1, 1, CreationDate=at(1)),
            answer(3, 1, 0, CreationDate=at(2))]  # fmt: skip
    every = {"exclude": [f"{SITE}/a/3"], "min_gap": 9, "drop_closed": True, "drop_community": True, "later_wins": True}
    for reason in ("excluded", "min_gap", "closed", "community", "later_wins"):
        counts, kept, reasons = paired(rows, **every)
        assert (kept, reasons) == (set(), {"1/2/3": reason})
        off = {"excluded": {"exclude": []}, "min_gap": {"min_gap": 0}}
        every |= off.get(reason, {f"drop_{reason}": False} if reason != "later_wins" else {})
        assert counts["considered"] == 1


def test_switches_that_are_off_are_not_counted(paired: Paired) -> None:
    counts, _, _ = paired([question(1), answer(2, 1, 9), answer(3, 1, 0)])
    assert [name for name in counts if name.startswith(("dropped.later", "dropped.closed", "exclude"))] == []


def test_the_cap_and_the_candidates_are_filled_from_what_a_switch_leaves(paired: Paired) -> None:
    rows: list[dict[str, Any]] = []
    for number in range(1, 21):
        asked = 10 * number
        rows.append(question(asked, ClosedDate=at(9) if number % 2 else None))
        rows += [answer(asked + place, asked, 3**place, CreationDate=at(place)) for place in range(1, 6)]
    counts, kept, _ = paired(rows, drop_closed=True, later_wins=True, max_pairs_per_question=3, candidates=25)
    assert counts["pairs"] == len(kept) == 25  # of ten open questions, three pairs each
    assert counts["dropped.closed"] == 100
    assert counts["dropped.later_wins"] == 0  # votes grow with the date
    smaller = paired(rows, drop_closed=True, later_wins=True, max_pairs_per_question=3, candidates=10)[1]
    assert smaller < kept


def test_ready_made_pairs_without_dates_do_not_show_that_the_later_answer_won(tmp_path: Path) -> None:
    dates = ("2014-01-02T00:00:00+00:00", "2014-01-01T00:00:00+00:00")
    rows = [
        {"prompt": "A?", "chosen": "a", "rejected": "b"},
        {"prompt": "B?", "chosen": "a", "rejected": "b", "chosen_created": dates[0], "rejected_created": dates[1]},
        {"prompt": "C?", "chosen": "a", "rejected": "b", "chosen_created": dates[1], "rejected_created": dates[0]},
    ]
    given = tmp_path / "given.jsonl"
    given.write_text("".join(f"{row}\n".replace("'", '"') for row in rows), "utf-8")
    source = ingest_source(Store(tmp_path), SourceConfig(kind="jsonl", path=str(given)))
    done, pairs, dropped = outcome(pair(Store(tmp_path), [source], PairConfig(later_wins=True), 42))
    assert pairs["prompt"].to_list() == ["B?"]
    assert dropped["reason"].to_list() == ["later_wins", "later_wins"]
    assert done.counts["dropped.later_wins"] == 2


def test_rows_in_another_order_give_the_same_bytes_with_every_switch_on(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for number in range(1, 13):
        asked = 10 * number
        rows.append(question(asked, ClosedDate=at(9) if number % 4 == 0 else None, OwnerUserId=number))
        rows += [
            answer(asked + place, asked, 3 ** (7 * place % 5), CreationDate=at(place), OwnerUserId=number * place,
                   CommunityOwnedDate=at(9) if (number + place) % 5 == 0 else None, Body=f"<p>{'x' * place * 9}</p>")
            for place in range(1, 6)
        ]  # fmt: skip
    config = PairConfig(
        exclude=[f"{SITE}/users/12", f"{SITE}/q/30"], later_wins=True, drop_closed=True, drop_community=True,
        max_length_ratio=3.0, min_answer_chars=10, mask_personal=True, max_pairs_per_question=4, candidates=20,
    )  # fmt: skip
    digests = []
    for name, given in (("one", rows), ("other", rows[::-1])):
        source = ingest_source(
            Store(tmp_path / name), SourceConfig(path=str(write_dump(tmp_path / name / SITE, given)))
        )
        done, pairs, dropped = outcome(pair(Store(tmp_path / name), [source], config, 42))
        assert pairs.height and dropped["reason"].n_unique() >= 4
        digests.append({file: done.files[file].sha256 for file in ("pairs.parquet", "dropped.parquet")})
    assert digests[0] == digests[1]
