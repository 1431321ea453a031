"""Train: token rows and reference log-probs -> a tuned model.

in   train/, train.parquet (reference), model/
out  model/           safetensors, tokenizer, chat template
     metrics.jsonl    one object a step, under TRL's names
"""

from tasks.manifest import Manifest
from tasks.store import Store
from training.config import TrainConfig

VERSION = 1  # bump when the bytes this stage writes would change


def train(
    store: Store, tokens: Manifest, reference: Manifest, model: Manifest, config: TrainConfig, seed: int
) -> Manifest:
    """The policy after DPO."""
    raise NotImplementedError
