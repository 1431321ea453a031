"""Train: token rows and reference log-probs -> a tuned model.

in   train/, train.parquet (reference), model/
out  model/           safetensors, tokenizer, chat template
     adapter/         with train.lora: the adapter alone, as peft loads it; model/ has it merged
     metrics.jsonl    one object a step, under TRL's names
     skipped.jsonl    where steps were left out: step, value, pair_ids (train.nonfinite)
     perf.log         one object a step: what the clock says; train.log: what the ranks printed
     tensorboard/     with train.tensorboard: both, for TensorBoard

Over all epochs: pairs + dropped.incomplete_batch = epochs * pairs of the train split; steps * batch_size = pairs.
Of the steps, `skipped_steps` made no update.
"""

import shutil
from pathlib import Path

from tasks.errors import RecipeError
from tasks.manifest import Manifest
from tasks.scores.ranks import run_ranks
from tasks.store import Store, Workspace
from tasks.tokens.encoder import Encoder
from training.config import TrainConfig
from training.jobs import TrainJob

VERSION = 2  # bump when the bytes this stage writes would change


def train(
    store: Store, tokens: Manifest, reference: Manifest, model: Manifest, config: TrainConfig, seed: int
) -> Manifest:
    """The policy after DPO.

    Checkpoints lie in the stage's partial folder: a retry, or a new run of the same recipe, goes on from the last.

    Raises RecipeError when the train pairs do not fill one batch, StageFailed or TransientStageFailure when training
    fails, naming the step and the log.
    """

    def build(work: Workspace) -> dict[str, int]:
        pairs = _row_count(tokens)
        per_epoch = pairs // config.batch_size
        if per_epoch == 0:
            raise RecipeError(
                f"train.batch_size is {config.batch_size} and there are {pairs} train pairs: they do not fill one batch"
            )
        folder = work.partial / "training"
        folder.mkdir(exist_ok=True)
        job = TrainJob(
            model=model.path("model"), rows=tokens.path("train"), reference=reference.path("train.parquet"),
            export=work.folder / "model", folder=folder, seed=seed, config=config, run=store.run,
            end=_end_of(model.path("model")),
        )  # fmt: skip
        job.write(folder / "job.json")
        log = work.partial / "train.log"
        outcome = run_ranks(work, "training.run", folder / "job.json", folder, ranks=config.ranks, log_file=log)
        for kept in (
            folder / "metrics.jsonl",
            folder / "perf.log",
            log,
            *([job.skipped] if job.skipped.exists() else []),
        ):
            shutil.copyfile(kept, work.folder / kept.name)
        if config.tensorboard:
            shutil.copytree(folder / "tensorboard", work.folder / "tensorboard")
        facts = dict(outcome.facts)
        seen = outcome.step * config.batch_size
        counts = {"steps": outcome.step, "pairs": seen}
        counts |= {name: int(facts.pop(name)) for name in ("tokens", "skipped_steps")}
        counts["dropped.incomplete_batch"] = pairs * config.epochs - seen
        for refused in facts["refused_checkpoints"]:
            work.message(refused)
        work.provenance |= facts
        return counts

    identity = config.identity() | {"seed": seed}
    inputs = {"tokenize": tokens, "reference": reference, "model": model}
    return store.stage("train", VERSION, identity, inputs, build)


def _row_count(tokens: Manifest) -> int:
    """Rows of the train split, read from the folder: counts are for people."""
    from datasets import load_from_disk

    return len(load_from_disk(str(tokens.path("train"))))


def _end_of(model: Path) -> int | None:
    """Id of EOS; None for a model without a tokenizer, whose rows came from elsewhere."""
    return Encoder.load(model).end if (model / "tokenizer.json").is_file() else None
