"""Some pairs of a batch as the tensors of one forward pass: what they share is there once.

Layout of a pack, tree after tree. A tree is a prompt and the completions that some pairs want behind it:

    ids        p p p p a a a a a b b b c c     prompt, then each completion
    positions  0 1 2 3 4 5 6 7 8 4 5 6 4 5     every completion starts where the prompt ends

A pair alone is a tree of two completions, chosen and rejected. Pairs of one question share its prompt, and an answer
that several of them compare is one completion of the tree (tree packing).

P pairs, T tokens, K completions, C completion tokens (those that are scored).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from training.rows import TokenRow


class PairTokens(NamedTuple):
    """Completion tokens of each pair, EOS with them where it was not cut."""

    chosen: Tensor  # (P,) int64
    rejected: Tensor  # (P,) int64


class Tree(NamedTuple):
    """Where a prompt and the completions behind it stand in a pack; the prompt is [start, prompt_end)."""

    start: int
    prompt_end: int
    ends: tuple[int, ...]
    """Where each completion ends; the first starts at `prompt_end`, each further one where the one before it ends."""

    @property
    def prompt(self) -> slice:
        """Where the prompt stands."""
        return slice(self.start, self.prompt_end)

    def completions(self) -> list[slice]:
        """Where each completion stands."""
        return [slice(begin, end) for begin, end in pairwise((self.prompt_end, *self.ends))]


class Sides(NamedTuple):
    """The two completions of a pair, as numbers among those of its pack."""

    chosen: int
    rejected: int


@dataclass(frozen=True)
class Pack:
    """Some pairs of a batch, laid out for one forward pass of one rank."""

    input_ids: Tensor
    """(T,) int64."""
    position_ids: Tensor
    """(T,) int64."""
    trees: tuple[Tree, ...]
    """One a prompt."""
    positions: Tensor
    """(C,) int64: where each completion token is predicted, i.e. at the token before it in its own sequence."""
    targets: Tensor
    """(C,) int64: the completion tokens, completion after completion."""
    pairs: Tensor
    """(P,) int64: which rows of the batch these are."""
    sides: tuple[Sides, ...]
    """One a pair, in the order of `pairs`."""
    completions: PairTokens
    """How many tokens each sum of log-probs runs over."""
    weight: float
    """1, or 0 for a pack that only keeps a rank in step with the others."""

    @property
    def tokens(self) -> int:
        """Tokens that the forward pass computes."""
        return len(self.input_ids)

    def lengths(self) -> list[int]:
        """Tokens of each completion, (K,)."""
        return [part.stop - part.start for _, part in self.sequences()]

    def sequences(self) -> Iterator[tuple[slice, slice]]:
        """Prompt and completion of each of the K sequences, as places in the pack."""
        for tree in self.trees:
            for completion in tree.completions():
                yield tree.prompt, completion

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


def make_pack(rows: Sequence[TokenRow], pairs: Sequence[int]) -> Pack:
    """The `pairs` of `rows`, those of one prompt together, prompts in the order in which they first occur.

    Raises:
        ValueError: a prompt or a completion holds no token, so there is nothing to predict it from or to score.
    """
    ids: list[int] = []
    position_ids: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    trees: list[Tree] = []
    sides: list[Sides] = []
    order: list[int] = []
    completions = 0
    for members in by_prompt(rows, pairs).values():
        prompt = rows[members[0]].prompt_ids
        start = len(ids)
        prompt_end = start + len(prompt)
        ids += prompt
        position_ids += range(len(prompt))
        number: dict[tuple[int, ...], int] = {}
        ends: list[int] = []
        for pair in members:
            row = rows[pair]
            if not (row.prompt_ids and row.chosen_ids and row.rejected_ids):
                raise ValueError(f"pair {row.pair_id} has an empty prompt or completion")
            for completion in (row.chosen_ids, row.rejected_ids):
                if number.setdefault(tuple(completion), completions) < completions:
                    continue
                completions += 1
                # The prompt's last token predicts the first of every completion.
                positions += [prompt_end - 1, *range(len(ids), len(ids) + len(completion) - 1)]
                targets += completion
                ids += completion
                position_ids += range(len(prompt), len(prompt) + len(completion))
                ends.append(len(ids))
            sides.append(Sides(number[tuple(row.chosen_ids)], number[tuple(row.rejected_ids)]))
            order.append(pair)
        trees.append(Tree(start, prompt_end, tuple(ends)))
    return Pack(
        input_ids=torch.tensor(ids),
        position_ids=torch.tensor(position_ids),
        trees=tuple(trees),
        positions=torch.tensor(positions),
        targets=torch.tensor(targets),
        pairs=torch.tensor(order),
        sides=tuple(sides),
        completions=PairTokens(
            torch.tensor([len(rows[pair].chosen_ids) for pair in order]),
            torch.tensor([len(rows[pair].rejected_ids) for pair in order]),
        ),
        weight=1.0,
    )


def idle_pack(rows: Sequence[TokenRow], pair: int) -> Pack:
    """Three tokens at most, which count for nothing: the cheapest forward and backward pass that runs every layer."""
    pair_id, prompt, chosen, rejected = rows[pair]
    short = TokenRow(pair_id, prompt[:1], chosen[:1], rejected[:1])
    return replace(make_pack([short], [0]), pairs=torch.tensor([pair]), weight=0.0)


def by_prompt(rows: Sequence[TokenRow], pairs: Sequence[int]) -> dict[tuple[int, ...], list[int]]:
    """The `pairs` of `rows` of each prompt, prompts and pairs in the order in which they occur."""
    found: dict[tuple[int, ...], list[int]] = {}
    for pair in pairs:
        found.setdefault(tuple(rows[pair].prompt_ids), []).append(pair)
    return found
