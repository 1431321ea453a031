"""Each boundary: a folder that passes, and one broken row at a time that does not."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from data_checks import deduped, evaluated, ingested, paired, publishable, sampled, tokenized
from data_checks.check import Check, named
from data_checks.post_ids import repeated_and_orphans
from data_checks.run import CheckResult, run_check

Write = Callable[..., Path]


def found_in(folder: Path, check: Check) -> CheckResult:
    return run_check(check.frame(folder), check)


def broken(result: CheckResult) -> list[tuple[str, str]]:
    """Column and severity of each expectation that does not hold."""
    return [(entry.column, entry.severity) for entry in result.expectations if not entry.success]


@pytest.mark.parametrize(
    "check",
    [
        ingested.check(), paired.check(), deduped.check(), sampled.check(4, 2), tokenized.check(9), evaluated.check(),
        publishable.check(),
    ],
    ids=lambda check: check.name,
)  # fmt: skip
def test_what_is_critical_is_known_by_name_without_great_expectations(check: Check) -> None:
    configured = [entry.configuration.to_json_dict() for entry in check.suite().expectations]
    critical = {
        named(entry["type"], entry["kwargs"].get("column", ""))
        for entry in configured
        if entry["severity"] == "critical"
    }
    assert set(check.critical) == critical and len(check.critical) == len(critical)


@pytest.mark.parametrize("check", [paired.check(), paired.check(min_gap=2), deduped.check(), ingested.check()])
def test_good_pairs_pass(check: Check, write_pairs: Write) -> None:
    result = found_in(write_pairs("pairs.parquet"), check)
    assert broken(result) == []
    assert len(result.expectations) >= 10


BROKEN_PAIRS: list[tuple[str, str, dict[str, Any]]] = [
    ("no_pair_id", "critical", {"pair_id": None}),
    ("not_preferred", "critical", {"chosen_rank": 1}),
    ("same_answer", "critical", {"chosen_id": 22, "pair_id": "beer.stackexchange.com/20/22/22"}),
    ("no_site", "critical", {"site": None}),
    ("ids_incomplete", "critical", {"chosen_id": None}),
    ("ids_incomplete", "critical", {"question_id": None}),
    ("misnamed", "critical", {"pair_id": "beer.stackexchange.com/20/21/23"}),
    ("both_accepted", "warning", {"rejected_accepted": True}),
    ("no_license", "warning", {"rejected_license": None}),
    ("answered_before_asked", "warning", {"chosen_created": datetime(2019, 1, 1, tzinfo=UTC)}),
]


@pytest.mark.parametrize(("fault", "severity", "change"), BROKEN_PAIRS)
def test_one_broken_pair_is_seen_and_named(
    fault: str, severity: str, change: dict[str, Any], write_pairs: Write
) -> None:
    folder, check = write_pairs("pairs.parquet", **change), paired.check()
    found = broken(found_in(folder, check))
    assert (fault, severity) in found
    assert check.examples is not None
    where = change.get("pair_id", "beer.stackexchange.com/20/21/22")
    assert check.examples(folder, fault) == [where]


def test_every_boundary_asks_the_same_of_a_pair(write_pairs: Write) -> None:
    folder = write_pairs("pairs.parquet", chosen_rank=0, rejected_accepted=True, rejected_license=None)
    same = [("not_preferred", "critical"), ("both_accepted", "warning"), ("no_license", "warning")]
    assert broken(found_in(folder, deduped.check())) == same
    assert broken(found_in(folder, ingested.check())) == same
    assert broken(found_in(folder, paired.check())) == [*same, ("gap_too_small", "critical")]


@pytest.mark.parametrize(
    "known",
    [
        {"site": None, "question_id": None, "chosen_id": None, "rejected_id": None},  # nothing but texts
        {"chosen_id": None, "rejected_id": None},  # the question is known, the answers are not
    ],
)
def test_pairs_from_sources_that_tell_less_pass(known: dict[str, Any], write_pairs: Write) -> None:
    folder = write_pairs("pairs.parquet", pair_id="tulu/0123456789abcdef", cluster="tulu/0", **known)
    assert broken(found_in(folder, paired.check())) == []
    assert broken(found_in(folder, ingested.check())) == []


def test_a_gap_below_the_recipes_is_seen(write_pairs: Write) -> None:
    assert broken(found_in(write_pairs("pairs.parquet"), paired.check(min_gap=3))) == [("gap_too_small", "critical")]


def test_a_repeated_id_marks_pairs_and_stops_deduped_ones(write_pairs: Write) -> None:
    again = {"pair_id": "beer.stackexchange.com/10/11/12", "question_id": 10, "chosen_id": 11, "rejected_id": 12}
    folder = write_pairs("pairs.parquet", **again, cluster="beer.stackexchange.com/10/11/12")
    assert broken(found_in(folder, paired.check())) == [("duplicate_id", "warning")]
    assert broken(found_in(folder, deduped.check())) == [("duplicate_id", "critical")]


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("no_cluster", {"cluster": None}),
        ("cluster_not_first", {"cluster": "zz"}),
        ("question_divided", {"question_id": 10, "pair_id": "beer.stackexchange.com/10/21/22"}),
    ],
)
def test_a_pair_outside_its_cluster_is_seen(fault: str, change: dict[str, Any], write_pairs: Write) -> None:
    folder = write_pairs("pairs.parquet", **change)
    assert (fault, "critical") in broken(found_in(folder, deduped.check()))


def test_no_pairs_at_all_are_a_warning(write_pairs: Write) -> None:
    folder = write_pairs("pairs.parquet", rows=0)
    for check in (paired.check(), deduped.check(), ingested.check()):
        assert broken(found_in(folder, check)) == [("rows", "warning")]


def posts(folder: Path, *, parts: bool, **change: Any) -> Path:
    """Question 1 and its answers 2 and 3, in one file or in two parts; `change` goes into answer 2."""
    rows: list[dict[str, Any]] = [
        {"site": "s.example.com", "id": 1, "post_type": 1, "parent_id": None, "score": 5},
        {"site": "s.example.com", "id": 2, "post_type": 2, "parent_id": 1, "score": 3},
        {"site": "s.example.com", "id": 3, "post_type": 2, "parent_id": 1, "score": -1},
    ]
    rows[1] |= change
    types = {"site": pl.String, "id": pl.Int64, "post_type": pl.Int8, "parent_id": pl.Int64, "score": pl.Int64}
    table = pl.DataFrame(rows, schema=types | {"created": pl.Datetime("ms", "UTC")}, orient="row").with_columns(
        pl.col("created").fill_null(datetime(2020, 1, 1, tzinfo=UTC))
    )
    if parts:
        (folder / "posts.parquet").mkdir()
        table.head(1).write_parquet(folder / "posts.parquet" / "part-0.parquet")
        table.tail(2).write_parquet(folder / "posts.parquet" / "part-1.parquet")
    else:
        table.write_parquet(folder / "posts.parquet")
    return folder


@pytest.mark.parametrize("parts", [False, True])
def test_good_posts_pass_as_a_file_and_as_parts(parts: bool, tmp_path: Path) -> None:
    result = found_in(posts(tmp_path, parts=parts), ingested.check())
    assert broken(result) == []
    assert [entry.seen for entry in result.expectations if entry.column == "rows"] == ["3"]


@pytest.mark.parametrize(
    ("fault", "severity", "change", "example"),
    [
        ("no_id", "critical", {"id": None}, "s.example.com/-1"),
        ("duplicate_id", "critical", {"id": 3}, "3"),
        ("orphan", "critical", {"parent_id": 9}, "2"),
        ("orphan", "critical", {"parent_id": 3}, "2"),
        ("no_site", "critical", {"site": None}, "?/2"),
        ("other_type", "critical", {"post_type": 4}, "s.example.com/2"),
        ("answers_nothing", "critical", {"parent_id": None}, "s.example.com/2"),
        ("no_score", "critical", {"score": None}, "s.example.com/2"),
        ("too_old", "warning", {"created": datetime(2001, 1, 1, tzinfo=UTC)}, "s.example.com/2"),
    ],
)
def test_one_broken_post_is_seen_and_named(
    fault: str, severity: str, change: dict[str, Any], example: str, tmp_path: Path
) -> None:
    folder, check = posts(tmp_path, parts=True, **change), ingested.check()
    assert broken(found_in(folder, check)) == [(fault, severity)]
    assert check.examples is not None and check.examples(folder, fault) == [example]


def test_posts_looked_at_a_share_at_a_time_are_judged_the_same() -> None:
    # Questions 0, 10, 20, ...; each but 30 has three answers; 40 and the answer 41 are there twice.
    questions = [{"id": number, "post_type": 1, "parent_id": None} for number in range(0, 1000, 10)]
    answers = [
        {"id": question["id"] + more, "post_type": 2, "parent_id": question["id"]}
        for question in questions
        for more in (1, 2, 3)
    ]
    rows = [row for row in questions if row["id"] != 30] + answers + [questions[4], answers[12]]
    posts = pl.LazyFrame(rows, schema={"id": pl.Int64, "post_type": pl.Int8, "parent_id": pl.Int64})
    for share in (1_000_000, 100, 7):
        repeated, orphans = repeated_and_orphans(posts, len(rows), share=share)
        assert (repeated.to_list(), orphans.to_list()) == ([40, 41], [31, 32, 33])


def split(write_pairs: Write, **change: Any) -> Path:
    """Three train pairs, the second of which is changed, and two held-out pairs."""
    write_pairs("held_out.parquet", rows=2, first=4)
    return write_pairs("train.parquet", rows=3, first=1, **change)


def test_a_good_sample_passes(write_pairs: Write) -> None:
    folder = split(write_pairs)
    assert broken(found_in(folder, sampled.check(3, 2))) == []
    assert broken(found_in(folder, sampled.check(None, 2))) == []


@pytest.mark.parametrize(("size", "held_out"), [(4, 2), (2, 2), (3, 1), (None, 0)])
def test_a_sample_of_another_size_fails(size: int | None, held_out: int, write_pairs: Write) -> None:
    assert broken(found_in(split(write_pairs), sampled.check(size, held_out))) == [("", "critical")]


@pytest.mark.parametrize(
    ("columns", "change"),
    [
        ([("rank_gap", "critical")], {"chosen_rank": 1}),
        ([("leaks", "critical")], {"question_id": 40}),
        ([("leaks", "critical")], {"cluster": "beer.stackexchange.com/40/41/42"}),
        ([("prompt_chars", "warning")], {"prompt": ""}),
        ([("sides_differ", "warning")], {"chosen": "bad answer"}),
        ([("licensed", "warning")], {"question_license": None}),
    ],
)
def test_one_broken_sampled_pair_is_seen(
    columns: list[tuple[str, str]], change: dict[str, Any], write_pairs: Write
) -> None:
    assert broken(found_in(split(write_pairs, **change), sampled.check(3, 2))) == columns


def test_a_leak_names_the_pairs_of_both_sides(write_pairs: Write) -> None:
    result = found_in(split(write_pairs, question_id=40), sampled.check(3, 2))
    [leak] = [entry for entry in result.expectations if entry.column == "leaks"]
    assert sorted(leak.examples) == ["beer.stackexchange.com/20/21/22", "beer.stackexchange.com/40/41/42"]
    assert leak.seen == "2 of 5 rows fail (True, True)"


def tokens(folder: Path, **change: Any) -> Path:
    """Token rows for max_length 8: 9 is EOS, 1 is BOS; the second train row is changed."""
    schema = {"pair_id": pl.String} | dict.fromkeys(["prompt_ids", "chosen_ids", "rejected_ids"], pl.List(pl.Int32))
    for name, rows in (("train", 3), ("held_out", 1)):
        made: list[dict[str, Any]] = [
            {"pair_id": f"{name}/{row}", "prompt_ids": [1, 5, 6], "chosen_ids": [3, 4, 9], "rejected_ids": [3, 9]}
            for row in range(rows)
        ]
        if name == "train":
            made[1] |= change
        (folder / name).mkdir()
        pl.DataFrame(made, schema=schema).write_ipc_stream(folder / name / "data-00000-of-00001.arrow")
    return folder


def test_good_token_rows_pass(tmp_path: Path) -> None:
    result = found_in(tokens(tmp_path), tokenized.check(8))
    assert broken(result) == []
    assert result.rows == 4


@pytest.mark.parametrize(
    ("column", "severity", "change"),
    [
        ("pair_id", "critical", {"pair_id": None}),
        ("pair_id", "critical", {"pair_id": "held_out/0"}),
        ("prompt_tokens", "critical", {"prompt_ids": []}),
        ("rejected_tokens", "critical", {"rejected_ids": []}),
        ("longest", "critical", {"chosen_ids": [3, 4, 5, 6, 7, 2]}),
        ("sides_differ", "critical", {"rejected_ids": [3, 4, 9]}),
        ("chosen_end", "critical", {"chosen_ids": [3, 4]}),
        ("early_ends", "critical", {"chosen_ids": [3, 9, 4, 9]}),
        ("early_ends", "critical", {"prompt_ids": [1, 9, 6]}),
    ],
)
def test_one_broken_token_row_is_seen(column: str, severity: str, change: dict[str, Any], tmp_path: Path) -> None:
    assert (column, severity) in broken(found_in(tokens(tmp_path, **change), tokenized.check(8)))


def test_rows_that_are_mostly_cut_are_a_warning(tmp_path: Path) -> None:
    assert broken(found_in(tokens(tmp_path), tokenized.check(6))) == [("cut", "warning")]


def test_a_tokenizer_whose_bos_is_its_eos_passes(tmp_path: Path) -> None:
    folder = tokens(tmp_path)
    for split in ("train", "held_out"):
        path = folder / split / "data-00000-of-00001.arrow"
        rows = pl.read_ipc_stream(path).with_columns(
            prompt_ids=pl.Series([[9, 5, 6]], dtype=pl.List(pl.Int32)).new_from_index(0, 3 if split == "train" else 1)
        )
        rows.write_ipc_stream(path)
    assert broken(found_in(folder, tokenized.check(8))) == []


def test_a_good_evaluation_passes(write_evaluation: Write) -> None:
    assert broken(found_in(write_evaluation(), evaluated.check())) == []


def test_an_evaluation_without_held_out_pairs_passes(write_evaluation: Write) -> None:
    names = ("accuracy", "accuracy_low", "accuracy_high", "margin", "loss", "length_baseline_accuracy")
    folder = write_evaluation(metrics=dict.fromkeys(names))
    pl.read_parquet(folder / "rows.parquet").clear().write_parquet(folder / "rows.parquet")
    assert broken(found_in(folder, evaluated.check())) == []


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("not_finite", {"margin": float("nan")}),
        ("not_finite", {"chosen_logps": float("-inf")}),
        ("above_zero", {"rejected_logps": 0.5}),
        ("no_tokens", {"chosen_tokens": 0}),
        ("duplicate_id", {"pair_id": "a/0"}),
    ],
)
def test_one_broken_row_of_an_evaluation_is_seen(fault: str, change: dict[str, Any], write_evaluation: Write) -> None:
    folder, check = write_evaluation(**change), evaluated.check()
    assert broken(found_in(folder, check)) == [(fault, "critical")]
    assert check.examples is not None and check.examples(folder, fault)[0] == change.get("pair_id", "a/1")


@pytest.mark.parametrize(
    ("column", "severity", "metrics"),
    [
        ("accuracy", "critical", {"accuracy": 1.5}),
        ("loss", "critical", {"loss": -0.1}),
        ("accuracy_low", "warning", {"accuracy_low": 0.45}),
        ("beyond_length", "warning", {"length_baseline_accuracy": 0.85}),
    ],
)
def test_metrics_out_of_bounds_are_seen(
    column: str, severity: str, metrics: dict[str, float], write_evaluation: Write
) -> None:
    assert broken(found_in(write_evaluation(metrics=metrics), evaluated.check())) == [(column, severity)]
