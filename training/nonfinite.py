"""Steps whose loss or gradient is not a finite number: they stop a training, or are left out and named.

    nonfinite.json          the step that stopped it: step, value, pair_ids
    nonfinite.safetensors   its whole batch: prompt_ids/PAIR, chosen_ids/PAIR, rejected_ids/PAIR of each pair, int64
    skipped.jsonl           one object a step that was left out: step, value, pair_ids

All ranks decide alike, since both numbers are reduced over all of them before anyone looks. A step that is left out
changes neither weights nor moments; the schedule of the learning rate counts it as a step all the same, so that the
rate of any step is still a function of the step alone.
"""

import json
import logging
import math
from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from training.jobs import TrainJob
from training.rows import TokenRow
from training.status import TrainerError

NONFINITE: Final = "nonfinite.json"
BATCH: Final = "nonfinite.safetensors"

log = logging.getLogger(__name__)


class Skipped:
    """The steps of a training that were left out so far, as every checkpoint keeps them."""

    def __init__(self, job: TrainJob, records: Sequence[dict[str, Any]] = ()):
        self.records = list(records)
        self._job, self._config = job, job.config
        if dist.get_rank() == 0:
            self._write()

    @property
    def total(self) -> int:
        """How many there are: so many updates fewer than steps were made."""
        return len(self.records)

    def meet(self, step: int, value: str, batch: Sequence[TokenRow], losses: dict[int, float]) -> None:
        """Deal with `value` that is not finite at `step` (from 1), by `train.nonfinite`; all ranks call together.

        `losses` are those of the rows of `batch` that this rank has seen; where none of them is at fault (a
        gradient that overflowed), the whole batch is named.

        Raises TrainerError of kind `nonfinite` unless the step may be left out.
        """
        pair_ids = [row.pair_id for row in batch]
        mine = [pair_ids[row] for row, loss in losses.items() if not math.isfinite(loss)]
        everyone: list[list[str] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, mine)
        guilty = sorted({pair_id for part in everyone if part for pair_id in part}) or sorted(pair_ids)
        record = {"step": step, "value": value, "pair_ids": guilty}
        concerned = (
            f"{value} is not a finite number at step {step}; {len(guilty)} of {len(pair_ids)} pairs of its batch are"
            f" concerned, the first of them {guilty[0]}"
        )
        if self._config.nonfinite == "stop":
            self._stop(record, concerned, batch)
        self.records.append(record)
        if self._in_a_row() > self._config.max_skipped_in_a_row:
            limit = f"train.max_skipped_in_a_row is {self._config.max_skipped_in_a_row}"
            self._stop(record, f"{concerned}, and {self._in_a_row()} steps in a row would be left out ({limit})", batch)
        if dist.get_rank() == 0:
            log.warning("%s: the step is left out, the %d. so far", concerned, self.total)
            self._write()

    def _in_a_row(self) -> int:
        newest, count = self.records[-1]["step"], 0
        while count < self.total and self.records[-1 - count]["step"] == newest - count:
            count += 1
        return count

    def refuse_untrained(self, steps: int) -> None:
        """Raise TrainerError of kind `nonfinite` where all of a training's `steps` were left out."""
        if self.total == steps:
            raise TrainerError(
                "nonfinite",
                f"all {steps} steps were left out since {self.records[0]['value']} and the like were no finite numbers:"
                f" nothing was trained, and no model is written (the pairs concerned are in {self._job.skipped})",
                steps,
            )

    def _stop(self, record: dict[str, Any], concerned: str, batch: Sequence[TokenRow]) -> None:
        named, whole = self._job.folder / NONFINITE, self._job.folder / BATCH
        if dist.get_rank() == 0:
            named.write_text(json.dumps(record, indent=1), encoding="utf-8")
            save_file(_tensors(batch), whole)
        dist.barrier()
        raise TrainerError(
            "nonfinite", f"{concerned} (all are in {named}, the token ids of the batch in {whole})", record["step"]
        )

    def _write(self) -> None:
        path = self._job.skipped
        if self.records:
            path.write_text(
                "".join(json.dumps(record, sort_keys=True) + "\n" for record in self.records), encoding="utf-8"
            )
        else:
            path.unlink(missing_ok=True)


def _tensors(batch: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
    return {f"{side}/{row.pair_id}": torch.tensor(getattr(row, side)) for row in batch for side in TokenRow._fields[1:]}
