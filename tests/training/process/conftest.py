"""Jobs on a tiny model: token rows, reference log-probs and a training config, as files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from training.config import TrainConfig
from training.forward import load_model, pack_logps
from training.jobs import TrainJob
from training.pack import make_pack
from training.rows import load_rows

PAIRS = 20
MakeJob = Callable[..., TrainJob]


def write_rows(folder: Path, pairs: int = PAIRS, seed: int = 0) -> Path:
    """Token rows with unequal lengths, over the vocabulary of the tiny Llama."""
    draw = np.random.default_rng(seed)

    def ids(low: int, high: int) -> list[int]:
        return [int(token) for token in draw.integers(3, 97, draw.integers(low, high))]

    rows = [
        {"pair_id": f"made/{n}", "prompt_ids": ids(2, 20), "chosen_ids": ids(1, 30), "rejected_ids": ids(1, 30)}
        for n in range(pairs)
    ]
    Dataset.from_list(rows).save_to_disk(str(folder))
    return folder


def write_reference(path: Path, model: Path, rows: Path) -> Path:
    """Log-probs of every row under `model`, a pair at a time, in fp32."""
    scorer = load_model(model, precision="fp32", device="cpu")
    columns: dict[str, list[Any]] = {"pair_id": [], "ref_chosen_logps": [], "ref_rejected_logps": []}
    for row in load_rows(rows):
        with torch.no_grad():
            logps = pack_logps(scorer, make_pack([row], [0]))
        columns["pair_id"].append(row.pair_id)
        columns["ref_chosen_logps"].append(float(logps.chosen))
        columns["ref_rejected_logps"].append(float(logps.rejected))
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(autouse=True, scope="session")
def one_thread_each():
    """Two threads a rank would wait for each other where others use the cores too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, rows: Path) -> Path:
    return write_reference(tmp_path_factory.mktemp("reference") / "train.parquet", tiny_llama, rows)


@pytest.fixture(scope="session")
def job_maker(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, rows: Path, reference: Path) -> MakeJob:
    """Jobs of 10 steps of 4 pairs at a rate that moves the tiny model; settings by keyword."""
    root = tmp_path_factory.mktemp("jobs")

    def make(name: str, *, model: Path = tiny_llama, reference: Path = reference, **settings: Any) -> TrainJob:
        config = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-3, "precision": "fp32", "tokens_per_pack": 96}
        folder = root / name
        job = TrainJob(
            model=model, rows=rows, reference=reference, export=folder / "model", folder=folder, seed=7,
            config=TrainConfig(**{**config, "ranks": 1, "zero_stage": 2, **settings}),
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        job.write(folder / "job.json")
        return job

    return make
