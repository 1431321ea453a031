"""The settings of training as the original's card lists them, and where they differ from the original's.

in   Story (tasks/reports/story.py)
out  Markdown
"""

from collections.abc import Mapping
from typing import Any, Final

from tasks.evaluation.rewards import reward_of
from tasks.reports.escaping import as_markdown
from tasks.reports.figures import OF_ONE_LOSS, markdown_table, number, setting
from tasks.reports.story import Story

# Tulu V2.5 DPO 13B, StackExchange 60k: its card, and for what the card leaves out the trainer's code.
ORIGINAL: Final[dict[str, Any]] = {
    "learning_rate": 5e-7, "batch_size": 32, "adam_betas": [0.9, 0.999], "adam_eps": 1e-8, "schedule": "linear",
    "warmup_ratio": 0.1, "epochs": 3, "beta": 0.1, "loss": "sigmoid", "label_smoothing": 0.0, "weight_decay": 0.0,
    "max_grad_norm": 1.0, "precision": "bf16",
}  # fmt: skip
ORIGINAL_LENGTH: Final = 4096
ORIGINAL_PAIRS: Final = 60_908


def hyperparameters(story: Story) -> str:
    """The list, and the table of differences."""
    train = story.recipe.get("train", {})
    length = story.recipe.get("tokenize", {}).get("max_length")
    betas = setting(train.get("adam_betas"))
    said = "The following hyperparameters were used during DPO training:\n\n" + "".join(
        f"- {name}: {value}\n"
        for name, value in (
            ("learning_rate", setting(train.get("learning_rate"))),
            ("total_train_batch_size", setting(train.get("batch_size"))),
            ("optimizer", f"Adam with betas={betas} and epsilon={setting(train.get('adam_eps'))}"),
            ("lr_scheduler_type", setting(train.get("schedule"))),
            ("lr_scheduler_warmup_ratio", setting(train.get("warmup_ratio"))),
            ("num_epochs", setting(train.get("epochs"))),
            ("dpo_beta", f"{setting(train.get('beta'))} ({_loss(train)})"),
            ("label_smoothing", setting(train.get("label_smoothing"))),
            ("weight_decay", setting(train.get("weight_decay"))),
            ("max_grad_norm", setting(train.get("max_grad_norm"))),
            ("max_length", f"{setting(length)} tokens, prompt and answer together; each side cut on its right"),
            ("precision", setting(train.get("precision"))),
            ("seed", _seeds(story.recipe)),
            *_adapters(train.get("lora")),
        )
    )
    steps = story.training.height
    said += f"\n{number(steps)} optimizer steps on {number(story.summary.pairs)} pairs.\n"
    differing = [
        (f"`{key}`", setting(train[key]), setting(value))
        for key, value in ORIGINAL.items()
        if key in train and setting(train[key]) != setting(value)
    ]
    if length not in (None, ORIGINAL_LENGTH):
        differing.append(("`max_length`", setting(length), setting(ORIGINAL_LENGTH)))
    differing.append(("training pairs", number(story.summary.pairs), number(ORIGINAL_PAIRS)))
    differing.append(("start model", as_markdown(story.base), as_markdown("allenai/tulu-2-13b")))
    said += "\nWhere this run differs from Tulu V2.5 DPO 13B, StackExchange 60k:\n\n"
    return said + markdown_table(
        ("setting", "this model", "the original"), [row for row in differing if row[1] != row[2]]
    )


def _adapters(lora: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What was trained in the place of the whole model, where something was."""
    if lora is None:
        return []
    targets = lora["targets"] if isinstance(lora["targets"], str) else ", ".join(lora["targets"])
    return [("lora", f"rank {lora['rank']}, alpha {setting(lora['alpha'])}, on {targets}, merged into the model")]


def _loss(train: Mapping[str, Any]) -> str:
    """The loss and the settings that it alone has."""
    loss = str(train.get("loss", "sigmoid"))
    own = [key for key, owner in OF_ONE_LOSS.items() if owner == loss]
    parts = [f"{loss} loss on {reward_of(loss)}s"]
    parts += [f"{key} {setting(train[key])}" for key in (*own, "sft_weight") if train.get(key)]
    return ", ".join(parts)


def _seeds(recipe: Mapping[str, Any]) -> str:
    """`42`, or `42 (training_seed 7)` where a draw has a seed of its own."""
    own = [f"{key} {recipe[key]}" for key in ("sample_seed", "training_seed") if recipe.get(key) is not None]
    return setting(recipe.get("seed")) + (f" ({', '.join(own)})" if own else "")
