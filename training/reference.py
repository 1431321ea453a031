"""Reference log-probs in the order of the token rows, joined on `pair_id` and checked.

in   pair_id, ref_chosen_logps, ref_rejected_logps   one row a pair
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from pyarrow.lib import ArrowException
from torch import Tensor

from training.losses import PairLogps
from training.rows import TokenRows
from training.status import TrainerError


def load_reference(path: Path, pair_ids: list[str]) -> PairLogps:
    """The log-probs of each of `pair_ids`, (rows,) each, fp32, on the CPU.

    Raises TrainerError of kind `reference`, naming the file and the pair, when one is missing or not finite.
    """
    try:
        columns = pq.read_table(path, columns=["pair_id", "ref_chosen_logps", "ref_rejected_logps"]).to_pydict()
    except (OSError, ArrowException) as error:
        raise TrainerError("reference", f"the reference file {path} cannot be read: {error}") from error
    place = {pair_id: row for row, pair_id in enumerate(columns["pair_id"])}
    if missing := next((pair_id for pair_id in pair_ids if pair_id not in place), None):
        raise TrainerError("reference", f"the reference file {path} holds no log-probs of pair {missing}")
    order = [place[pair_id] for pair_id in pair_ids]

    def column(name: str) -> Tensor:
        values = torch.tensor(columns[name], dtype=torch.float32)[order]
        if len(bad := torch.nonzero(~torch.isfinite(values))):
            raise TrainerError("reference", f"{name} of pair {pair_ids[int(bad[0])]} in {path} is not a finite number")
        return values

    return PairLogps(column("ref_chosen_logps"), column("ref_rejected_logps"))


def pair_ids_of(rows: TokenRows, folder: Path) -> list[str]:
    """The pairs of the token rows in `folder`, in order, without reading their ids.

    Raises TrainerError of kind `data` when one occurs twice, or has nothing to predict an answer from or to score.
    """
    from datasets import load_from_disk

    found: list[str] = load_from_disk(str(folder)).data.column("pair_id").to_pylist()
    if len(set(found)) != len(rows):
        raise TrainerError("data", f"{folder} holds {len(rows)} rows of {len(set(found))} pairs; each may occur once")
    empty = np.flatnonzero(np.minimum.reduce(rows.lengths()) == 0)
    if len(empty):
        raise TrainerError(
            "data",
            f"{len(empty)} of {len(rows)} pairs in {folder} have an empty prompt or answer, the first"
            f" {found[int(empty[0])]}: tokenize them again",
        )
    return found
