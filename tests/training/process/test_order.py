"""A training question by question: its batches are those of that order, and its losses those of each pair alone."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from tests.training.pairs import made_up_rows, plain_model, plain_sums
from tests.training.process.conftest import write_reference
from training.batch import batch_indices, pack_batch
from training.launch import launch
from training.losses import PairLogps, pair_losses
from training.pack import PairTokens
from training.reference import load_reference, pair_ids_of
from training.rows import TokenRow, load_rows
from training.schedule import learning_rate


@pytest.fixture(scope="module")
def questions_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs of four questions, all pairs of three answers each, one question's pairs far from each other."""
    made = [made_up_rows([(6, 9, 14), (1, 11, 1)], seed=seed) for seed in range(4)]
    rows = []
    for first, second in ((0, 1), (1, 2), (0, 2)):
        for number, ((_, prompt, a, b), (_, _, c, _)) in enumerate(made):
            answers = (a, b, c)
            rows.append(TokenRow(f"made/{number}/{first}/{second}", prompt, answers[first], answers[second]))
    folder = tmp_path_factory.mktemp("questions") / "train"
    Dataset.from_list([row._asdict() for row in rows]).save_to_disk(str(folder))
    return folder


def test_a_question_is_the_rows_of_one_prompt(questions_rows: Path) -> None:
    assert load_rows(questions_rows).questions() == (0, 1, 2, 3) * 3


def test_losses_are_those_of_plain_torch_with_every_sequence_alone(
    job_maker, questions_rows: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    job = job_maker("by-question", ranks=2, batch_size=6, epochs=4, order="questions")
    reference_file = write_reference(tmp_path / "train.parquet", tiny_llama, questions_rows)
    job = dataclasses.replace(job, rows=questions_rows, reference=reference_file)
    job.write(job.folder / "job.json")
    launch("training.run", job.folder / "job.json", job.folder, ranks=2, log_file=job.folder / "train.log")
    lines = [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]

    rows = load_rows(questions_rows)
    reference = load_reference(reference_file, pair_ids_of(rows, questions_rows))
    model = plain_model(tiny_llama)
    adam = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    expected, tokens, held = [], 0, []
    for step in range(8):
        indices = batch_indices(12, 6, job.seed, step, rows.questions())
        held.append({rows.questions()[index] for index in indices})
        batch = [rows[index] for index in indices]
        tokens += sum(pack.tokens for packs in pack_batch(batch, 96, 2) for pack in packs if pack.weight)
        given = PairLogps(reference.chosen[indices], reference.rejected[indices])
        policy = plain_sums(model, batch)
        lengths = PairTokens(*(torch.tensor([len(row[side]) for row in batch]) for side in (2, 3)))
        loss = pair_losses(job.config, policy, given, lengths).losses.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.param_groups[0]["lr"] = learning_rate(job.config, step, 8)
        adam.step()
        adam.zero_grad()
        expected.append(loss.item())
    assert [line["loss"] for line in lines] == pytest.approx(expected, abs=1e-6)
    assert abs(expected[-1] - expected[0]) > 5e-3
    assert all(len(questions) == 2 for questions in held)
    assert tokens == 8 * 2 * (6 + 9 + 14 + 11)
