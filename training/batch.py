"""From a step number to the packs of its forward passes.

Which pairs make up the global batch of a step is a function of (seed, step) alone. How they are packed, over how
many ranks and in how many forward passes, is a matter of memory and speed and changes the update by rounding only.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from training.pack import Pack, by_prompt, idle_pack, make_pack
from training.rows import TokenRow


def steps_per_epoch(pairs: int, batch_size: int) -> int:
    """Optimizer steps in one pass over `pairs` pairs; the short last batch is dropped, as the recipe's trainer does."""
    return pairs // batch_size


def batch_indices(
    pairs: int, batch_size: int, seed: int, step: int, questions: tuple[int, ...] | None = None
) -> list[int]:
    """The rows that make up the batch of `step`, counted from 0 over all epochs.

    With `questions`, the question of each row, it is these that are shuffled, and the pairs of one follow each other:
    a batch holds as many pairs as ever, its first and last question perhaps not whole.

    Raises:
        ValueError: there are fewer pairs than one batch takes.
    """
    per_epoch = steps_per_epoch(pairs, batch_size)
    if per_epoch == 0:
        raise ValueError(f"{pairs} pairs do not fill one batch of {batch_size}")
    epoch, within = divmod(step, per_epoch)
    order = _epoch_order(pairs, seed, epoch, questions)
    return [int(row) for row in order[within * batch_size : (within + 1) * batch_size]]


@lru_cache(maxsize=2)
def _epoch_order(pairs: int, seed: int, epoch: int, questions: tuple[int, ...] | None) -> npt.NDArray[np.int64]:
    # NumPy promises the stream of its bit generators for good, but not what Generator.permutation makes of it.
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    draws = np.random.Philox(key=key).random_raw(pairs)
    if questions is None:
        return np.argsort(draws, kind="stable")
    # A question is drawn by its first row, so that questions of one pair each come in the order of pairs.
    _, first, which = np.unique(np.array(questions), return_index=True, return_inverse=True)
    return np.lexsort((draws, draws[first][which]))


def pack_batch(rows: Sequence[TokenRow], tokens_per_pack: int, ranks: int) -> list[list[Pack]]:
    """The pairs of one batch as [rank][micro step] packs, as many on every rank, balanced by tokens.

    A pack holds at most `tokens_per_pack` tokens, which see at most twice as many keys, or one pair that is longer
    alone: a pair is never split. Pairs of one prompt are computed together, unless the ranks are done sooner with them
    apart. Packs of weight 0 fill up where there are fewer packs than ranks need.
    """
    shared_out = min(_ways(rows, tokens_per_pack, ranks), key=_slowest)
    shortest = min(range(len(rows)), key=lambda i: (rows[i].tokens, i))
    return [
        [make_pack(rows, _pairs(held)) if held else idle_pack(rows, shortest) for held in packs] for packs in shared_out
    ]


class _Group:
    """Pairs of one prompt that are computed together, and how many tokens that takes."""

    def __init__(self, prompt: int):
        self.pairs: list[int] = []
        self.completions: set[int] = set()
        self.tokens = self._prompt = prompt

    @property
    def room(self) -> int:
        """What a pack has to have left: the tokens, or half of the keys that they see, where those are more.

        Where keys are gathered (training/kernels.py) or prompts repeated (the padded path) each completion has a
        prompt of its own in memory: of a pair's at most twice the tokens, of a long prompt's ten answers far more.
        """
        return max(self.tokens, (self.keys + 1) // 2)

    @property
    def keys(self) -> int:
        """Tokens with the prompt once for each completion."""
        return self.tokens + (len(self.completions) - 1) * self._prompt

    def add(self, pair: int, sides: dict[int, int]) -> None:
        """Another pair, as the number and the tokens of each of its completions."""
        self.tokens += sum(tokens for side, tokens in sides.items() if side not in self.completions)
        self.completions.update(sides)
        self.pairs.append(pair)


_Packs = list[list[list[_Group]]]
"""[rank][micro step] -> what one pack holds."""


def _ways(rows: Sequence[TokenRow], tokens_per_pack: int, ranks: int) -> Iterator[_Packs]:
    """Ways to share a batch out, with ever smaller groups: what a few large ones save, ranks may lose by waiting."""
    groups = grouped(rows, tokens_per_pack)
    yield _share_out(groups, tokens_per_pack, ranks)
    if ranks > 1 and len(groups) < len(rows):
        share = sum(group.tokens for group in groups) // ranks
        for most in (share, share // 2, share // 4, 0):
            if most < tokens_per_pack:
                yield _share_out(grouped(rows, most), tokens_per_pack, ranks)


def _slowest(packs: _Packs) -> int:
    """Tokens that the slowest rank computes, summed over micro steps: ranks wait for each other after each."""
    return sum(max(map(_tokens, step)) for step in zip(*packs, strict=True))


def grouped(rows: Sequence[TokenRow], most: int) -> list[_Group]:
    """All pairs of `rows` in groups of one prompt each of `room` up to `most`, or one pair that is longer alone.

    A pair joins the group to which it adds least, the earliest of these.
    """
    prompts = by_prompt(rows, range(len(rows)))
    return [group for prompt, members in prompts.items() for group in _of_prompt(rows, len(prompt), members, most)]


def _of_prompt(rows: Sequence[TokenRow], prompt: int, members: Sequence[int], most: int) -> list[_Group]:
    number: dict[tuple[int, ...], int] = {}
    groups: list[_Group] = []
    open_groups = _OpenGroups(prompt, len(members), most)
    for pair in members:
        both = (rows[pair].chosen_ids, rows[pair].rejected_ids)
        sides = {number.setdefault(tuple(side), len(number)): len(side) for side in both}
        at = open_groups.best(sides)
        if at is None:
            groups.append(_Group(prompt))
            groups[-1].add(pair, sides)
            if groups[-1].room <= most:
                open_groups.append(groups[-1])
        else:
            open_groups.add(at, pair, sides)
    return groups


class _OpenGroups:
    """Groups of one prompt that further pairs may join. There may be thousands, so a pair looks at all in one go."""

    def __init__(self, prompt: int, pairs: int, most: int):
        self._prompt, self._most = prompt, most
        self._groups: list[_Group] = []
        self._tokens, self._keys = np.zeros((2, pairs), np.int64)  # of each group
        self._with: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))  # completion -> groups that hold it

    def best(self, sides: dict[int, int]) -> int | None:
        """The first group of those to which a pair of these completions (number -> tokens) adds least."""
        count = len(self._groups)
        tokens = np.full(count, sum(sides.values()))
        prompts = np.full(count, len(sides))
        for side, length in sides.items():
            holding = np.asarray(self._with[side])
            tokens[holding] -= length
            prompts[holding] -= 1
        keys = self._keys[:count] + tokens + prompts * self._prompt
        (fitting,) = np.nonzero((self._tokens[:count] + tokens <= self._most) & (keys <= 2 * self._most))
        return int(fitting[tokens[fitting].argmin()]) if len(fitting) else None

    def append(self, group: _Group) -> None:
        self._groups.append(group)
        self._note(len(self._groups) - 1, group.completions)

    def add(self, at: int, pair: int, sides: dict[int, int]) -> None:
        new = {side for side in sides if side not in self._groups[at].completions}
        self._groups[at].add(pair, sides)
        self._note(at, new)

    def _note(self, at: int, new: set[int]) -> None:
        self._tokens[at], self._keys[at] = self._groups[at].tokens, self._groups[at].keys
        for completion in new:
            self._with[completion].append(at)


def _share_out(groups: list[_Group], tokens_per_pack: int, ranks: int) -> _Packs:
    # From the fewest packs that could hold all tokens, or one a group where even that is too much for the budget.
    micro_steps = math.ceil(min(_room(groups) / tokens_per_pack, len(groups)) / ranks)
    bins = _fill(groups, ranks * micro_steps)
    while any(len(held) > 1 and _room(held) > tokens_per_pack for held in bins):
        micro_steps += 1
        bins = _fill(groups, ranks * micro_steps)

    # Packs of like size run at the same time; within a micro step the larger ones go to the ranks that have had less.
    bins.sort(key=lambda held: (-_tokens(held), _pairs(held)))
    load = [0] * ranks
    order: _Packs = [[] for _ in range(ranks)]
    for first in range(0, len(bins), ranks):
        for held, rank in zip(
            bins[first : first + ranks], sorted(range(ranks), key=lambda r: (load[r], r)), strict=True
        ):
            order[rank].append(held)
            load[rank] += _tokens(held)
    return order


def _fill(groups: list[_Group], bins: int) -> list[list[_Group]]:
    """Longest first, each group to the bin that holds least; a tie goes to the earliest."""
    held: list[list[_Group]] = [[] for _ in range(bins)]
    load = [0] * bins
    for group in sorted(groups, key=lambda group: (-group.tokens, group.pairs)):
        least = min(range(bins), key=lambda b: (load[b], b))
        held[least].append(group)
        load[least] += group.tokens
    return held


def _tokens(held: Sequence[_Group]) -> int:
    return sum(group.tokens for group in held)


def _room(held: Sequence[_Group]) -> int:
    return sum(group.room for group in held)


def _pairs(held: Sequence[_Group]) -> list[int]:
    return sorted(pair for group in held for pair in group.pairs)
