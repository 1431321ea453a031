"""Rows and folders that every suite passes, for tests that break one of them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.pairs import DEDUPED_SCHEMA

Row = dict[str, Any]
Write = Callable[..., Path]

SITE = "beer.stackexchange.com"


def pair_row(number: int) -> Row:
    """Pair `number`: question 10·n with answers 10·n + 1 and 10·n + 2, the first of which won 3 to 1."""
    question, chosen, rejected = 10 * number, 10 * number + 1, 10 * number + 2
    pair_id = f"{SITE}/{question}/{chosen}/{rejected}"
    when = datetime(2020, 1, 1 + number, tzinfo=UTC)
    row: Row = dict.fromkeys(DEDUPED_SCHEMA.names())
    row |= {
        "pair_id": pair_id, "site": SITE, "question_id": question, "chosen_id": chosen, "rejected_id": rejected,
        "prompt": f"question {number}", "chosen": "good answer", "rejected": "bad answer",
        "chosen_rank": 3, "rejected_rank": 1, "chosen_accepted": True, "rejected_accepted": False,
        "created": when, "chosen_created": when, "rejected_created": when,
        "question_license": "CC BY-SA 4.0", "chosen_license": "CC BY-SA 4.0", "rejected_license": "CC BY-SA 4.0",
        "cluster": pair_id,
    }  # fmt: skip
    return row


@pytest.fixture
def write_pairs(tmp_path: Path) -> Write:
    """Writes `rows` pairs to FILE in a folder, with the given columns changed in the second of them."""

    def write(file: str, rows: int = 3, first: int = 1, **broken: Any) -> Path:
        made = [pair_row(first + number) for number in range(rows)]
        if broken:
            made[1] |= broken
        pl.DataFrame(made, schema=DEDUPED_SCHEMA, orient="row").write_parquet(tmp_path / file)
        return tmp_path

    return write


@pytest.fixture
def write_evaluation(tmp_path: Path) -> Write:
    """Writes rows.parquet and metrics.json, with columns changed in the second row, or metrics."""

    def write(metrics: Row | None = None, **broken: Any) -> Path:
        rows: list[Row] = [
            {
                "pair_id": f"a/{number}", "chosen_logps": -10.0, "rejected_logps": -12.0, "ref_chosen_logps": -11.0,
                "ref_rejected_logps": -11.5, "chosen_tokens": 5, "rejected_tokens": 4, "margin": 0.15,
            }
            for number in range(3)
        ]  # fmt: skip
        rows[1] |= broken
        pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
        found = {
            "accuracy": 0.8, "accuracy_low": 0.7, "accuracy_high": 0.9, "margin": 0.15, "loss": 0.6,
            "length_baseline_accuracy": 0.5, "reason": None,
        }  # fmt: skip
        (tmp_path / "metrics.json").write_text(json.dumps(found | (metrics or {})))
        return tmp_path

    return write
