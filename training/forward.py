"""One forward pass for policy and reference: a pack of pairs -> the summed log-probs of its completions."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from training.batch import Pack
from training.config import Precision
from training.losses import PairLogps


def load_model(folder: Path, *, precision: Precision, device: torch.device | str) -> PreTrainedModel:
    """The causal language model in `folder`, without dropout, ready for `pack_logps`; in training mode."""
    raise NotImplementedError


def pack_logps(model: nn.Module, pack: Pack, *, tail_weight: float = 1.0) -> PairLogps:
    """Summed log-probs of the completions of `pack` under `model`, which may be wrapped by a DeepSpeed engine.

    Completion tokens beyond the length of the shorter side count `tail_weight` (LD-DPO; 1 for every other loss).
    Values are fp32, (P,) each, on the model's device, and differentiable; `pack` must be on that device.
    """
    raise NotImplementedError
