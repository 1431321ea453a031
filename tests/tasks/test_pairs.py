"""The columns and the names of pairs."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.pairs import DEDUPED_SCHEMA, PAIR_SCHEMA, content_pair_id, is_host, pair_id, pair_id_expr

TEXT = st.text(max_size=20)


def test_a_pair_is_named_by_site_question_and_answers() -> None:
    assert pair_id("beer.stackexchange.com", 1, 4, 7) == "beer.stackexchange.com/1/4/7"


@given(st.lists(st.tuples(st.text(), *[st.integers(-(2**63), 2**63 - 1)] * 3), max_size=5))
def test_the_expression_gives_the_same_name(rows: list[tuple[str, int, int, int]]) -> None:
    schema = {"site": pl.String, "question_id": pl.Int64, "chosen_id": pl.Int64, "rejected_id": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    assert frame.select(pair_id_expr()).to_series().to_list() == [pair_id(*row) for row in rows]


def test_the_name_of_a_pair_without_ids_is_frozen() -> None:
    assert content_pair_id("paired", "Why?", "Because.", "No.") == "paired/ddb6829a2997e66e"


@given(TEXT, TEXT, TEXT, TEXT)
def test_texts_that_run_together_have_different_names(first: str, second: str, third: str, moved: str) -> None:
    if moved:
        assert content_pair_id("s", first + moved, second, third) != content_pair_id("s", first, moved + second, third)
        assert content_pair_id("s", first, second + moved, third) != content_pair_id("s", first, second, moved + third)


def test_the_deduped_schema_is_a_pair_and_its_cluster() -> None:
    assert [name for name in DEDUPED_SCHEMA if name not in PAIR_SCHEMA] == ["cluster"]
    assert all(DEDUPED_SCHEMA[name] == kind for name, kind in PAIR_SCHEMA.items())


@pytest.mark.parametrize("name", ["beer.stackexchange.com", "stackoverflow.com", "ru.meta.stackoverflow.com", "A-b.co"])
def test_host_names(name: str) -> None:
    assert is_host(name)


@pytest.mark.parametrize(
    "name", ["", "posts", "stack overflow.com", "-a.com", "a-.com", "a..com", "a.com/", "../etc", "a" * 64 + ".com"]
)
def test_what_is_no_host_name(name: str) -> None:
    assert not is_host(name)
