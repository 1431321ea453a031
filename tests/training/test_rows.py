"""Token rows as they come back from the folder that tokenizing writes."""

from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from tests.training.pairs import LENGTHS, made_up_rows
from training.rows import TokenRows, load_rows


def written(folder: Path, columns: dict[str, list[object]]) -> Path:
    datasets.Dataset.from_dict(columns).save_to_disk(folder)
    return folder


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = made_up_rows()
    columns = {name: [getattr(row, name) for row in rows] for name in rows[0]._fields}
    loaded = load_rows(written(tmp_path / "rows", columns))
    assert len(loaded) == len(rows)
    assert list(loaded) == rows
    assert loaded[3] == rows[3]
    assert loaded[2:5] == rows[2:5]
    assert [tuple(map(int, lengths)) for lengths in zip(*loaded.lengths(), strict=True)] == LENGTHS


def test_the_largest_id_is_that_of_all_three_columns(tmp_path: Path) -> None:
    for column in ("prompt_ids", "chosen_ids", "rejected_ids"):
        columns: dict[str, list[object]] = {
            name: [[3, 90] if name == column else [5], [4]] for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        }
        assert load_rows(written(tmp_path / column, {"pair_id": ["a", "b"], **columns})).largest_id() == 90


def test_a_folder_with_other_columns_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "other", {"pair_id": ["a"], "text": ["b"]})
    with pytest.raises(ValueError, match=r"holds the columns \['pair_id', 'text'\]"):
        load_rows(folder)


@pytest.mark.parametrize(
    ("chunks", "questions"),
    [(["", "ab", "", "acb", ""], (0, 1, 0, 3, 1)), (["aab"], (0, 0, 2)), ([""], ()), ([], ())],
)
def test_questions_are_numbered_over_chunks_of_which_some_hold_no_row(
    chunks: list[str], questions: tuple[int, ...]
) -> None:
    prompts = {"a": [1, 2], "b": [3], "c": [1]}
    ids = pa.list_(pa.int32())
    schema = pa.schema([("pair_id", pa.string()), ("prompt_ids", ids), ("chosen_ids", ids), ("rejected_ids", ids)])
    tables = [pa.table([list(chunk), *[[prompts[name] for name in chunk]] * 3], schema=schema) for chunk in chunks]
    rows = TokenRows(datasets.Dataset(pa.concat_tables(tables) if tables else schema.empty_table()))
    assert rows.questions() == questions
    assert len(rows.lengths().prompt) == len(rows) == len(questions)
