"""Ranks that leave a step out at every ZeRO stage, in three ways, beside ranks that never see that step.

python -m skip_ranks FOLDER    with job.json (a TrainJob) in FOLDER; writes runs.json
"""

import json
import sys
from pathlib import Path

CASES = (
    (0, "fp32", "none"), (1, "fp32", "none"), (2, "fp32", "none"), (3, "fp32", "none"), (1, "bf16", "none"),
    (2, "bf16", "none"), (3, "bf16", "none"), (2, "fp32", "optimizer"), (3, "bf16", "optimizer"),
)  # fmt: skip
# Which of four batches is left out: the first, before Adam has any moments, or the third.
WAYS = {"first asked": (0, "asked"), "asked": (2, "asked"), "first overflown": (0, "overflown"),
        "overflown": (2, "overflown")}  # fmt: skip


def main(folder: Path) -> None:
    import math

    import torch.distributed as dist

    from training.batch import batch_indices, pack_batch
    from training.engine import Engine
    from training.forward import load_model
    from training.jobs import TrainJob
    from training.losses import PairLogps
    from training.reference import load_reference, pair_ids_of
    from training.rows import load_rows
    from training.step import run_packs
    from training.world import join_ranks, rank_device

    job = TrainJob.read(folder / "job.json")
    device = rank_device()
    join_ranks(device)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    rows = load_rows(job.rows)
    reference = load_reference(job.reference, pair_ids_of(rows, job.rows))

    def run(stage: int, precision: str, offload: str, without: int, way: str) -> dict[str, object]:
        """Losses of the steps that are made, the norm of the one that is left out, and sums of the state at the end."""
        config = job.config.model_copy(
            update={"zero_stage": stage, "precision": precision, "offload": offload, "nonfinite": "skip"}
        )
        engine = Engine(load_model(job.model, precision=config.precision, device=device), config, device)
        losses, left_out = [], None
        for step in range(4):
            if step == without and way == "absent":
                continue
            indices = batch_indices(len(rows), config.batch_size, job.seed, step)
            packs = pack_batch([rows[index] for index in indices], 2048, ranks)
            given = PairLogps(reference.chosen[indices], reference.rejected[indices])
            totals, _ = run_packs(engine, config, packs[rank], given, stop=False)
            if step == without and way == "overflown" and rank == ranks - 1:
                engine.backward(next(iter(engine.logps(packs[rank][0]))).sum() * math.inf)
            elif step == without and way == "overflown":
                engine.backward(next(iter(engine.logps(packs[rank][0]))).sum() * 0.0)
            norm = engine.step(1e-3, leave_out=step == without and way == "asked")
            if step == without:
                left_out = str(norm)
            else:
                losses.append([totals.metrics["loss"], norm])
        state = [[float(value.double().abs().sum()) for value in one[1:]] for one in engine.states()]
        return {"losses": losses, "left out": left_out, "state": state}

    runs = {}
    for stage, precision, offload in CASES:
        for way, (without, how) in WAYS.items():
            runs[f"{stage} {precision} {offload} {way}"] = run(stage, precision, offload, without, how)
        for without in (0, 2):
            runs[f"{stage} {precision} {offload} absent {without}"] = run(stage, precision, offload, without, "absent")
    if rank == 0:
        (folder / "runs.json").write_text(json.dumps(runs))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    from training.rank import run_rank
    from training.status import Outcome

    def work(_stop: object) -> Outcome:
        main(Path(sys.argv[1]))
        return Outcome("finished", 1)

    sys.exit(run_rank(Path(sys.argv[1]), work))
