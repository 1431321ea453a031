"""TRL 1.16's DPOTrainer on token rows of ours: the same ids in the same order under the same settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer

from training.config import TrainConfig
from training.rows import TokenRow


class PeerRun(NamedTuple):
    """What TRL reports of its training."""

    losses: list[float]
    """Mean loss of each optimizer step."""
    grad_norms: list[float]
    """Before clipping."""
    model: torch.nn.Module
    """After the last step."""


class _TokenRowTrainer(DPOTrainer):
    """Takes rows that are token ids already, and writes down each loss before anything rounds it."""

    def _prepare_dataset(self, dataset: Dataset, *_args: Any, **_kwargs: Any) -> Dataset:
        return dataset

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool) -> Any:
        computed = super()._compute_loss(model, inputs, return_outputs)
        self.micro_losses.append(float((computed[0] if return_outputs else computed).detach()))
        return computed


class _GradNorms(TrainerCallback):
    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


def train_with_trl(
    model: Path, rows: Sequence[TokenRow], config: TrainConfig, *, work: Path, micro_batch: int, precompute: bool,
    recompute: bool = False, max_length: int | None = None, device: str = "cpu",
) -> PeerRun:  # fmt: skip
    """One pass over `rows` as they stand, `config.batch_size` at a time.

    `micro_batch` pairs go through the model together; `precompute` scores the reference before training instead of
    beside it; `recompute` is TRL's own default (gradient checkpointing), and slower.
    """
    columns = {name: [row[at] for row in rows] for at, name in enumerate(TokenRow._fields)}
    # Never asked to tokenize: TRL wants one for its padding id, which is masked by length.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0}, "<pad>")), pad_token="<pad>", eos_token="<pad>"
    )
    bf16 = config.precision == "bf16"
    settings = DPOConfig(
        output_dir=str(work), beta=config.beta, loss_type=[_LOSSES[config.loss]], max_length=max_length,
        learning_rate=config.learning_rate, lr_scheduler_type=config.schedule, warmup_steps=config.warmup_ratio,
        per_device_train_batch_size=micro_batch, precompute_ref_batch_size=micro_batch,
        gradient_accumulation_steps=config.batch_size // micro_batch, num_train_epochs=1,
        adam_beta1=config.adam_betas[0], adam_beta2=config.adam_betas[1], adam_epsilon=config.adam_eps,
        weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm or 0.0, bf16=bf16, fp16=False,
        gradient_checkpointing=recompute, precompute_ref_log_probs=precompute, logging_nan_inf_filter=False,
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=device == "cpu", disable_tqdm=True,
        train_sampling_strategy="sequential", dataloader_pin_memory=False, seed=0,
        model_init_kwargs={"dtype": "bfloat16" if bf16 else "float32", "attn_implementation": "sdpa"},
    )  # fmt: skip
    norms = _GradNorms()
    trainer = _TokenRowTrainer(
        model=str(model), args=settings, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer,
        callbacks=[norms],
    )  # fmt: skip
    trainer.micro_losses = []
    trainer.train()
    parts = torch.tensor(trainer.micro_losses).unflatten(0, (-1, config.batch_size // micro_batch))
    return PeerRun(parts.mean(1).tolist(), norms.norms, trainer.model)


_LOSSES = {"sigmoid": "sigmoid", "dpo_norm": "sigmoid_norm", "robust": "robust", "ipo": "ipo"}
