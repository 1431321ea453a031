"""LD-DPO as a training: its log-probs leave out a part of the longer answer, from the reference to the export."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from training.forward import load_model, pack_logps
from training.launch import launch
from training.pack import make_pack
from training.rows import load_rows


@pytest.fixture
def lessened(tmp_path: Path, tiny_llama: Path, rows: Path) -> Path:
    """Reference log-probs in which the longer answer's surplus counts a third."""
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    found = []
    for row in load_rows(rows):
        with torch.no_grad():
            logps = pack_logps(model, make_pack([row], [0]), tail_weight=0.3)
        found.append((row.pair_id, float(logps.chosen), float(logps.rejected)))
    names = ("pair_id", "ref_chosen_logps", "ref_rejected_logps")
    pq.write_table(pa.table(dict(zip(names, zip(*found, strict=True), strict=True))), tmp_path / "reference.parquet")
    return tmp_path / "reference.parquet"


def test_a_training_with_a_lessened_tail_begins_at_ln_2_and_ends_with_the_model_that_was_trained(
    job_maker, lessened: Path
) -> None:
    job = job_maker("ld", reference=lessened, loss="ld", ld_alpha=0.3, epochs=1)
    done = launch("training.run", job.folder / "job.json", job.folder, ranks=1, log_file=job.folder / "train.log")
    assert done.state == "finished"
    losses = [json.loads(line)["loss"] for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6) and losses[-1] < losses[0]
    assert (job.export / "model.safetensors").exists()
