"""Rows written in another order, in memory and through the scratch folder."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tasks import ordered
from tasks.digests import sha256_of

SCHEMA = pl.Schema({"name": pl.String, "number": pl.Int64, "tags": pl.List(pl.String), "more": pl.String})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.parquet"
    frame = pl.DataFrame(
        {
            "name": [f"row {n}" for n in range(5_000)],
            "number": range(5_000),
            "tags": [["t", None, str(n % 3)] if n % 4 else [] for n in range(5_000)],
            "not wanted": 1.5,
        }
    )
    frame.write_parquet(path, row_group_size=700)
    return path


def written(source: Path, target: Path, order: list[int]) -> pl.DataFrame:
    scratch = target.with_suffix(".scratch")
    scratch.mkdir()
    more = pl.DataFrame({"more": [f"for {n}" for n in order]}, schema={"more": pl.String})
    ordered.write_ordered(source, target, np.array(order, dtype=np.int64), SCHEMA, scratch, more)
    assert list(scratch.iterdir()) == []
    return pl.read_parquet(target)


@pytest.mark.parametrize("part_bytes", [1, 1 << 30], ids=["through the scratch folder", "in memory"])
def test_rows_come_in_the_order_asked_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
):
    monkeypatch.setattr(ordered, "PART_BYTES", part_bytes)
    monkeypatch.setattr(ordered, "ROW_GROUP", 300)
    order = [(n * 1_777) % 5_000 for n in range(4_321)]
    frame = written(source, tmp_path / "out.parquet", order)
    assert frame.schema == SCHEMA
    assert frame["number"].to_list() == order
    assert frame["name"].to_list() == [f"row {n}" for n in order]
    assert frame["more"].to_list() == [f"for {n}" for n in order]
    assert frame["tags"].to_list() == [["t", None, str(n % 3)] if n % 4 else [] for n in order]


def test_rows_that_are_next_to_nothing_in_the_file_are_held_in_parts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty columns without a value, and a number: a few bytes a row in Parquet, 21 values of 8 and more in memory."""
    path = tmp_path / "short.parquet"
    pl.DataFrame({f"empty {n}": pl.Series([None] * 5_000, dtype=pl.String) for n in range(20)}).with_columns(
        number=pl.int_range(5_000)
    ).write_parquet(path)
    monkeypatch.setattr(ordered, "PART_BYTES", 1_000 * 21 * 8)
    monkeypatch.setattr(ordered, "ROW_GROUP", 300)
    (tmp_path / "scratch").mkdir()
    frames = list(ordered._in_order(path, np.arange(5_000)[::-1].copy(), tmp_path / "scratch"))
    assert max(frame.height for frame in frames) <= 1_000
    assert pl.concat(frames)["number"].to_list() == list(range(4_999, -1, -1))


def test_every_way_of_ordering_gives_the_same_bytes(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ordered, "ROW_GROUP", 300)
    reversed_source = tmp_path / "reversed"
    reversed_source.mkdir()
    backwards = pl.read_parquet(source).reverse()
    backwards.head(1_234).write_parquet(reversed_source / "part-0.parquet", row_group_size=99)
    backwards.tail(5_000 - 1_234).write_parquet(reversed_source / "part-1.parquet")
    forwards = list(range(0, 5_000, 3))
    written(source, tmp_path / "a.parquet", forwards)
    written(reversed_source, tmp_path / "b.parquet", [4_999 - n for n in forwards])
    monkeypatch.setattr(ordered, "PART_BYTES", 1)
    written(reversed_source, tmp_path / "c.parquet", [4_999 - n for n in forwards])
    same_texts = (
        pl.read_parquet(tmp_path / "a.parquet")
        .drop("more")
        .equals(pl.read_parquet(tmp_path / "b.parquet").drop("more"))
    )
    assert same_texts
    assert sha256_of(tmp_path / "b.parquet") == sha256_of(tmp_path / "c.parquet")


def test_no_rows_give_an_empty_table_of_the_same_columns(source: Path, tmp_path: Path):
    assert written(source, tmp_path / "none.parquet", []).schema == SCHEMA
