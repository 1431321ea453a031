"""Log-probs that were paid for once: keys that cannot be confused, files that cannot lie."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.scores.logp_store import SCHEMA, LogpStore, pair_keys
from tasks.tokens.token_rows import SCHEMA as ROWS_SCHEMA

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=4)


def rows(*pairs: tuple[list[int], list[int], list[int]]) -> pl.DataFrame:
    columns = {"pair_id": [str(n) for n in range(len(pairs))]}
    for name, values in zip(("prompt_ids", "chosen_ids", "rejected_ids"), zip(*pairs, strict=True), strict=True):
        columns[name] = list(values)
    return pl.DataFrame(columns, schema=ROWS_SCHEMA)


def known(**logps: float) -> pl.DataFrame:
    return pl.DataFrame([(key, value, value - 1) for key, value in logps.items()], schema=SCHEMA, orient="row")


@given(st.tuples(IDS, IDS, IDS), st.tuples(IDS, IDS, IDS))
def test_pairs_share_a_key_only_if_all_three_id_lists_are_equal(one, other):
    first, second = pair_keys(rows(one, other))
    assert (first == second) == (one == other)


def test_where_one_list_ends_and_the_next_begins_is_part_of_the_key():
    assert pair_keys(rows(([1, 2], [3], [4]), ([1], [2, 3], [4]), ([1], [2], [3, 4]))).n_unique() == 3


def test_what_is_added_is_found_again_and_a_key_counts_once(tmp_path):
    store = LogpStore.of(tmp_path, {"files": {"model.safetensors": "abc"}, "layout": "v1"})
    store.add(known(a=-1.0, b=-2.0))
    store.add(known(b=-2.0, c=-3.0))
    found = LogpStore.of(tmp_path, {"layout": "v1", "files": {"model.safetensors": "abc"}}).read()
    assert sorted(found.rows()) == [("a", -1.0, -2.0), ("b", -2.0, -3.0), ("c", -3.0, -4.0)]


def test_another_model_or_layout_is_another_space(tmp_path):
    LogpStore.of(tmp_path, {"files": "abc", "layout": "v1"}).add(known(a=-1.0))
    assert LogpStore.of(tmp_path, {"files": "abd", "layout": "v1"}).read().height == 0
    assert LogpStore.of(tmp_path, {"files": "abc", "layout": "v2"}).read().height == 0


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"\0" + content[1:]])
def test_a_file_that_does_not_hold_what_it_is_named_for_is_said_and_removed(tmp_path, damage):
    store = LogpStore(tmp_path / "space")
    store.add(known(a=-1.0))
    (torn,) = store.folder.glob("*.parquet")
    store.add(known(b=-2.0))
    torn.write_bytes(damage(torn.read_bytes()))
    said: list[str] = []
    assert store.read(said.append).get_column("key").to_list() == ["b"]
    assert said == [f"{torn} has other bytes than were written: it is removed, and its pairs are scored again"]
    assert not torn.exists()
    store.read(said.append)
    assert len(said) == 1


def test_the_same_log_probs_make_the_same_file_in_any_order(tmp_path):
    one, other = LogpStore(tmp_path / "one"), LogpStore(tmp_path / "other")
    one.add(known(a=-1.0, b=-2.0))
    other.add(known(b=-2.0, a=-1.0))
    names = [sorted(path.name for path in Path(store.folder).iterdir()) for store in (one, other)]
    assert names[0] == names[1] and len(names[0]) == 1
