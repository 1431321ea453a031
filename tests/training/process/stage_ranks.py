"""Ranks that train one tiny model under every ZeRO stage in turn, so that torch is loaded once for all of them.

    python -m stage_ranks FOLDER    with job.json (a TrainJob) in FOLDER; writes runs.json

Each stage runs all steps and saves after STEPS_SAVED of them. Then the same stage and another go on from that
checkpoint; a training of one rank goes on from the checkpoints of two ranks instead, where `train.resume` says so.
The stages that can offload the optimizer do the same with it.
"""

import gc
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

STEPS, STEPS_SAVED = 5, 3
NEXT = {0: 3, 1: 0, 2: 1, 3: 2}


def tensor_bytes() -> int:
    """What all tensors of this process hold, views of the same memory once."""
    from torch import Tensor

    gc.collect()
    storages = [one.untyped_storage() for one in gc.get_objects() if issubclass(type(one), Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def main(folder: Path) -> None:
    import torch
    import torch.distributed as dist

    from training.batch import batch_indices, pack_batch
    from training.checkpoint import read_checkpoint, save_checkpoint
    from training.config import Precision
    from training.engine import Engine
    from training.export import gather
    from training.forward import load_model
    from training.jobs import TrainJob
    from training.losses import PairLogps
    from training.reference import load_reference, pair_ids_of
    from training.rows import load_rows
    from training.schedule import learning_rate
    from training.status import Progress
    from training.step import run_packs
    from training.world import join_ranks, rank_device

    job = TrainJob.read(folder / "job.json")
    device = rank_device()
    join_ranks(device)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    rows = load_rows(job.rows)
    reference = load_reference(job.reference, pair_ids_of(rows, job.rows))
    metrics = folder / "metrics.jsonl"
    metrics.touch()

    def run(
        stage: int, first: int, checkpoint: Path | None, precision: str = "fp32", offload: str = "none"
    ) -> tuple[list[list[float]], Engine]:
        config = job.config.model_copy(update={"zero_stage": stage, "precision": precision, "offload": offload})
        model = load_model(job.model, precision=config.precision, device=device, lora=config.lora, seed=job.seed)
        found = None if checkpoint is None else read_checkpoint(checkpoint, {})
        if found is not None:
            found.load_weights(model)
        engine = Engine(model, config, device)
        if found is not None:
            engine.restore(found.step, found.state)
        shown = []
        for step in range(first, STEPS):
            indices = batch_indices(len(rows), config.batch_size, job.seed, step)
            packs = pack_batch([rows[index] for index in indices], config.tokens_per_pack or 2048, ranks)
            given = PairLogps(reference.chosen[indices], reference.rejected[indices])
            totals, _ = run_packs(engine, config, packs[rank], given, stop=False)
            shown.append([totals.metrics["loss"], engine.step(learning_rate(config, step, 10))])
            if first == 0 and step + 1 == STEPS_SAVED:
                place = folder / (f"{precision}-{stage}" if offload == "none" else f"{precision}-{stage}-offload")
                save_checkpoint(place, engine, step=STEPS_SAVED, identity={}, metrics=metrics)
        return shown, engine

    held: dict[str, tuple[int, int]] = {}
    said: list[Progress] = []

    def export(engine: Engine, stage: int, precision: Precision) -> None:
        name = "model-bf16" if precision == "bf16" else f"model-{stage}"
        before = tensor_bytes()
        exported = gather(
            engine, job.model, job.config.model_copy(update={"precision": precision}), rows[:3], said.append
        )
        held[f"{precision}-{stage}"] = (before, tensor_bytes())
        if exported is not None and stage in (0, 3):
            exported.write(folder / name, adapter=folder / f"{name}-adapter")

    runs: dict[str, list[list[float]]] = {}
    for stage in NEXT:
        runs[f"whole-{stage}"], engine = run(stage, 0, None)
        export(engine, stage, job.config.precision)
    came_from = folder if job.config.resume == "auto" else Path(job.config.resume.removeprefix("from:"))
    for stage, other in NEXT.items():
        place = came_from / f"fp32-{stage}" / f"step-{STEPS_SAVED:08d}"
        if came_from == folder:
            runs[f"same-{stage}"], engine = run(stage, STEPS_SAVED, place)
            engine.close()
        if came_from == folder or stage == 3:
            runs[f"other-{stage}"], engine = run(other, STEPS_SAVED, place)
            engine.close()
    for stage in (1, 2, 3) if ranks == 2 else ():
        runs[f"bf16-{stage}"], engine = run(stage, 0, None, "bf16")
        place = folder / f"bf16-{stage}" / f"step-{STEPS_SAVED:08d}"
        export(engine, stage, "bf16")
        runs[f"bf16-resumed-{stage}"], engine = run(stage, STEPS_SAVED, place, "bf16")
        engine.close()
    for stage, precision in ((1, "fp32"), (2, "fp32"), (3, "fp32"), (3, "bf16")):
        name = f"{precision}-{stage}-offload"
        runs[name], engine = run(stage, 0, None, precision, "optimizer")
        before = tensor_bytes()
        gather(engine, job.model, job.config.model_copy(update={"precision": precision}), rows[:1])
        held[name] = (before, tensor_bytes())
        if came_from == folder:
            place = folder / name / f"step-{STEPS_SAVED:08d}"
            runs[f"{name}-same"], engine = run(stage, STEPS_SAVED, place, precision, "optimizer")
            engine.close()
            runs[f"{name}-back"], engine = run(stage, STEPS_SAVED, place, precision)
            engine.close()
    if rank == 0:
        (folder / "runs.json").write_text(json.dumps(runs))
        (folder / "said.json").write_text(json.dumps([asdict(one) for one in said]))
    if rank == ranks - 1:  # of two the other has no model to export
        (folder / "held.json").write_text(json.dumps(held))
    dist.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    from training.rank import run_rank
    from training.status import Outcome

    def work(_stop: object) -> Outcome:
        main(Path(sys.argv[1]))
        return Outcome("finished", STEPS)

    os.environ.setdefault("RANK", "0")
    sys.exit(run_rank(Path(sys.argv[1]), work))
