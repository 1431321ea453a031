"""Rows of data files: what is read, what is skipped with its place, and what is no such file at all."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.sources import data_files, json_rows
from tasks.sources.data_files import find_files, read_rows
from tasks.sources.json_rows import Row

ROWS = [{"a": 1, "t": "x"}, {"a": 2, "t": "line\u2028separator\x85"}, {"a": 3, "t": "y"}]


def read(path: Path, columns: tuple[str, ...] = ("a", "t"), pattern: str | None = None) -> list[Row]:
    return list(read_rows(find_files(str(path), pattern), columns, max_ratio=100.0))


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize("form", ["jsonl", "array", "jsonl.gz", "array.gz", "parquet", "bom"])
def test_rows_are_the_same_in_every_form_and_the_name_of_the_file_says_nothing(form: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.data"
    if form == "parquet":
        pl.DataFrame(ROWS).write_parquet(path)
    else:
        text = json.dumps(ROWS, indent=2).encode() if form.startswith("array") else lines(ROWS)
        text = b"\xef\xbb\xbf" + text if form == "bom" else text
        path.write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    found = read(path)
    assert [row.values for row in found] == ROWS
    unit = "line" if form in ("jsonl", "jsonl.gz", "bom") else "row"
    assert [row.place for row in found] == [f"{unit} {number}" for number in (1, 2, 3)]


def test_a_malformed_line_is_skipped_with_its_number_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\n{"a": 1}\n{"a": \n[1, 2]\n\xff\xfe{}\n{"a": ' + b"9" * 5000 + b'}\n   \r\n{"a": 2}\r\n' + b"[" * 100_000
    )
    assert [(row.place, row.fault) for row in read(path)] == [
        ("line 2", None), ("line 3", "malformed"), ("line 4", "malformed"), ("line 5", "malformed"),
        ("line 6", "malformed"), ("line 8", None), ("line 9", "malformed"),
    ]  # fmt: skip


def test_a_line_without_end_is_passed_over_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "MAX_LINE", 64)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 1000 + b'"}\n{"a": 2}\n')
    assert [(row.place, row.fault) for row in read(path)] == [
        ("line 1", None), ("line 2", "too_long"), ("line 3", None),
    ]  # fmt: skip


def test_a_file_of_one_line_without_end_is_refused_by_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * (2 << 20) + b'"}\n')
    monkeypatch.setattr(json_rows, "MAX_LINE", 1 << 20)
    with pytest.raises(InputError, match="line 1, of more than 1 MiB, is not a JSON object"):
        read(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "git-lfs pointer"),
        (b"\x00\x01\x02\x03binary", "binary"),
        (b"PAR1 not really", "damaged or cut short"),
        (b"\x1f\x8b\x08\x00garbage", "damaged or cut short"),
        (gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:60], "damaged or cut short"),
        (gzip.compress(b"<html>", mtime=0), "web page"),
        (b'[{"a": 1}, {"a": 2}', "after row 2"),
        (b'[{"a": 1}, {"a" 2}]', "after row 1"),
        (b'[{"a": 1}] [2]', "goes on after the end"),
        (b"just some text\nand more\n", "line 1 is not a JSON object, nor is any other"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_parquet_file_cut_or_damaged_anywhere_is_an_input_error_and_no_traceback(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pl.DataFrame({"a": list(range(3000)), "t": [f"text {number}" for number in range(3000)]}).write_parquet(whole)
    data = whole.read_bytes()
    draw = random.Random(1)
    refused = 0
    for number in range(40):
        path = tmp_path / f"{number}.parquet"
        if number % 2:
            path.write_bytes(data[: draw.randrange(4, len(data))])
        else:
            at = draw.randrange(4, len(data))
            path.write_bytes(data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :])
        try:
            read(path)
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused >= 20  # every cut one; a flipped bit may only change a value


def test_gzip_that_grows_out_of_proportion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "_FREE", 1 << 20)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 500_000))
    with pytest.raises(InputError, match="max_ratio"):
        read(path)
    assert len(list(read_rows(find_files(str(path)), ("a",), max_ratio=1e6))) == 500_000


def test_a_folder_is_read_in_the_order_of_its_names_and_places_name_the_file(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl", ".hidden.jsonl", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines([{"a": 1}]))
    assert [row.place for row in read(tmp_path)] == ["a/z.jsonl line 1", "b.jsonl line 1"]
    assert [row.place for row in read(tmp_path, pattern="*.jsonl")] == [".hidden.jsonl line 1", "b.jsonl line 1"]
    with pytest.raises(InputError, match=r"no file that matches '\*\.parquet'"):
        find_files(str(tmp_path), "*.parquet")


def test_the_digest_is_of_bytes_and_of_names_within_a_folder_never_of_where_they_lie(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_bytes(b'{"a": 1}\n')
    digests = {find_files(str(tmp_path / folder)).digest(tmp_path / "work") for folder in ("one", "two")}
    assert len(digests) == 1
    (tmp_path / "two" / "x.jsonl").rename(tmp_path / "two" / "y.jsonl")
    assert find_files(str(tmp_path / "two")).digest(tmp_path / "work") not in digests


@pytest.mark.parametrize("given", ["nowhere.jsonl", "empty", "/dev/null"])
def test_what_is_not_there_is_an_input_error(given: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        find_files(str(tmp_path / given))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=8), step=st.integers(1, 40)
)
def test_an_array_is_read_as_json_reads_it_wherever_the_window_ends(
    rows: list[dict[str, Any]], step: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("array") / "rows.json"
    path.write_bytes(json.dumps(rows, ensure_ascii=step % 2 == 0, indent=step % 3 or None).encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "READ", step)
        with open(path, "rb") as handle:
            found = [row.values for row in json_rows.array_rows(handle, path, "")]
    assert found == json.loads(path.read_bytes())
