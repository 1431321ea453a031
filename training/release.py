"""Free what DeepSpeed's optimizers hold: storage is emptied in place, since they refer to it from many sides."""

from collections.abc import Iterable
from typing import Any, Final

from torch import Tensor

# Gradients that are kept from step to step: at stage 3, at stage 1 in bf16, and offloaded at stages 1 and 2.
_GRADIENTS: Final = (
    "grad_partitions_flat_buffer", "fp32_groups_gradients_flat", "accumulated_grads_in_cpu",
    "temp_grad_buffer_for_cpu_offload", "temp_grad_buffer_for_gpu_offload",
)  # fmt: skip
# On their way back from an offloaded update.
_WEIGHTS: Final = "param_buffer_of_bit16_for_cpu_offload_groups"


def empty_gradients(optimizer: Any, masters: Iterable[Tensor]) -> None:
    """Those of `optimizer`, one of DeepSpeed's, and what it keeps for the updates of its `masters`."""
    for name in (*_GRADIENTS, _WEIGHTS):
        held = getattr(optimizer, name, None)
        if isinstance(held, Tensor):
            empty(held)
        else:
            for buffer in held.values() if isinstance(held, dict) else held or ():
                empty(buffer)
    for flat in masters:
        if flat.grad is not None:
            empty(flat.grad)


def empty(tensor: Tensor) -> None:
    """Free what `tensor` and all its views hold; of a mapped file, which is nobody's to shrink, let go."""
    storage = tensor.untyped_storage()
    if storage.resizable():
        storage.resize_(0)
    else:
        tensor.data = tensor.new_empty(0)
