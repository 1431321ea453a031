"""Token rows made up for tests, and the plainest way to score them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from training.losses import PairLogps
from training.pack import Pack
from training.rows import TokenRow

VOCABULARY = 97

# Lengths of prompt, chosen and rejected: equal and unequal sides, one token each, more than one block of attention.
LENGTHS = [(5, 7, 4), (1, 1, 1), (9, 3, 12), (2, 8, 8), (70, 90, 131), (4, 1, 6), (30, 66, 2), (12, 5, 5)]


def made_up_rows(lengths: Sequence[tuple[int, int, int]] = LENGTHS, seed: int = 0) -> list[TokenRow]:
    """Rows of random ids with these lengths."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    return [TokenRow(f"made.up/{i}/1/2", ids(p), ids(c), ids(r)) for i, (p, c, r) in enumerate(lengths)]


def related_rows() -> list[TokenRow]:
    """Seven pairs of three questions: of four answers to the first, the second is compared four times."""
    parts = made_up_rows([(5, 7, 4), (1, 3, 66), (9, 70, 12), (20, 8, 9)], seed=1)
    (_, first, a, b), (_, _, c, d), (_, second, e, f), (_, third, g, h) = parts
    pairs = [(first, a, b), (second, e, f), (first, b, c), (third, g, h), (first, d, b), (first, a, c), (first, b, d)]
    return [TokenRow(f"made.up/{number}", *pair) for number, pair in enumerate(pairs)]


def plain_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model as transformers loads it, with the attention that is written out step by step."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")


def plain_logps(model: torch.nn.Module, row: TokenRow) -> tuple[Tensor, Tensor]:
    """Log-prob of each token of both completions: one unpadded sequence at a time, log-softmax, gather."""
    sides = []
    for completion in (row.chosen_ids, row.rejected_ids):
        ids = torch.tensor([row.prompt_ids + completion])
        logits = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
        sides.append(logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0])
    return sides[0], sides[1]


def plain_sums(model: torch.nn.Module, rows: Sequence[TokenRow]) -> PairLogps:
    """Summed log-probs of all rows, (rows,) each."""
    sums = [[side.sum() for side in plain_logps(model, row)] for row in rows]
    return PairLogps(torch.stack([s[0] for s in sums]), torch.stack([s[1] for s in sums]))


def in_batch_order(packs: Sequence[Pack], values: Sequence[Tensor]) -> Tensor:
    """What was computed pack by pack, in the order of the batch; packs of weight 0 left out."""
    kept = [(pack, value) for pack, value in zip(packs, values, strict=True) if pack.weight]
    order = torch.cat([pack.pairs for pack, _ in kept]).argsort()
    return torch.cat([value for _, value in kept])[order]
