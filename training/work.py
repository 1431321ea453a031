"""How much work the packs of a step are: operations, and the share of pairs with a cut answer.

Model operations come in two counts, since a shared prompt lets a run be faster with fewer of them. *Effective* are
those of the usual layout, every completion behind a prompt of its own and no padding: comparable between trainers.
*Hardware* are those that were computed. A backward pass is twice its forward pass, recompute one more.
"""

from collections.abc import Sequence

from training.config import TrainConfig
from training.devices import device_named
from training.pack import Pack, Tree
from training.rows import TokenRow
from training.shape import ModelShape

Packs = Sequence[Sequence[Pack]]
"""[rank][micro step]."""


def step_flops(shape: ModelShape | None, packs: Packs, *, recompute: bool, frozen: bool = False) -> dict[str, float]:
    """`perf/effective_flops` and `perf/hardware_flops` of a step, over all ranks; nothing for an unknown shape.

    `frozen` weights (those beside adapters, which are too small to count) have no gradient: a third of the usual work
    is not done.
    """
    if shape is None:
        return {}
    every = [pack for row in packs for pack in row]
    usual = sum(_separate_flops(shape, pack) for pack in every if pack.weight)
    computed = sum(_shared_flops(shape, tree) for pack in every for tree in pack.trees)
    passes = passes_of(recompute=False, frozen=frozen)
    computed *= passes_of(recompute=recompute, frozen=frozen)
    return {"perf/effective_flops": passes * usual, "perf/hardware_flops": computed}


def passes_of(*, recompute: bool, frozen: bool) -> int:
    """A step's work in forward passes: one, one more for the gradients of activations and of weights each."""
    return 3 + recompute - frozen


def peak_of(config: TrainConfig, device: str, ranks: int) -> float | None:
    """Operations a second of the devices of all ranks together; `device` is what the driver calls one of them."""
    if config.peak_tflops is not None:
        return config.peak_tflops * 1e12 * ranks
    known = device_named(device)
    return None if known is None else known.peak(config.precision) * ranks


def truncated_share(rows: Sequence[TokenRow], end: int | None) -> dict[str, float]:
    """`data/truncated_share`: the share of the pairs of which an answer was cut, so that it does not end in `end`."""
    if end is None:
        return {}
    cut = sum(row.chosen_ids[-1] != end or row.rejected_ids[-1] != end for row in rows)
    return {"data/truncated_share": cut / len(rows)}


def _separate_flops(shape: ModelShape, pack: Pack) -> float:
    prompts = [prompt.stop - prompt.start for prompt, _ in pack.sequences()]
    lengths = pack.lengths()
    return sum(
        shape.forward_flops(prompts[side] + lengths[side], _triangle(prompts[side] + lengths[side]), lengths[side])
        for pair in pack.sides for side in pair
    )  # fmt: skip


def _shared_flops(shape: ModelShape, tree: Tree) -> float:
    prompt, *completions = (part.stop - part.start for part in (tree.prompt, *tree.completions()))
    attended = _triangle(prompt) + sum(_triangle(length) + length * prompt for length in completions)
    return shape.forward_flops(prompt + sum(completions), attended, sum(completions))


def _triangle(tokens: int) -> float:
    """Keys that `tokens` queries see, the first of them one and each a further one."""
    return tokens * (tokens + 1) / 2
