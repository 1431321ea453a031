"""Texts on their way to a worker and back, and what a worker loads for them."""

import subprocess
import sys
from pathlib import Path

import polars as pl

from tasks.pairing.conversion import convert_all
from tasks.pairing.exchange import read_texts, write_texts
from tasks.pairing.wanted import TEXT_SCHEMA, Part
from tasks.sources.posts import POST_SCHEMA


def test_numbers_and_texts_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_texts(path, [7, -1, 2**62], ["é\n".encode(), b"", b"\0a"])
    assert path.stat().st_size == 8 + 3 * 8 + 3 * 8 + 3 + 0 + 2
    assert read_texts(path) == ([7, -1, 2**62], ["é\n".encode(), b"", b"\0a"])
    write_texts(path, [], [])
    assert read_texts(path) == ([], [])


def test_a_worker_that_converts_loads_neither_polars_nor_numpy() -> None:
    program = "import sys, tasks.workers, tasks.pairing.texts; print({'polars', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_numpy_loaded_by_a_stage_starts_no_threads_and_what_the_stage_starts_is_not_told() -> None:
    program = (
        "import os; os.environ.pop('OPENBLAS_NUM_THREADS', None); import tasks.single_threaded_blas;"
        "print(len(os.listdir('/proc/self/task')), 'OPENBLAS_NUM_THREADS' in os.environ)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1 False\n"


def test_parts_that_are_there_are_not_made_again_and_wanted_posts_are_found_by_question(tmp_path: Path) -> None:
    def post(number: int, parent: int | None) -> dict[str, object]:
        given = {"id": number, "parent_id": parent, "post_type": 1 if parent is None else 2, "body": f"<p>{number}</p>"}
        return {name: given.get(name) for name in POST_SCHEMA.names()}

    wanted = pl.DataFrame({"id": [2, 3, 9]})
    parts = []
    for name, rows in (("a", [post(3, 2), post(4, 2), post(2, None)]), ("b", [post(9, 2)]), ("c", [post(5, None)])):
        pl.DataFrame(rows, schema=POST_SCHEMA).write_parquet(tmp_path / f"{name}.parquet")
        parts.append(Part(tmp_path / f"{name}.parquet", wanted, "x.com", tmp_path / f"{name}-texts.parquet"))
    parts[1].out.write_bytes(b"there")
    assert list(convert_all(parts, 1, print)) == [2, 3]
    assert parts[1].out.read_bytes() == b"there"
    made = pl.read_parquet(parts[0].out)
    assert made.schema == TEXT_SCHEMA
    assert made.select("id", "question_id", "text", "complete").rows() == [(2, 2, "2", True), (3, 2, "3", True)]
    assert pl.read_parquet(parts[2].out).is_empty()
    assert not [*tmp_path.glob("*.bodies"), *tmp_path.glob("*-texts.texts")]
    assert list(convert_all(parts, 1, print)) == []  # as after a kill while the pairs were put together
