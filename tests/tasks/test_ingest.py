"""Ingest: that what stands in the store is what the digest of its input says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks import ingest
from tasks.errors import InputError
from tasks.ingest import SourceConfig, ingest_source
from tasks.store import Store
from tests.tasks.test_pair import answer, question, write_dump


def test_a_file_that_changes_while_it_is_read_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [question(1), answer(2, 1, 9), answer(3, 1, 0)]
    dump = write_dump(tmp_path / "dumps" / "bread.stackexchange.com", rows)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')

    def grown(real: Callable[..., Any], path: Path, old: str, new: str) -> Callable[..., Any]:
        def read(*given: Any) -> Any:
            path.write_text(path.read_text().replace(old, new))
            return real(*given)

        return read

    late = '{"prompt": "p", "chosen": "a", "rejected": "c"}\n'
    for source, name, path, old, new in (
        (SourceConfig(path=str(dump)), "read_dump", dump / "Posts.xml", "Since 2", "Since long"),
        (SourceConfig(path=str(dump)), "read_dump", dump / "Users.xml", "</users>", '<row Id="1" /></users>'),
        (SourceConfig(kind="jsonl", path=str(pairs)), "read_rows", pairs, '"b"}\n', '"b"}\n' + late),
    ):
        before = path.read_text()
        store = Store(tmp_path / f"work-{path.name}")
        with monkeypatch.context() as patch:
            patch.setattr(ingest, name, grown(getattr(ingest, name), path, old, new))
            with pytest.raises(InputError, match=rf"{path.name} was changed while it was read: run again"):
                ingest_source(store, source)
        assert not list((store.work_dir / "store").iterdir())
        path.write_text(before)
        again = ingest_source(store, source)
        assert not again.reused
        assert again.files == ingest_source(Store(tmp_path / f"fresh-{path.name}"), source).files
