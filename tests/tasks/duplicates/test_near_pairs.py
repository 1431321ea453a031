"""Which pairs go for near duplicates, level by level, through the stage."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.dedupe import DedupeConfig, dedupe
from tasks.manifest import Manifest
from tasks.pairs import PAIR_SCHEMA
from tasks.store import Store, Workspace

Row = dict[str, Any]
Run = Callable[..., tuple[Manifest, pl.DataFrame, dict[str, tuple[str, str]]]]

CHANCE = random.Random(1)


def text(words: int = 60) -> str:
    return " ".join(f"w{CHANCE.randrange(10**9)}" for _ in range(words))


def edit(original: str, last: str = "edited") -> str:
    """One more word at the end: of 60 words, similar to 56/57."""
    return f"{original} {last}"


def pair(site: str, question: int, chosen_id: int, rejected_id: int, prompt: str, chosen: str, rejected: str) -> Row:
    row: Row = dict.fromkeys(PAIR_SCHEMA.names())
    return row | {
        "pair_id": f"{site}/{question}/{chosen_id}/{rejected_id}", "site": site, "question_id": question,
        "chosen_id": chosen_id, "rejected_id": rejected_id, "prompt": prompt, "chosen": chosen, "rejected": rejected,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Manifest, kept pairs, and reason and keeper of each dropped pair."""

    def go(rows: list[Row], seed: int = 1, work: str = "work", **config: Any):
        def build(space: Workspace) -> dict[str, int]:
            pl.DataFrame(rows, schema=PAIR_SCHEMA).write_parquet(space.folder / "pairs.parquet")
            return {"pairs": len(rows)}

        store = Store(tmp_path / work)
        done = dedupe(store, store.stage("pair", 1, {"rows": str(rows)}, {}, build), DedupeConfig(**config), seed)
        dropped = pl.read_parquet(done.path("dropped.parquet"))
        verdicts = {row["pair_id"]: (row["reason"], row["kept_pair_id"]) for row in dropped.iter_rows(named=True)}
        return done, pl.read_parquet(done.path("pairs.parquet")), verdicts

    return go


def goes_and_stays(kept: pl.DataFrame, *ids: str) -> tuple[str, str]:
    (stays,) = set(ids) & set(kept["pair_id"])
    (goes,) = set(ids) - {stays}
    return goes, stays


def test_a_pair_of_which_all_three_texts_are_near_goes(run: Run) -> None:
    prompt, chosen, rejected = text(), text(), text()
    rows = [
        pair("a.example.com", 1, 2, 3, prompt, chosen, rejected),
        pair("a.example.com", 1, 2, 4, prompt, chosen, edit(rejected)),  # the same question
        pair("a.example.com", 1, 2, 5, prompt, chosen, text()),  # another rejected answer: another pair
    ]
    done, kept, verdicts = run(rows)
    goes, stays = goes_and_stays(kept, "a.example.com/1/2/3", "a.example.com/1/2/4")
    assert verdicts == {goes: ("near_pair", stays)}
    assert kept["cluster"].n_unique() == 1
    assert done.counts["dropped.near_pair"] == 1
    assert run(rows, near_pairs=False)[2] == {}
    assert run(rows, near=False)[2] == {}


def test_a_question_asked_again_keeps_its_pairs_in_one_place_only(run: Run) -> None:
    prompt = text()
    rows = [pair("a.example.com", 1, 2, n, prompt, text(), text()) for n in (3, 4)]
    rows += [pair("b.example.com", 9, 2, n, edit(prompt), text(), text()) for n in (3, 4)]
    rows.append(pair("b.example.com", 8, 2, 3, text(), text(), text()))
    seen = set()
    for seed in range(6):
        _, kept, verdicts = run(rows, seed=seed)
        (site,) = {name.split("/")[0] for name in verdicts}
        seen.add(site)
        assert len(verdicts) == 2 and {reason for reason, _ in verdicts.values()} == {"near_question"}
        assert {keeper for _, keeper in verdicts.values()} <= set(kept["pair_id"])
        assert kept.height == 3
    assert seen == {"a.example.com", "b.example.com"}  # the keyed rank of the question decides
    _, kept, verdicts = run(rows, near_questions=False)
    assert verdicts == {}
    assert kept["cluster"].n_unique() == 2  # still not to be divided


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_an_answer_given_under_two_questions_counts_once(run: Run, side: str) -> None:
    answer = text()
    first: dict[str, str] = {"chosen": text(), "rejected": text()} | {side: answer}
    second: dict[str, str] = {"chosen": text(), "rejected": text()} | {side: edit(answer)}
    rows = [pair("a.example.com", 1, 2, 3, text(), **first), pair("a.example.com", 5, 6, 7, text(), **second)]
    _, kept, verdicts = run(rows)
    goes, stays = goes_and_stays(kept, "a.example.com/1/2/3", "a.example.com/5/6/7")
    assert verdicts == {goes: ("near_answer", stays)}
    _, kept, verdicts = run(rows, near_answers=False)
    assert verdicts == {} and kept["cluster"].n_unique() == 1


def test_an_answer_of_one_question_may_be_in_many_of_its_pairs(run: Run) -> None:
    prompt, best = text(), text()
    rows = [pair("a.example.com", 1, 2, n, prompt, best, text()) for n in range(3, 9)]
    assert run(rows)[2] == {}


def test_chosen_here_and_rejected_there_is_no_repetition_but_joins_the_clusters(run: Run) -> None:
    answer = text()
    rows = [
        pair("a.example.com", 1, 2, 3, text(), answer, text()),
        pair("a.example.com", 5, 6, 7, text(), text(), edit(answer)),
    ]
    _, kept, verdicts = run(rows)
    assert verdicts == {} and kept["cluster"].n_unique() == 1


def test_short_answers_may_be_the_same(run: Run) -> None:
    rows = [pair("a.example.com", n, 10 + n, 20 + n, text(), "Yes, you can do that.", "No.") for n in range(5)]
    _, kept, verdicts = run(rows)
    assert verdicts == {} and kept["cluster"].n_unique() == 5


def test_who_goes_is_near_the_very_pair_that_it_names(run: Run) -> None:
    # Each answer is near the next one, but not near the one after that: 60 words, 8 of them new each time.
    words = text(100).split()
    chain = [" ".join(words[start : start + 60]) for start in (0, 6, 12, 18, 24)]

    def jaccard(one: str, other: str) -> float:
        sets = [{tuple(t.split()[at : at + 5]) for at in range(len(t.split()) - 4)} for t in (one, other)]
        return len(sets[0] & sets[1]) / len(sets[0] | sets[1])

    assert jaccard(chain[0], chain[1]) >= 0.8 > jaccard(chain[0], chain[2])
    rows = [pair("a.example.com", n, 10 + n, 30 + n, text(), answer, text()) for n, answer in enumerate(chain)]
    said = {row["pair_id"]: row["chosen"] for row in rows}
    for seed in range(5):
        _, kept, verdicts = run(rows, seed=seed)
        assert 1 <= len(verdicts) <= 3
        assert all(jaccard(said[goes], said[stays]) >= 0.8 for goes, (_, stays) in verdicts.items())
        assert kept["cluster"].n_unique() == 1


def test_of_a_crowd_of_form_letters_one_stays(run: Run) -> None:
    letter = text(80)
    rows = [
        pair("a.example.com", n, 200 + n, 500 + n, text(30), edit(letter, f"Yours {n}"), text(30)) for n in range(150)
    ]
    rows += [pair("b.example.com", n, 1, 2, text(30), text(), text()) for n in range(10)]
    for seed in range(3):
        done, kept, verdicts = run(rows, seed=seed)
        assert (kept["site"] == "a.example.com").sum() == 1
        assert {reason for reason, _ in verdicts.values()} == {"near_answer"}
        assert done.provenance["texts_not_compared_in_a_crowd"] == 0


def test_the_threshold_is_the_recipes(run: Run) -> None:
    prompt, chosen, rejected = text(), text(), text()
    rows = [
        pair("a.example.com", 1, 2, 3, prompt, chosen, rejected),
        pair("a.example.com", 1, 2, 4, prompt, chosen, edit(rejected)),
    ]
    assert len(run(rows, threshold=0.95)[2]) == 1  # 56 shingles of 57 are 0.982
    assert run(rows, threshold=0.99)[2] == {}


def test_another_order_of_rows_gives_the_same_bytes(run: Run) -> None:
    rows = []
    for question in range(30):
        prompt, best = text(40), text(40)
        for site in ("a.example.com", "b.example.com"):
            for rejected in range(3):
                worse = edit(best, f"z{rejected}") if rejected == 2 else text(40)
                prompt_here = edit(prompt) if site.startswith("b") and question % 3 else prompt
                rows.append(pair(site, question, 100, 101 + rejected, prompt_here, best, worse))
    one, *_ = run(rows, work="one")
    shuffled = rows[:]
    random.Random(4).shuffle(shuffled)
    two, *_ = run(shuffled, work="two")
    assert one.files == two.files
    assert one.counts["dropped.near_question"] > 0


def test_sources_without_ids_know_a_question_by_its_prompt(run: Run) -> None:
    prompt = text()
    rows = []
    for number, asked in enumerate([prompt, prompt, edit(prompt)]):
        row = pair("x", 0, 0, 0, asked, text(), text())
        rows.append(row | {"pair_id": f"made/{number}", "site": None, "question_id": None})
    _, kept, verdicts = run(rows)
    reasons = {reason for reason, _ in verdicts.values()}
    assert reasons == {"near_question"}
    assert set(kept["pair_id"]) in ({"made/0", "made/1"}, {"made/2"})
    assert kept["cluster"].n_unique() == 1


def test_empty_texts_are_near_nothing_when_they_are_not_dropped(run: Run) -> None:
    rows = [pair("a.example.com", n, 10 + n, 30 + n, "", text(), "") for n in range(4)]
    _, kept, verdicts = run(rows, exact=False)
    assert verdicts == {}
    assert kept.height == 4 and kept["cluster"].n_unique() == 1  # the same prompt: one cluster
