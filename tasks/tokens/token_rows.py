"""Token rows as a polars frame, for stages that look at ids without torch.

in   a folder written by `datasets.save_to_disk`
out  pair_id, prompt_ids, chosen_ids, rejected_ids
"""

from pathlib import Path
from typing import Final

import polars as pl

_IDS: Final = pl.List(pl.Int32)
SCHEMA: Final = pl.Schema(
    [("pair_id", pl.String()), ("prompt_ids", _IDS), ("chosen_ids", _IDS), ("rejected_ids", _IDS)]
)


def read_token_rows(folder: Path) -> pl.DataFrame:
    """All rows of one split, in order; none where the folder is missing."""
    if not folder.is_dir():
        return pl.DataFrame(schema=SCHEMA)
    from datasets import load_from_disk

    table = load_from_disk(str(folder)).with_format("arrow")[:]
    if table.num_rows == 0:
        return pl.DataFrame(schema=SCHEMA)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
