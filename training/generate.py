"""What each rank of a generation runs: its share of the batches, model after model.

    python -m training.generate JOB.json

Prompts are padded on the left, so that every answer begins at the same place. Ranks share nothing: each writes a part
file a batch, and the caller puts them together (and keeps them, so that an interrupted generation goes on where it
was).
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.answer_parts import write_part
from training.jobs import AnswerBatch, GenerateJob
from training.rank import Stop, die_with_parent, job_path, run_rank, this_rank, world_size
from training.status import Outcome, Progress, TrainerError, write_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def generate(job: GenerateJob, stop: Stop) -> Outcome:
    """Answer this rank's batches and write them as part files."""
    import torch

    from training.world import rank_device

    rank, ranks = this_rank(), world_size()
    device = rank_device()
    prompts = json.loads(job.prompts.read_text(encoding="utf-8"))
    job.parts.mkdir(parents=True, exist_ok=True)
    total, done = sum(len(batch.numbers) for batch in job.batches), 0
    write_progress(job.folder, rank, Progress(done, total, "answers"))
    for name, folder in job.models.items():
        mine = [batch for batch in job.batches if batch.model == name][rank::ranks]
        if not mine:
            continue
        model = load_writer(folder, job, device)
        for batch in mine:
            found = answers(model, [prompts[number] for number in batch.numbers], batch, job)
            write_part(job.parts, batch, found)
            done += len(batch.numbers)
            write_progress(job.folder, rank, Progress(done, total, "answers"))
            if stop.asked:
                return Outcome("stopped", done)
        del model
        if device.type == "cuda":
            torch.cuda.empty_cache()
    facts = {
        "ranks": ranks, "threads": torch.get_num_threads(), "precision": job.precision, "device": device.type,
        "engine": job.engine,
    }  # fmt: skip
    return Outcome("finished", done, facts)


def load_writer(folder: Path, job: GenerateJob, device: Any) -> "PreTrainedModel":
    """The model in `folder`, ready to write, with no generation setting but ours."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    # What a model's own file asks for (a temperature, a penalty of repetition) would be asked of one of the two only.
    model.generation_config = GenerationConfig(
        max_new_tokens=job.max_new_tokens, do_sample=False, eos_token_id=job.end, pad_token_id=job.end
    )
    return model.to(device).eval()


def answers(
    model: "PreTrainedModel", prompts: list[dict[str, Any]], batch: AnswerBatch, job: GenerateJob
) -> list[dict[str, Any]]:
    """`number, ids, stopped` of each answer; `ids` with the EOS of one that stopped."""
    import torch
    from transformers import LogitsProcessorList

    from training.sampling import Finite, KeyedSampling

    keys = [prompt["key"] for prompt in prompts]
    rows = [prompt["ids"] for prompt in prompts]
    width = max(map(len, rows))
    input_ids = torch.tensor([[job.end] * (width - len(row)) + row for row in rows], device=model.device)
    # Masked by length: the id that pads may be one that occurs.
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    processors = LogitsProcessorList([Finite(keys)])
    if batch.mode == "sampled":
        processors.append(KeyedSampling(keys, seed=job.seed, temperature=job.temperature, top_p=job.top_p))
    with torch.inference_mode():
        written = model.generate(input_ids=input_ids, attention_mask=mask, logits_processor=processors)
    found = []
    for number, ids in zip(batch.numbers, written[:, width:].tolist(), strict=True):
        stopped = job.end in ids
        found.append({"number": number, "ids": ids[: ids.index(job.end) + 1] if stopped else ids, "stopped": stopped})
    return found


def main() -> int:
    """Run the rank; returns its exit code."""
    die_with_parent()
    try:
        job = GenerateJob.read(job_path())
    except TrainerError as error:
        sys.exit(str(error))
    job.folder.mkdir(parents=True, exist_ok=True)
    if job.engine == "vllm":
        from training.vllm_answers import generate_by_vllm

        return run_rank(job.folder, lambda stop: generate_by_vllm(job, stop))
    return run_rank(job.folder, lambda stop: generate(job, stop))


if __name__ == "__main__":
    sys.exit(main())
