"""What each rank of a scoring runs: the log-probs of its share of the token rows under one model.

    python -m training.score JOB.json

Ranks share nothing: each holds the model, takes every n-th pack and writes part files, which the caller puts together
(and keeps, so that an interrupted scoring goes on where it was).
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from training.jobs import ScoreJob
from training.rank import Stop, die_with_parent, job_path, run_rank, this_rank, world_size
from training.status import Outcome, Progress, TrainerError, write_progress

if TYPE_CHECKING:
    from training.rows import TokenRows

PART_SECONDS: Final = 20.0  # what an interruption costs at most
QUESTION_TOKENS: Final = 2048
"""Of one pass where a question is scored by itself; one with more pairs than fit takes several."""
PART_COLUMNS: Final = ("row", "chosen_logps", "rejected_logps", "chosen_tokens", "rejected_tokens")


def score(job: ScoreJob, stop: Stop) -> Outcome:
    """Score this rank's packs and write them as part files."""
    import numpy as np
    import torch

    from training.forward import check_ids, check_lengths, load_model, pack_logps
    from training.pack import make_pack
    from training.rows import load_rows
    from training.world import rank_device

    rank, ranks = this_rank(), world_size()
    device = rank_device()
    model = load_model(job.model, precision=job.precision, device=device)
    model.eval()
    wanted = [(one, load_rows(one.rows), np.load(one.only).tolist()) for one in job.sets]
    for one, rows, _ in wanted:
        check_ids(model, rows, one.rows)
        check_lengths(model, rows, one.rows)
    total, done = sum(len(numbers) for _, _, numbers in wanted), 0
    write_progress(job.folder, rank, Progress(done, total, "pairs"))
    for one, rows, numbers in wanted:
        part, since = _Part(one.parts), time.monotonic()
        packs = _by_question if one.by_question else _packs
        for members in list(packs(rows, numbers, job.tokens_per_pack))[rank::ranks]:
            pack = make_pack([rows[member] for member in members], range(len(members))).to(device)
            with torch.inference_mode():
                logps = pack_logps(model, pack, tail_weight=one.tail_weight)
            part.add(
                [members[at] for at in pack.pairs.tolist()], [side.tolist() for side in (*logps, *pack.completions)]
            )
            done += len(members)
            write_progress(job.folder, rank, Progress(done, total, "pairs"))
            if stop.asked or time.monotonic() - since > PART_SECONDS:
                part.write()
                since = time.monotonic()
            if stop.asked:
                return Outcome("stopped", done)
        part.write()
    facts = {"ranks": ranks, "threads": torch.get_num_threads(), "precision": job.precision, "device": device.type}
    return Outcome("finished", done, facts)


def _packs(rows: "TokenRows", wanted: Sequence[int], tokens_per_pack: int | None) -> Iterator[list[int]]:
    """Row numbers that are scored together; the same whatever the number of ranks."""
    if tokens_per_pack is None:
        yield from ([number] for number in wanted)
        return
    lengths = rows.lengths()
    tokens = lengths.prompt + lengths.chosen + lengths.rejected
    held: list[int] = []
    for number in wanted:
        if held and int(tokens[held].sum() + tokens[number]) > tokens_per_pack:
            yield held
            held = []
        held.append(number)
    if held:
        yield held


def _by_question(rows: "TokenRows", wanted: Sequence[int], tokens_per_pack: int | None) -> Iterator[list[int]]:
    """The same with the pairs of a question together: as many questions as fit, or one a pass."""
    from training.batch import grouped

    questions = rows.questions()
    held: list[int] = []
    room = 0
    for _, together in groupby(sorted(wanted, key=questions.__getitem__), questions.__getitem__):
        numbers = list(together)
        for group in grouped([rows[number] for number in numbers], tokens_per_pack or QUESTION_TOKENS):
            if held and (tokens_per_pack is None or room + group.room > tokens_per_pack):
                yield held
                held, room = [], 0
            held += [numbers[pair] for pair in group.pairs]
            room += group.room
    if held:
        yield held


class _Part:
    """Scored rows that are not on the disk yet."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._columns: list[list[float]] = [[] for _ in PART_COLUMNS]

    def add(self, numbers: list[int], values: list[list[float]]) -> None:
        first, *others = self._columns
        first.extend(numbers)
        for column, more in zip(others, values, strict=True):
            column.extend(more)

    def write(self) -> None:
        """A file named for its first row, whole or not there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._columns[0]:
            return
        place = self._folder / f"{int(self._columns[0][0]):010d}.parquet"
        scratch = place.with_name(f".{place.name}.{os.getpid()}")
        # Sums of fp32 log-probs fit a double exactly.
        types = (pa.int64(), pa.float64(), pa.float64(), pa.int64(), pa.int64())
        arrays = [pa.array(column, kind) for column, kind in zip(self._columns, types, strict=True)]
        pq.write_table(pa.table(arrays, names=list(PART_COLUMNS)), scratch)
        scratch.rename(place)
        self._columns = [[] for _ in PART_COLUMNS]


def main() -> int:
    """Run the rank; returns its exit code."""
    die_with_parent()
    try:
        job = ScoreJob.read(job_path())
    except TrainerError as error:
        sys.exit(str(error))
    job.folder.mkdir(parents=True, exist_ok=True)
    return run_rank(job.folder, lambda stop: score(job, stop))


if __name__ == "__main__":
    sys.exit(main())
