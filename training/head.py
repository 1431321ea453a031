"""The head of a language model on the positions that count: hidden states and target ids -> log-probs of the targets.

Logits exist for completion positions only, a chunk of them at a time; log-softmax is in fp32 or better.
Shapes: C completion positions, H hidden size, V vocabulary.
"""

from torch import Tensor


def completion_logps(hidden_CH: Tensor, weight_VH: Tensor, targets_C: Tensor) -> Tensor:
    """Log-prob of each target under softmax(hidden @ weight.T): (C,), fp32 or better, differentiable."""
    raise NotImplementedError
