"""What a rank of a generation by vLLM runs: its share of one model's batches, many prompts at a time.

Written to vLLM's offline interface (`LLM`, `SamplingParams`; 0.10 and later) and tested against a stand-in alone: the
library needs CUDA. An answer is drawn with a seed of its own prompt; of the batch only rounding is left, but vLLM forms
its batches as it goes, so that the same run need not give the same bytes.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training.answer_parts import write_part
from training.jobs import AnswerBatch, GenerateJob
from training.rank import Stop, this_rank, world_size
from training.status import Outcome, Progress, TrainerError, write_progress

if TYPE_CHECKING:
    from vllm import LLM

AT_ONCE: Final = (
    256  # answers that vLLM is handed together, as many as it works at by default; between them we may stop
)

_ENVIRONMENT: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process, which ends with its launcher; a child may not
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",  # vLLM would tell its makers
    "HF_HUB_OFFLINE": "1",
}


def generate_by_vllm(job: GenerateJob, stop: Stop) -> Outcome:
    """Answer this rank's batches and write them as part files."""
    rank, ranks = this_rank(), world_size()
    os.environ.update(_ENVIRONMENT, CUDA_VISIBLE_DEVICES=own_device(os.environ.get("CUDA_VISIBLE_DEVICES"), rank))
    ((_, folder),) = job.models.items()
    prompts = json.loads(job.prompts.read_text(encoding="utf-8"))
    job.parts.mkdir(parents=True, exist_ok=True)
    total, done = sum(len(batch.numbers) for batch in job.batches), 0
    write_progress(job.folder, rank, Progress(done, total, "answers"))
    writer = load_vllm(folder, job, max(len(prompt["ids"]) for prompt in prompts))
    for batches in _handfuls(job.batches[rank::ranks]):
        found = answers(writer, prompts, batches, job)
        for batch in batches:
            write_part(job.parts, batch, found[: len(batch.numbers)])
            found = found[len(batch.numbers) :]
            done += len(batch.numbers)
        write_progress(job.folder, rank, Progress(done, total, "answers"))
        if stop.asked:
            return Outcome("stopped", done)
    import vllm

    facts = {"ranks": ranks, "precision": job.precision, "engine": job.engine, "vllm": vllm.__version__}
    return Outcome("finished", done, facts)


def own_device(visible: str | None, rank: int) -> str:
    """This rank's device out of those that CUDA_VISIBLE_DEVICES leaves, as CUDA_VISIBLE_DEVICES of its process."""
    if visible is None:
        return str(rank)
    names = [name for name in (part.strip() for part in visible.split(",")) if name]
    if names and rank >= len(names):
        raise TrainerError("recipe", f"train.ranks asks for {rank + 1} GPUs and CUDA_VISIBLE_DEVICES has {len(names)}")
    return names[rank] if names else visible


def load_vllm(folder: Path, job: GenerateJob, longest: int) -> "LLM":
    """The model in `folder` with room for the longest prompt and its answer, and no generation setting but ours."""
    try:
        from vllm import LLM
    except Exception as error:  # an installation for another CUDA or torch fails in ways of its own
        raise TrainerError(
            "recipe",
            f"evaluate.generate.engine is vllm, which cannot be imported ({type(error).__name__}: {error}): mend the "
            "installation, or set it to transformers",
        ) from error
    return LLM(
        model=str(folder), skip_tokenizer_init=True, generation_config="vllm",
        dtype="bfloat16" if job.precision == "bf16" else "float32", max_model_len=longest + job.max_new_tokens,
        seed=job.seed & 0xFFFFFFFF,
    )  # fmt: skip


def answers(
    writer: "LLM", prompts: Sequence[dict[str, Any]], batches: Sequence[AnswerBatch], job: GenerateJob
) -> list[dict[str, Any]]:
    """`number, ids, stopped` of each answer, in the order of the batches; `ids` with the EOS of one that stopped."""
    asked = [(batch.mode, number) for batch in batches for number in batch.numbers]
    written = writer.generate(
        [{"prompt_token_ids": prompts[number]["ids"]} for _, number in asked],
        [_sampling(mode, prompts[number]["key"], job) for mode, number in asked],
        use_tqdm=False,
    )
    found = []
    for (_, number), answer in zip(asked, written, strict=True):
        (one,), key = answer.outputs, prompts[number]["key"]
        if one.finish_reason not in ("stop", "length"):
            raise TrainerError("bug", f"vLLM ended the answer to pair {key} with {one.finish_reason!r}")
        if not math.isfinite(one.cumulative_logprob or 0.0):
            raise TrainerError("nonfinite", f"the logits after the prompt of pair {key} are no numbers")
        ids, stopped = list(one.token_ids), one.finish_reason == "stop"
        if stopped and ids[-1:] != [job.end]:  # nothing else may stop it
            ids.append(job.end)
        found.append({"number": number, "ids": ids, "stopped": stopped})
    return found


def _sampling(mode: str, key: str, job: GenerateJob) -> Any:
    from vllm import SamplingParams

    from training.sampling import prompt_seed

    drawn: dict[str, Any] = {"temperature": 0.0}
    if mode == "sampled":
        drawn = {"temperature": job.temperature, "top_p": job.top_p, "seed": prompt_seed(job.seed, key)}
    # Stopped by our EOS alone, as the other engine is; log-probs show weights that are no numbers.
    return SamplingParams(
        **drawn, max_tokens=job.max_new_tokens, stop_token_ids=[job.end], ignore_eos=True, detokenize=False, logprobs=0
    )


def _handfuls(batches: Sequence[AnswerBatch]) -> list[list[AnswerBatch]]:
    """The batches in groups of about AT_ONCE prompts."""
    groups: list[list[AnswerBatch]] = []
    size = AT_ONCE
    for batch in batches:
        if size + len(batch.numbers) > AT_ONCE:
            groups.append([])
            size = 0
        groups[-1].append(batch)
        size += len(batch.numbers)
    return groups
