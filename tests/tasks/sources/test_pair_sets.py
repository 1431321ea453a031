"""Pair sets of three forms become one schema: what is taken over, what is dropped and why; order decides nothing."""

import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.ingest import SourceConfig, SourceKind, ingest_source
from tasks.manifest import Manifest, total
from tasks.pairs import PAIR_SCHEMA, content_pair_id
from tasks.store import Store

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "hub_samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples of public sets are not here")

Read = Callable[..., "Outcome"]


class Outcome:
    """What ingest made of rows; the counts must add up whatever they are."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.pairs = pl.read_parquet(manifest.path("pairs.parquet"))
        self.dropped = pl.read_parquet(manifest.path("dropped.parquet"))
        counts = manifest.counts
        assert self.pairs.schema == PAIR_SCHEMA
        assert counts["pairs"] == self.pairs.height
        assert counts["rows"] == counts["pairs"] + total(counts, "skipped")
        assert self.dropped.height == total(counts, "skipped")
        assert self.pairs.filter(~(pl.col("chosen_rank") > pl.col("rejected_rank"))).is_empty()
        assert self.pairs.filter(pl.col("chosen_rank").is_null() | pl.col("rejected_rank").is_null()).is_empty()
        assert self.pairs["pair_id"].n_unique() == self.pairs.height

    def only(self) -> dict[str, Any]:
        return self.pairs.row(0, named=True)

    def told(self) -> dict[str, Any]:
        """The columns of the only pair that are not null."""
        return {name: value for name, value in self.only().items() if value is not None}

    def reasons(self) -> list[tuple[str, str]]:
        return list(self.dropped.select("reason", "place").iter_rows())


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Ingest rows of a kind, written as JSON Lines."""

    def run(kind: SourceKind, rows: Sequence[Any], work: str = "work", **keys: Any) -> Outcome:
        path = tmp_path / f"rows-{random.random()}.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        config = SourceConfig(kind=kind, path=str(path), **keys)
        return Outcome(ingest_source(Store(tmp_path / work), config))

    return run


def talk(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def tulu(prompt: str = "Why?", chosen: str = "Since.", rejected: str = "Dunno.") -> dict[str, Any]:
    return {"chosen": talk(prompt, chosen), "rejected": talk(prompt, rejected), "source": "stack-exchange-paired"}


PAIRED = {
    "qid": 23156471, "question": " How?\n", "date": "2014/04/18",
    "metadata": [
        "https://Stackoverflow.com/questions/23156471", "https://Stackoverflow.com",
        "https://Stackoverflow.com/users/476918/",
    ],
    "response_j": "So.", "response_k": "Or so.\n",
}  # fmt: skip


def test_a_row_of_tulu_tells_its_texts_and_nothing_else(read: Read) -> None:
    found = read("tulu", [tulu(" Why?\n", "Since.\n", "  Dunno.")]).told()
    assert found == {
        "pair_id": content_pair_id("tulu", "Why?", "Since.", "Dunno."), "prompt": "Why?", "chosen": "Since.",
        "rejected": "Dunno.", "chosen_rank": 1, "rejected_rank": 0,
    }  # fmt: skip


def test_a_row_of_paired_tells_its_question_and_the_answers_stay_unknown(read: Read) -> None:
    assert read("paired", [PAIRED], name="lvwerra").told() == {
        "pair_id": content_pair_id("lvwerra", "How?", "So.", "Or so."), "prompt": "How?", "chosen": "So.",
        "rejected": "Or so.", "chosen_rank": 1, "rejected_rank": 0, "site": "stackoverflow.com",
        "question_id": 23156471, "question_author_id": 476918, "created": datetime(2014, 4, 18, tzinfo=UTC),
        "question_license": "CC BY-SA 3.0", "question_license_stated": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metadata": None}, {"site": None, "question_id": None}),
        ({"metadata": ["", 7, "https://[bad", "ftp://x"]}, {"site": None, "question_id": None}),
        (
            {"metadata": ["https://math.stackexchange.com/q/1"]},
            {"site": "math.stackexchange.com", "question_id": 23156471},
        ),
        ({"qid": None}, {"site": "stackoverflow.com", "question_id": 23156471}),
        ({"qid": "23156471"}, {"site": "stackoverflow.com", "question_id": 23156471}),
        ({"date": "18.4.2014"}, {"created": None, "question_license": None, "question_license_stated": None}),
        ({"date": "2014/13/18"}, {"created": None}),
        (
            {"date": "2019-01-02 00:00:00"},
            {"created": datetime(2019, 1, 2, tzinfo=UTC), "question_license": "CC BY-SA 4.0"},
        ),
    ],
)
def test_what_paired_does_not_tell_is_null(change: dict[str, Any], told: dict[str, Any], read: Read) -> None:
    found = read("paired", [PAIRED | change]).only()
    assert {name: found[name] for name in told} == told


def test_a_site_of_the_recipe_stands_in_where_the_row_names_none(read: Read) -> None:
    found = read("paired", [PAIRED | {"metadata": None}], site="beer.stackexchange.com").only()
    assert (found["site"], found["question_id"]) == ("beer.stackexchange.com", 23156471)


def test_a_question_whose_number_and_address_disagree_is_dropped(read: Read) -> None:
    found = read("paired", [PAIRED, PAIRED | {"qid": 5, "question": "Other?"}])
    assert found.reasons() == [("bad_id", "line 2")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (tulu(chosen=" \n"), "empty_chosen"),
        (tulu(rejected=""), "empty_rejected"),
        (tulu(prompt="\t"), "empty_prompt"),
        ({"chosen": talk("Why?", "a"), "rejected": talk("How?", "b")}, "unequal_prompts"),
        ({"chosen": talk("Why?", "a") * 2, "rejected": talk("Why?", "b")}, "not_one_turn"),
        (
            {"chosen": [{"role": "system", "content": "s"}, *talk("Why?", "a")], "rejected": talk("Why?", "b")},
            "not_one_turn",
        ),
        ({"chosen": [], "rejected": talk("Why?", "b")}, "not_one_turn"),
        ({"chosen": "a", "rejected": "b"}, "bad_type"),
        ({"chosen": talk("Why?", "a")}, "bad_type"),
        ({"chosen": [1], "rejected": talk("Why?", "b")}, "bad_type"),
        ({"chosen": [{"role": "user"}, {"role": "assistant", "content": "a"}], "rejected": talk("W", "b")}, "bad_type"),
        ({"chosen": talk("Why?", ["a"]), "rejected": talk("Why?", "b")}, "bad_type"),  # type: ignore[arg-type]
        (tulu(chosen="nul \0 here"), "bad_character"),
        ('{"chosen": "\\ud800"}', "bad_type"),
        (json.dumps(tulu(chosen="LONE")).replace("LONE", "\\ud83d"), "bad_character"),
        (tulu(chosen="x" * 1_000_001), "too_long"),
        ("{", "malformed"),
        ("[]", "malformed"),
    ],
)
def test_a_row_that_is_no_pair_is_dropped_with_reason_and_place(row: Any, reason: str, read: Read) -> None:
    found = read("tulu", [tulu(), row, tulu("Who?")])
    assert found.reasons() == [(reason, "line 2")]
    assert found.manifest.counts[f"skipped.{reason}"] == 1


def test_anybodys_pairs_come_as_strings_or_as_messages(read: Read) -> None:
    question, good, bad = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "a"}, "b"
    forms = [
        {"prompt": "Why?", "chosen": "a", "rejected": "b"},
        {"prompt": [question], "chosen": [good], "rejected": [{"role": "assistant", "content": bad}]},
        {"prompt": "Why? ", "chosen": [question, good], "rejected": "b"},
        {"chosen": [question, good], "rejected": talk("Why?", "b"), "prompt": None},
    ]
    for number, form in enumerate(forms):
        found = read("jsonl", [form], work=f"w{number}").told()
        assert found["pair_id"] == content_pair_id("jsonl", "Why?", "a", "b")
    found = read("jsonl", [*forms, {"chosen": "a", "rejected": "b"}, {"prompt": "How?", **tulu()}])
    assert [reason for reason, _ in found.reasons()] == ["bad_type", "unequal_prompts", *["duplicate_id"] * 3]


WHOLE = {
    "pair_id": "made up", "site": "Beer.StackExchange.com", "question_id": 1, "chosen_id": 4, "rejected_id": 7,
    "prompt": "p", "chosen": "c", "rejected": "r", "chosen_rank": 5, "rejected_rank": 2, "chosen_score": 30,
    "rejected_score": -2, "question_score": 9, "chosen_accepted": True, "rejected_accepted": False,
    "created": "2014-01-21T20:26:05.383", "chosen_created": "2014-01-21T20:26:05+02:00",
    "rejected_created": "2014-01-22", "tags": ["a", "b"], "question_author": "Ann", "chosen_author": "Bo",
    "rejected_author": "Cy", "question_author_id": 1, "chosen_author_id": 2, "rejected_author_id": -1,
    "question_license": "CC BY-SA 3.0", "chosen_license": "CC BY-SA 3.0", "rejected_license": "CC0",
    "question_license_stated": True, "chosen_license_stated": False, "rejected_license_stated": True,
}  # fmt: skip


def test_every_column_that_a_file_tells_is_taken_over_but_the_name(read: Read) -> None:
    assert read("jsonl", [WHOLE]).only() == WHOLE | {
        "pair_id": "beer.stackexchange.com/1/4/7", "site": "beer.stackexchange.com",
        "created": datetime(2014, 1, 21, 20, 26, 5, 383000, UTC),
        "chosen_created": datetime(2014, 1, 21, 18, 26, 5, tzinfo=UTC),
        "rejected_created": datetime(2014, 1, 22, tzinfo=UTC),
    }  # fmt: skip


def test_pairs_that_were_written_by_a_run_are_read_back_as_they_were(read: Read, tmp_path: Path) -> None:
    first = read("jsonl", [WHOLE, {"prompt": "p", "chosen": "c", "rejected": "r"}])
    again = ingest_source(
        Store(tmp_path / "again"), SourceConfig(kind="jsonl", path=str(first.manifest.path("pairs.parquet")))
    )
    assert Outcome(again).pairs.equals(first.pairs)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"chosen_score": "30"}, ["chosen_score"]),
        ({"chosen_score": 2**63}, ["chosen_score"]),
        ({"chosen_score": True}, ["chosen_score"]),
        ({"chosen_score": 1.5}, ["chosen_score"]),
        ({"tags": "a,b"}, ["tags"]),
        ({"tags": ["a", 1]}, ["tags"]),
        ({"created": "yesterday"}, ["created"]),
        ({"created": "0001-01-01T00:00:00+14:00"}, ["created"]),
        ({"question_author": "nul \0"}, ["question_author"]),
        ({"question_author": "  "}, ["question_author"]),
        ({"chosen_accepted": 1}, ["chosen_accepted"]),
        ({"chosen_accepted": True, "rejected_accepted": True}, ["chosen_accepted", "rejected_accepted"]),
        ({"chosen_id": None}, ["chosen_id", "rejected_id"]),
        ({"question_id": None}, ["question_id", "chosen_id", "rejected_id"]),
        ({"site": "no host"}, ["site", "question_id", "chosen_id", "rejected_id"]),
    ],
)
def test_a_value_of_the_wrong_type_is_left_out_and_told_and_the_pair_stays(
    change: dict[str, Any], lost: list[str], read: Read
) -> None:
    found = read("jsonl", [WHOLE | change])
    assert [name for name in WHOLE if found.only()[name] is None] == [name for name in WHOLE if name in lost]
    told = found.manifest.provenance["ignored"]
    assert set(told) <= set(lost) and told


def test_one_rank_alone_says_nothing_and_two_that_say_the_contrary_drop_the_pair(read: Read) -> None:
    alone = read("jsonl", [WHOLE | {"rejected_rank": None}], work="alone").only()
    assert (alone["chosen_rank"], alone["rejected_rank"]) == (1, 0)
    ties = [WHOLE | {"rejected_rank": rank} for rank in (5, 6)]
    assert [reason for reason, _ in read("jsonl", [WHOLE, *ties]).reasons()] == ["not_preferred"] * 2
    assert read("jsonl", [WHOLE, WHOLE | {"rejected_id": 4}], work="same").reasons() == [("same_answer", "line 2")]


def test_a_licence_is_not_made_up_for_a_site_that_may_be_any(read: Read) -> None:
    row = {key: value for key, value in WHOLE.items() if "license" not in key}
    found = read("jsonl", [row]).only()
    assert [found[f"{post}_license"] for post in ("question", "chosen", "rejected")] == [None] * 3


def test_of_rows_that_are_one_pair_the_same_stays_whatever_their_order(read: Read) -> None:
    rows: list[Any] = [
        PAIRED,
        PAIRED | {"qid": 7, "metadata": ["https://beer.stackexchange.com/q/7"]},
        PAIRED | {"date": "2015/01/01"},
    ]
    rows += [PAIRED | {"question": f"How {number}?"} for number in range(20)]
    digests = set()
    for number in range(4):
        random.Random(number).shuffle(rows)
        found = read("paired", rows, work=f"w{number}")
        digests.add(found.manifest.files["pairs.parquet"].sha256)
        repeated = found.dropped.filter(pl.col("reason") == "duplicate_id")
        assert repeated["pair_id"].to_list() == [content_pair_id("paired", "How?", "So.", "Or so.")] * 2
    assert len(digests) == 1
    assert found.pairs["pair_id"].is_sorted()


texts = st.text(st.characters(codec=None), max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    part=st.integers(1, 4),
)
def test_any_text_is_read_back_or_dropped_and_neither_order_nor_parts_change_a_byte(
    rows: list[tuple[str, str, str]], seed: int, part: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    made: list[Any] = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in rows]
    made.append({"prompt": "p", "chosen": "c", "rejected": "r"})
    found = []
    for number in range(2):
        path = folder / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.sources.gather._PART", part if number else 5000)
            found.append(
                Outcome(ingest_source(Store(folder / f"w{number}"), SourceConfig(kind="jsonl", path=str(path))))
            )
        random.Random(seed).shuffle(made)
    assert found[0].manifest.files["pairs.parquet"] == found[1].manifest.files["pairs.parquet"]
    stripped = {tuple(text.strip() for text in row) for row in [*rows, ("p", "c", "r")]}
    whole = {row for row in stripped if all(row) and not any("\0" in text or _lone(text) for text in row)}
    assert set(found[0].pairs.select("prompt", "chosen", "rejected").iter_rows()) == whole


def _lone(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def test_more_rows_than_fit_in_a_part_are_all_there(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.sources.gather._PART", 3)
    monkeypatch.setattr("tasks.sources.skipped._HELD", 2)
    found = read("tulu", [tulu(f"Why {number}?", chosen=str(number % 5 or "")) for number in range(50)])
    assert found.manifest.counts["pairs"] == 40
    assert [place for _, place in found.reasons()] == [f"line {number}" for number in range(1, 51, 5)]


@pytest.mark.parametrize(
    ("kind", "rows", "said"),
    [
        ("paired", [tulu()], "question, response_j, response_k"),
        ("tulu", [PAIRED], "chosen, rejected"),
        ("jsonl", ["{}", "[]"], "chosen, rejected"),
    ],
)
def test_a_file_of_another_form_is_named_with_the_columns_it_lacks(
    kind: SourceKind, rows: list[Any], said: str, read: Read
) -> None:
    with pytest.raises(InputError, match=f"not of kind {kind}.*{said}"):
        read(kind, rows)


def test_a_parquet_file_without_rows_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    pl.DataFrame(schema={"prompt": pl.String, "chosen": pl.String, "rejected": pl.String}).write_parquet(path)
    with pytest.raises(InputError, match="has no row"):
        ingest_source(Store(tmp_path / "work"), SourceConfig(kind="jsonl", path=str(path)))


def test_a_digest_that_the_recipe_pins_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(tulu()) + "\n")
    with pytest.raises(InputError, match="another file"):
        ingest_source(Store(tmp_path / "work"), SourceConfig(kind="tulu", path=str(path), sha256="0" * 64))


def test_the_name_of_a_source_is_part_of_what_it_gives_and_its_path_is_not(tmp_path: Path) -> None:
    made = {}
    for place, name in (("a", None), ("b", None), ("c", "other")):
        path = tmp_path / place / "rows.jsonl"
        path.parent.mkdir()
        path.write_text(json.dumps(tulu()) + "\n")
        made[place] = ingest_source(Store(tmp_path / "work"), SourceConfig(kind="tulu", path=str(path), name=name))
    assert made["b"].reused
    assert made["a"].fingerprint != made["c"].fingerprint
    assert str(tmp_path) not in json.dumps(made["a"].config)


@needs_samples
@pytest.mark.parametrize(
    ("kind", "name", "pairs", "questions"),
    [
        ("paired", "made_stack_exchange_paired.parquet", 186, 55),
        ("paired", "real_stack_exchange_paired_tiny.json", 25, 0),
        ("paired", "real_row_paired_with_answers.jsonl", 1, 1),
        ("tulu", "made_tulu25_stack_exchange_paired.jsonl", 186, 0),
        ("jsonl", "made_tulu25_stack_exchange_paired.jsonl", 186, 0),
    ],
)
def test_the_samples_of_the_public_sets_are_read_whole(
    kind: SourceKind, name: str, pairs: int, questions: int, tmp_path: Path
) -> None:
    found = Outcome(ingest_source(Store(tmp_path), SourceConfig(kind=kind, path=str(SAMPLES / name))))
    assert found.manifest.counts["rows"] == pairs == found.pairs.height
    assert found.pairs.drop_nulls("question_id").select("site", "question_id").n_unique() == questions


@needs_samples
def test_paired_and_tulu_say_the_same_where_one_was_made_of_the_other(tmp_path: Path) -> None:
    texts_of = []
    for kind, name in (
        ("paired", "made_stack_exchange_paired.parquet"),
        ("tulu", "made_tulu25_stack_exchange_paired.jsonl"),
    ):
        config = SourceConfig.model_validate({"kind": kind, "path": str(SAMPLES / name), "name": "same"})
        texts_of.append(
            Outcome(ingest_source(Store(tmp_path), config)).pairs.select("pair_id", "prompt", "chosen", "rejected")
        )
    assert texts_of[0].equals(texts_of[1])
