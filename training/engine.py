"""DeepSpeed, and nothing but: ZeRO, mixed precision, clipping and the optimizer step.

Beside training/world.py, which joins the ranks, nothing else imports it. The caller owns the accumulation boundary:
any number of packs, then `step`.
"""

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.config import TrainConfig
from training.forward import pack_logps
from training.losses import PairLogps
from training.optimizer import Withheld, adam, updates_of
from training.pack import Pack
from training.records import Board
from training.release import empty, empty_gradients
from training.status import TrainerError
from training.zero import effective_stage, settings

MOMENTS: Final = ("exp_avg", "exp_avg_sq")


class ParameterState(NamedTuple):
    """One parameter and Adam's moments for it, whole, in fp32."""

    name: str
    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


def tensorboard(folder: Path) -> Board:
    """DeepSpeed's monitor that writes TensorBoard's files into `folder`; rank 0's writes, the others' do nothing.

    It stands apart from the engine, which would look at every pack's loss and wait for the device each time. Raises
    TrainerError of kind `recipe` where the package is missing.
    """
    if find_spec("tensorboard") is None:
        raise TrainerError(
            "recipe", "train.tensorboard asks for the package tensorboard, which is not installed: pip install it"
        )
    from deepspeed.monitor.config import TensorBoardConfig
    from deepspeed.monitor.tensorboard import TensorBoardMonitor

    place: Board = TensorBoardMonitor(
        TensorBoardConfig(enabled=True, output_path=str(folder.parent), job_name=folder.name)
    )
    return place


class Engine:
    """A model under ZeRO, and its AdamW."""

    def __init__(self, model: PreTrainedModel, config: TrainConfig, device: torch.device):
        import deepspeed

        self.device = device
        self._ranks = dist.get_world_size()
        self._rank = dist.get_rank()
        self.stage = effective_stage(config.zero_stage, config.precision)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._adam = adam(trained, config, device)
        self._max_norm = config.max_grad_norm
        self._tail_weight = config.tail_weight
        self._skips = config.nonfinite == "skip"
        self._leave_out = False
        self._norm_at_stage_0 = float("nan")
        self._withheld = Withheld(give_back=config.offload != "none")
        self._adam.register_step_pre_hook(lambda *_: self._before_update())
        self._adam.register_step_post_hook(lambda *_: self._withheld.put_back())
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=self._adam, config=settings(config, self._ranks, device.type),
            dist_init_required=False,
        )  # fmt: skip
        # Those that are trained: all of them, or the adapters.
        self._parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in self._engine.module.named_parameters() if parameter.requires_grad
        }
        if self._skips:  # a first step that is left out would leave no moments to be saved
            self._begin_moments(0)

    @property
    def names(self) -> list[str]:
        """The parameters that are trained, a shared one once, in the model's order."""
        return list(self._parameters)

    @property
    def parameters(self) -> int:
        """How many numbers are trained, on all ranks together."""
        return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in self._parameters.values())

    def logps(self, pack: Pack) -> PairLogps:
        """Summed log-probs of the completions of `pack` under the policy."""
        return pack_logps(self._engine, pack, tail_weight=self._tail_weight)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this rank's share of the loss; ranks are averaged."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float, *, leave_out: bool = False) -> float:
        """Update the policy with what `backward` has added up; returns the gradient norm before clipping.

        With `leave_out`, or where the norm is not finite and `train.nonfinite` is `skip`, weights and moments stay
        as they are and the gradients are forgotten.
        """
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._leave_out = leave_out
        self._engine.step()
        return self._norm()

    def _before_update(self) -> None:
        """Called by Adam before each group of parameters, when the gradients of all ranks are added up."""
        if self.stage == 0:
            bound = self._max_norm if self._max_norm is not None else float("inf")
            norm = nn.utils.clip_grad_norm_(self._parameters.values(), bound, error_if_nonfinite=False)
            self._norm_at_stage_0 = norm.item()
        if self._leave_out or (self._skips and not math.isfinite(self._norm())):
            self._withheld.take(self._adam)

    def _norm(self) -> float:
        return self._norm_at_stage_0 if self.stage == 0 else float(self._engine.optimizer._global_grad_norm)

    def states(self) -> Iterator[ParameterState]:
        """Every trained parameter with its moments, one at a time; all ranks iterate together, each gets all of them.

        Copy what is to outlive its turn.
        """
        for name, parameter in self._parameters.items():
            yield ParameterState(name, self.weight(name), *(self._gather(parameter, key) for key in MOMENTS))

    def weight(self, name: str) -> Tensor:
        """The fp32 master of one parameter, whole; all ranks call together."""
        return self._gather(self._parameters[name], None)

    def _gather(self, parameter: nn.Parameter, key: str | None) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        whole: Tensor
        if self.stage == 0:
            whole = parameter if key is None else self._adam.state[parameter][key]
        elif key is None:
            whole = safe_get_full_fp32_param(parameter)
        else:
            whole = safe_get_full_optimizer_state(parameter, key)
        return whole.detach()

    def forget_moments(self) -> None:
        """Free the moments and the gradients, which nobody asks for after the last step: `weight` works on, `step` and
        `states` do not."""
        for state in self._adam.state.values():
            for key in MOMENTS:
                if key in state:
                    empty(state[key])
        if self.stage > 0:
            empty_gradients(self._engine.optimizer, self._masters())
        for parameter in self._parameters.values():
            parameter.grad = None

    def close(self) -> None:
        """Free the master weights and the model too: nothing of this engine can be used any more."""
        self.forget_moments()
        for flat in self._masters():
            empty(flat)
        for parameter in self._engine.module.parameters():
            empty(parameter)
            if hasattr(parameter, "ds_tensor"):  # this rank's share of it, at stage 3
                empty(parameter.ds_tensor)

    def _masters(self) -> list[Tensor]:
        """What Adam updates: at stage 0 the parameters themselves, else this rank's share of them, in fp32."""
        if self.stage == 3:  # there the optimizer is shown a group of parameters only while it updates it
            return list(self._engine.optimizer.fp32_partitioned_groups_flat)
        return [flat for group in self._adam.param_groups for flat in group["params"]]

    def restore(self, step: int, state_of: Callable[[str], ParameterState]) -> None:
        """Set master weights and moments, and the number of updates made (`step`); all ranks call together.

        The weights that the forward pass reads must already be those (`Checkpoint.load_weights`).
        """
        self._begin_moments(step)
        for name, parameter in self._parameters.items():
            state = state_of(name)
            self._scatter(parameter, None, state.weight)
            self._scatter(parameter, "exp_avg", state.exp_avg)
            self._scatter(parameter, "exp_avg_sq", state.exp_avg_sq)

    def _begin_moments(self, updates: int) -> None:
        """Moments of zero, as Adam would make them at its first update, where there are none yet."""
        for flat in self._masters():
            if not self._adam.state[flat]:
                self._adam.state[flat] |= {key: torch.zeros_like(flat) for key in MOMENTS}
            self._adam.state[flat]["step"] = updates_of(self._adam, updates, flat.device)
        if self.stage in (1, 2):
            # What DeepSpeed does after its first step: moments become readable a parameter at a time.
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _scatter(self, parameter: nn.Parameter, key: str | None, whole: Tensor) -> None:
        from deepspeed import utils as deepspeed_utils

        if self.stage == 0:
            target = parameter.data if key is None else self._adam.state[parameter][key]
            target.copy_(whole)
        elif self.stage < 3:
            whole = whole.to(self.device)
            if key is None:
                deepspeed_utils.safe_set_full_fp32_param(parameter, whole)
            else:
                deepspeed_utils.safe_set_full_optimizer_state(parameter, whole, key)
        else:
            # The setter for whole values fails where a parameter does not divide by the ranks; this one does not.
            share = deepspeed_utils.safe_get_local_fp32_param(parameter).numel()
            mine = torch.zeros(share, device=self.device)
            given = whole.flatten()[self._rank * share : (self._rank + 1) * share]
            mine[: len(given)].copy_(given)
            if key is None:
                deepspeed_utils.safe_set_local_fp32_param(parameter, mine)
            else:
                deepspeed_utils.safe_set_local_optimizer_state(parameter, mine, key)
