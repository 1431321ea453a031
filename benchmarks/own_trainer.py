"""The trainer as the pipeline runs it: ranks that score the reference, then ranks that train under DeepSpeed."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from training.config import TrainConfig
from training.jobs import RowSet, ScoreJob, TrainJob
from training.launch import launch
from training.rows import TokenRow


def train_with_trainer(
    model: Path, rows: Sequence[TokenRow], config: TrainConfig, *, work: Path, seed: int
) -> list[float]:
    """One pass over `rows` in the trainer's own order; the mean loss of each step."""
    work.mkdir(parents=True, exist_ok=True)
    folder, reference = work / "rows", work / "reference.parquet"
    columns = {name: [row[at] for row in rows] for at, name in enumerate(TokenRow._fields)}
    Dataset.from_dict(columns).save_to_disk(folder)
    np.save(work / "all.npy", np.arange(len(rows)))
    scoring = RowSet(folder, work / "all.npy", work / "parts", config.tail_weight, config.order == "questions")
    budget = config.tokens_per_pack if config.precision == "bf16" else None
    ScoreJob(model, (scoring,), work / "score", config.precision, budget).write(work / "score.json")
    run = partial(launch, ranks=config.ranks, log_file=work / "ranks.log")
    run("training.score", work / "score.json", work / "score")
    parts = pa.concat_tables([pq.read_table(path) for path in sorted(scoring.parts.glob("*.parquet"))]).sort_by("row")
    pair_ids = pa.array([row.pair_id for row in rows])
    scored = [pair_ids, parts.column("chosen_logps"), parts.column("rejected_logps")]
    pq.write_table(pa.table(scored, names=["pair_id", "ref_chosen_logps", "ref_rejected_logps"]), reference)
    job = TrainJob(
        model=model, rows=folder, reference=reference, export=work / "model", folder=work / "train", seed=seed,
        config=config,
    )  # fmt: skip
    job.write(work / "train.json")
    run("training.run", work / "train.json", job.folder)
    lines = (job.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(json.loads(line)["loss"]) for line in lines]
