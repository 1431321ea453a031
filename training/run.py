"""What each rank of a training runs, top to bottom: job, rows, model, engine, loop, export.

    python -m training.run JOB.json

Alone it is a training of one rank; `training/launch.py` starts several. The job's folder holds what survives an
interruption: checkpoints/ (training/checkpoint.py), metrics.jsonl and perf.log (training/records.py).
"""

import logging
import math
import sys
from functools import partial
from typing import Final

from training.jobs import TrainJob
from training.rank import Stop, die_with_parent, job_path, run_rank
from training.status import Outcome, Progress, TrainerError, write_progress

EXPORT_CHECKED: Final = 4  # pairs whose log-probs the exported model must give again

log = logging.getLogger(__name__)


def train(job: TrainJob, stop: Stop) -> Outcome:
    """Train, save and export; every rank calls it. TrainJob says what is read and written.

    Raises TrainerError for what its reader can mend.
    """
    import torch
    import torch.distributed as dist

    from training.batch import batch_indices, pack_batch, steps_per_epoch
    from training.checkpoint import METRICS, save_checkpoint
    from training.engine import Engine, tensorboard
    from training.export import gather, silent
    from training.fit import pack_settings
    from training.forward import check_ids, check_lengths, load_model
    from training.layout import shares_prompt
    from training.losses import PairLogps
    from training.memory import DeviceKind
    from training.metrics import pack_metrics
    from training.nonfinite import Skipped
    from training.records import Records, total_of
    from training.reference import load_reference, pair_ids_of
    from training.resume import choose_checkpoint, identity_of
    from training.rows import load_rows
    from training.schedule import learning_rate
    from training.shape import shape_in
    from training.step import check_first_loss, run_packs
    from training.work import peak_of, step_flops, truncated_share
    from training.world import device_memory, join_ranks, leave_ranks, rank_device

    config = job.config
    device = rank_device()
    join_ranks(device)
    board = tensorboard(job.folder / "tensorboard") if config.tensorboard else None
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(job.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # For debugging, and slow; the stub does not know it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    rows = load_rows(job.rows)
    pair_ids = pair_ids_of(rows, job.rows)
    reference = load_reference(job.reference, pair_ids)
    per_epoch = steps_per_epoch(len(rows), config.batch_size)
    if per_epoch == 0:
        raise TrainerError("recipe", f"{len(rows)} pairs do not fill one batch of {config.batch_size}")
    total = per_epoch * config.epochs
    lengths = rows.lengths()
    longest = int((lengths.prompt + lengths.chosen + lengths.rejected).max())
    kind: DeviceKind = "cuda" if device.type == "cuda" else "cpu"
    shape = shape_in(job.model)
    # The least of all ranks: how many packs there are is part of what the ranks do together.
    room = torch.tensor(device_memory(device), device=device)
    dist.all_reduce(room, op=dist.ReduceOp.MIN)
    budget, recompute = pack_settings(shape, config, kind, int(room), longest)

    questions = rows.questions() if config.order == "questions" else None
    identity = identity_of(job, pair_ids)
    checkpoint, refused = choose_checkpoint(job, identity)
    model = load_model(job.model, precision=config.precision, device=device, lora=config.lora, seed=job.seed)
    check_ids(model, rows, job.rows)
    check_lengths(model, rows, job.rows)
    shared_prompt = shares_prompt(model.config.model_type)
    if checkpoint is not None:
        checkpoint.load_weights(model)
    if recompute:  # the re-entrant kind fails with ZeRO 2 and 3
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine = Engine(model, config, device)
    if checkpoint is not None:
        engine.restore(checkpoint.step - len(checkpoint.skipped), checkpoint.state)
    first = 0 if checkpoint is None else checkpoint.step
    skipped = Skipped(job, () if checkpoint is None else checkpoint.skipped)
    metrics = job.folder / METRICS
    if rank == 0:
        metrics.write_bytes(b"" if checkpoint is None else (checkpoint.folder / METRICS).read_bytes())
        write_progress(job.folder, rank, Progress(first, total, "steps"))
    log.info("steps %d to %d, %d ranks (%s), ZeRO stage %d", first + 1, total, ranks, device.type, engine.stage)

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = peak_of(config, name, ranks)
    with Records.opened(metrics, job.folder / "perf.log", peak=peak, board=board) as records:
        for step in range(first, total):
            indices = batch_indices(len(rows), config.batch_size, job.seed, step, questions)
            batch = [rows[index] for index in indices]
            packs = pack_batch(batch, budget, ranks)
            given = PairLogps(reference.chosen[indices], reference.rejected[indices])
            totals, losses = run_packs(engine, config, packs[rank], given, stop.asked)
            finite = math.isfinite(totals.metrics["loss"])
            if not finite:
                skipped.meet(step + 1, "the loss", batch, losses)
            elif step == skipped.total:  # no update was made so far
                check_first_loss(totals, job.reference, config.precision)
            rate = learning_rate(config, step, total)
            norm = engine.step(rate, leave_out=not finite)
            if finite and not math.isfinite(norm):
                skipped.meet(step + 1, "the gradient's norm", batch, {})
            done = step + 1
            if rank == 0 and finite and math.isfinite(norm):
                line = {"step": done, "epoch": done / per_epoch, **totals.metrics, "learning_rate": rate}
                line |= {"grad_norm": norm, "tokens": sum(row.tokens for row in batch)}
                if config.nonfinite == "skip":
                    line["optim/skipped_steps"] = skipped.total
                packing = pack_metrics(packs, shared_prompt=shared_prompt) | truncated_share(batch, job.end)
                packing |= step_flops(shape, packs, recompute=recompute, frozen=config.lora is not None)
                records.write(line, packing, config.batch_size)
            elif rank == 0:
                records.leave_out()
            if rank == 0:
                write_progress(job.folder, rank, Progress(done, total, "steps"))
            if totals.stop or (done % config.save_every == 0 and done < total):
                save_checkpoint(
                    job.checkpoints, engine, step=done, identity=identity, metrics=metrics, skipped=skipped.records
                )
            if totals.stop:
                log.info("stopped on request after step %d of %d", done, total)
                leave_ranks()
                return Outcome("stopped", done)

    skipped.refuse_untrained(total)
    last = batch_indices(len(rows), config.batch_size, job.seed, total - 1, questions)[:EXPORT_CHECKED]
    say = partial(write_progress, job.folder, rank) if rank == 0 else silent
    trained = engine.parameters
    exported = gather(engine, job.model, config, [rows[index] for index in last], say)
    leave_ranks()
    if exported is not None:
        exported.write(job.export, adapter=job.adapter, say=say)
    facts = {
        "ranks": ranks, "threads": torch.get_num_threads(), "zero_stage": engine.stage, "precision": config.precision,
        "device": name, "tokens_per_pack": budget, "recompute": recompute,
        "resumed_from_step": first, "refused_checkpoints": refused,
        "skipped_steps": skipped.total, "trained_parameters": trained,
        "tokens": total_of(metrics, "tokens") if rank == 0 else 0,
    }  # fmt: skip
    return Outcome("finished", total, facts)


def main() -> int:
    """Run the rank; returns its exit code."""
    die_with_parent()
    try:
        job = TrainJob.read(job_path())
    except TrainerError as error:
        sys.exit(str(error))
    job.folder.mkdir(parents=True, exist_ok=True)
    return run_rank(job.folder, lambda stop: train(job, stop))


if __name__ == "__main__":
    sys.exit(main())
