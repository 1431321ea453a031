"""Token rows for a benchmark: those of a data set cut to a cap, or made up with lengths like Stack Exchange's."""

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from training.batch import batch_indices
from training.config import TrainConfig
from training.rows import TokenRow, load_rows


def rows_of(folder: Path, pairs: int, cap: int, *, whole_questions: bool = False) -> list[TokenRow]:
    """The first `pairs` rows in `folder` whose prompt leaves room, answers cut to `cap` tokens with the prompt.

    With `whole_questions` it is all rows of the first question, then those of the second, and so on.
    """
    rows = load_rows(folder)
    numbers: Iterable[int] = range(len(rows))
    if whole_questions:
        numbers = sorted(numbers, key=rows.questions().__getitem__)
    kept = (row for row in map(rows.__getitem__, numbers) if len(row.prompt_ids) < cap)
    found = [
        row._replace(
            chosen_ids=row.chosen_ids[: cap - len(row.prompt_ids)],
            rejected_ids=row.rejected_ids[: cap - len(row.prompt_ids)],
        )
        for row, _ in zip(kept, range(pairs), strict=False)
    ]
    if len(found) < pairs:
        sys.exit(f"{folder} holds {len(found)} pairs whose prompt is below {cap} tokens")
    return found


def in_batches(rows: Sequence[TokenRow], config: TrainConfig, seed: int) -> list[TokenRow]:
    """The rows of one epoch as the trainer takes them, batch after batch."""
    first: dict[tuple[int, ...], int] = {}
    questions = tuple(first.setdefault(tuple(row.prompt_ids), number) for number, row in enumerate(rows))
    order = partial(
        batch_indices, len(rows), config.batch_size, seed, questions=questions if config.order == "questions" else None
    )
    return [rows[index] for step in range(len(rows) // config.batch_size) for index in order(step)]


def made_up_rows(vocabulary: int, pairs: int, cap: int) -> list[TokenRow]:
    """Random ids; lengths lognormal, with means of about 180, 300 and 225 tokens where there is no cap."""
    draw = np.random.default_rng(0)

    def ids(median: float, spread: float, limit: int) -> list[int]:
        length = int(np.clip(draw.lognormal(np.log(median), spread), 1, limit))
        return [int(token) for token in draw.integers(3, vocabulary, length)]

    rows = []
    for number in range(pairs):
        prompt = ids(130, 0.8, cap - 16)
        room = cap - len(prompt)
        rows.append(TokenRow(f"made.up/{number}/1/2", prompt, ids(200, 0.9, room), ids(150, 0.9, room)))
    return rows
