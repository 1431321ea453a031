"""AdamW for the parameters that are trained, and how a step of it is left out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.config import TrainConfig
from training.status import TrainerError


def adam(trained: Sequence[nn.Parameter], config: TrainConfig, device: torch.device) -> Optimizer:
    """PyTorch's, or DeepSpeed's for a host that keeps the states of a GPU's training (`train.offload`).

    Raises TrainerError of kind `recipe` where the latter cannot be compiled.
    """
    given: dict[str, Any] = {
        "lr": config.learning_rate, "betas": config.adam_betas, "eps": config.adam_eps,
        "weight_decay": config.weight_decay,
    }  # fmt: skip
    if config.offload == "none" or device.type == "cpu":
        return torch.optim.AdamW(trained, fused=True, **given)
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    try:
        hosts: Optimizer = DeepSpeedCPUAdam(trained, adamw_mode=True, **given)
    except Exception as error:  # a compiler fails in every way
        raise TrainerError(
            "recipe",
            "train.offload optimizer asks for DeepSpeed's Adam for CPUs, which is compiled at its first use, and that"
            f" failed ({_root(error)}): install a C++ compiler and ninja, or set train.offload to none",
        ) from error
    return hosts


def updates_of(optimizer: Optimizer, updates: int, device: torch.device) -> Tensor | int:
    """The number of updates as `optimizer` keeps it beside the moments: DeepSpeed's hands an int to C++."""
    return torch.tensor(float(updates), device=device) if isinstance(optimizer, torch.optim.AdamW) else updates


class Withheld:
    """Gradients that are taken from an optimizer before its update and, where they have a place to stay, given back.

    An optimizer passes over a parameter without a gradient and leaves its moments alone. Offloaded gradients lie in
    buffers that DeepSpeed fills again at the next step, and looks for where they were.
    """

    def __init__(self, *, give_back: bool):
        self._give_back = give_back
        self._held: list[tuple[nn.Parameter, Tensor]] = []

    def take(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if self._give_back and parameter.grad is not None:
                    self._held.append((parameter, parameter.grad))
                parameter.grad = None

    def put_back(self) -> None:
        for parameter, grad in self._held:
            parameter.grad = grad
        self._held.clear()


def _root(error: BaseException) -> str:
    cause = error.__cause__ or error
    return next(iter(str(cause).splitlines()), type(cause).__name__)
