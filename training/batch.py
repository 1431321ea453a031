"""From a step number to the tensors of its forward passes.

Which pairs make up the global batch of a step is a function of (seed, step) alone. How they are packed, over how
many ranks and in how many forward passes, is a matter of memory and speed and changes the update by rounding only.

Layout of a pack, pair after pair, with the prompt there once:

    ids        p p p p c c c c c r r r     prompt, chosen, rejected
    positions  0 1 2 3 4 5 6 7 8 4 5 6     the rejected completion starts again where the prompt ends

P pairs, T tokens, C completion tokens (those that are scored).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.rows import TokenRow


class PairTokens(NamedTuple):
    """Completion tokens of each pair, EOS with them where it was not cut."""

    chosen: Tensor  # (P,) int64
    rejected: Tensor  # (P,) int64


class Segment(NamedTuple):
    """Where one pair stands in its pack: prompt is [start, prompt_end), chosen [prompt_end, chosen_end), and so on."""

    start: int
    prompt_end: int
    chosen_end: int
    rejected_end: int


@dataclass(frozen=True)
class Pack:
    """Some pairs of a batch, laid out for one forward pass of one rank."""

    input_ids: Tensor
    """(T,) int64."""
    position_ids: Tensor
    """(T,) int64."""
    segments: tuple[Segment, ...]
    """One a pair."""
    positions: Tensor
    """(C,) int64: where each completion token is predicted, i.e. at the token before it in its own sequence."""
    targets: Tensor
    """(C,) int64: the completion tokens, each pair's chosen ones and then its rejected ones."""
    pairs: Tensor
    """(P,) int64: which rows of the batch these are."""
    completions: PairTokens
    """How many tokens each sum of log-probs runs over."""
    weight: float
    """1, or 0 for a pack that only keeps a rank in step with the others."""

    @property
    def tokens(self) -> int:
        """Tokens that the forward pass computes."""
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> "Pack":
        """The same pack with its tensors on `device`."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            positions=self.positions.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            pairs=self.pairs.to(device, non_blocking=True),
            completions=PairTokens(*(n.to(device, non_blocking=True) for n in self.completions)),
        )


def steps_per_epoch(pairs: int, batch_size: int) -> int:
    """Optimizer steps in one pass over `pairs` pairs; the short last batch is dropped, as the recipe's trainer does."""
    return pairs // batch_size


def batch_indices(pairs: int, batch_size: int, seed: int, step: int) -> list[int]:
    """The rows that make up the batch of `step`, counted from 0 over all epochs.

    Raises:
        ValueError: there are fewer pairs than one batch takes.
    """
    per_epoch = steps_per_epoch(pairs, batch_size)
    if per_epoch == 0:
        raise ValueError(f"{pairs} pairs do not fill one batch of {batch_size}")
    epoch, within = divmod(step, per_epoch)
    order = _epoch_order(pairs, seed, epoch)
    return [int(row) for row in order[within * batch_size : (within + 1) * batch_size]]


@lru_cache(maxsize=2)
def _epoch_order(pairs: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    # NumPy promises the stream of its bit generators for good, but not what Generator.permutation makes of it.
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(pairs), kind="stable")


def pack_batch(rows: Sequence[TokenRow], tokens_per_pack: int, ranks: int) -> list[list[Pack]]:
    """The pairs of one batch as [rank][micro step] packs, as many on every rank, balanced by tokens.

    A pack holds at most `tokens_per_pack` tokens, or one pair that is longer alone: a pair is never split. Packs of
    weight 0 fill up where there are fewer packs than ranks need.
    """
    tokens = [row.tokens for row in rows]
    # From the fewest packs that could hold all tokens, or one a pair where even that is too much for the budget.
    micro_steps = math.ceil(min(sum(tokens) / tokens_per_pack, len(rows)) / ranks)
    bins = _fill(tokens, ranks * micro_steps)
    while any(len(held) > 1 and sum(tokens[i] for i in held) > tokens_per_pack for held in bins):
        micro_steps += 1
        bins = _fill(tokens, ranks * micro_steps)

    # Ranks wait for each other after every micro step, so packs of like size run at the same time; within a
    # micro step the larger ones go to the ranks that have had less.
    bins.sort(key=lambda held: (-sum(tokens[i] for i in held), held))
    load = [0] * ranks
    order: list[list[list[int]]] = [[] for _ in range(ranks)]
    for first in range(0, len(bins), ranks):
        for held, rank in zip(
            bins[first : first + ranks], sorted(range(ranks), key=lambda r: (load[r], r)), strict=True
        ):
            order[rank].append(held)
            load[rank] += sum(tokens[i] for i in held)
    shortest = min(range(len(rows)), key=lambda i: (tokens[i], i))
    return [[make_pack(rows, held) if held else _idle_pack(rows, shortest) for held in packs] for packs in order]


def _fill(tokens: list[int], bins: int) -> list[list[int]]:
    """Longest first, each pair to the bin that holds least; a tie goes to the earliest."""
    held: list[list[int]] = [[] for _ in range(bins)]
    load = [0] * bins
    for pair in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        least = min(range(bins), key=lambda b: (load[b], b))
        held[least].append(pair)
        load[least] += tokens[pair]
    return [sorted(pairs) for pairs in held]


def make_pack(rows: Sequence[TokenRow], pairs: Sequence[int]) -> Pack:
    """The `pairs` of `rows` side by side.

    Raises:
        ValueError: a prompt or a completion holds no token, so there is nothing to predict it from or to score.
    """
    ids: list[int] = []
    position_ids: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    segments: list[Segment] = []
    for pair in pairs:
        pair_id, prompt, chosen, rejected = rows[pair]
        if not (prompt and chosen and rejected):
            raise ValueError(f"pair {pair_id} has an empty prompt or completion")
        start = len(ids)
        prompt_end = start + len(prompt)
        chosen_end = prompt_end + len(chosen)
        ids += prompt + chosen + rejected
        position_ids += range(len(prompt) + len(chosen))
        position_ids += range(len(prompt), len(prompt) + len(rejected))
        # The prompt's last token predicts the first of both completions.
        positions += [*range(prompt_end - 1, chosen_end - 1), prompt_end - 1, *range(chosen_end, len(ids) - 1)]
        targets += chosen + rejected
        segments.append(Segment(start, prompt_end, chosen_end, len(ids)))
    return Pack(
        input_ids=torch.tensor(ids),
        position_ids=torch.tensor(position_ids),
        segments=tuple(segments),
        positions=torch.tensor(positions),
        targets=torch.tensor(targets),
        pairs=torch.tensor(list(pairs)),
        completions=PairTokens(
            torch.tensor([s.chosen_end - s.prompt_end for s in segments]),
            torch.tensor([s.rejected_end - s.chosen_end for s in segments]),
        ),
        weight=1.0,
    )


def _idle_pack(rows: Sequence[TokenRow], pair: int) -> Pack:
    """Three tokens that count for nothing: the cheapest forward and backward pass that runs every layer."""
    pair_id, prompt, chosen, rejected = rows[pair]
    short = TokenRow(pair_id, prompt[:1], chosen[:1], rejected[:1])
    return replace(make_pack([short], [0]), pairs=torch.tensor([pair]), weight=0.0)
