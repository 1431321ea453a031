"""Token rows for a benchmark: those of a data set cut to a cap, or made up with lengths like Stack Exchange's."""

import sys
from pathlib import Path

import numpy as np

from training.rows import TokenRow, load_rows


def rows_of(folder: Path, pairs: int, cap: int) -> list[TokenRow]:
    """The first `pairs` rows in `folder` whose prompt leaves room, answers cut to `cap` tokens with the prompt."""
    kept = (row for row in load_rows(folder) if len(row.prompt_ids) < cap)
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
