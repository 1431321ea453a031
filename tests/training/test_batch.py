"""Batches are a function of (seed, step); packs rearrange a batch without losing or doubling a pair."""

import time
from collections import Counter
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.pairs import made_up_rows, related_rows
from training.batch import batch_indices, grouped, pack_batch, steps_per_epoch
from training.pack import Pack, Sides, Tree, make_pack
from training.rows import TokenRow

lengths = st.lists(st.tuples(*[st.integers(1, 40)] * 3), min_size=1, max_size=20)


def test_the_short_last_batch_is_dropped() -> None:
    assert steps_per_epoch(70, 32) == 2
    assert steps_per_epoch(64, 32) == 2
    assert steps_per_epoch(31, 32) == 0


def test_every_epoch_sees_each_pair_at_most_once_in_an_order_of_its_own() -> None:
    epochs = [[batch_indices(70, 32, 42, 2 * epoch + step) for step in range(2)] for epoch in range(3)]
    for steps in epochs:
        seen = [row for batch in steps for row in batch]
        assert len(seen) == len(set(seen)) == 64
        assert set(seen) <= set(range(70))
    assert len({tuple(steps[0]) for steps in epochs}) == 3


def philox(key: tuple[int, int], counter: int) -> list[int]:
    """Four draws of Philox 4x64-10 as Salmon et al. 2011 define it (Random123)."""
    words, mask = [counter, 0, 0, 0], 2**64 - 1
    k0, k1 = key
    for _ in range(10):
        p0, p1 = words[0] * 0xD2E7470EE14C6C93, words[2] * 0xCA5A826395121157
        words = [(p1 >> 64) ^ words[1] ^ k0, p1 & mask, (p0 >> 64) ^ words[3] ^ k1, p0 & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return words


def test_the_order_is_that_of_philox_draws_and_so_the_same_in_every_release() -> None:
    for epoch in range(3):
        # NumPy draws from counter 1 on.
        draws = [word for counter in (1, 2, 3) for word in philox((42, epoch), counter)][:10]
        order = sorted(range(10), key=draws.__getitem__)
        assert [*batch_indices(10, 5, 42, 2 * epoch), *batch_indices(10, 5, 42, 2 * epoch + 1)] == order


def test_a_step_needs_no_step_before_it() -> None:
    in_order = [batch_indices(23, 4, 7, step) for step in range(15)]
    backwards = [batch_indices(23, 4, 7, step) for step in reversed(range(15))]
    assert in_order == backwards[::-1]


def test_another_seed_is_another_order_a_negative_one_too() -> None:
    assert len({tuple(batch_indices(100, 100, seed, 0)) for seed in (0, 1, 2**63, -1)}) == 4


def test_fewer_pairs_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="31 pairs do not fill one batch of 32"):
        batch_indices(31, 32, 0, 0)


def test_a_pack_lays_out_a_pair_as_the_docstring_draws_it() -> None:
    pack = make_pack([TokenRow("a", [10, 11, 12, 13], [20, 21, 22, 23, 24], [30, 31, 32])], [0])
    assert pack.input_ids.tolist() == [10, 11, 12, 13, 20, 21, 22, 23, 24, 30, 31, 32]
    assert pack.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 6]
    assert pack.trees == (Tree(0, 4, (9, 12)),) and pack.sides == (Sides(0, 1),)
    # The prompt's last token predicts the first token of both answers.
    assert pack.positions.tolist() == [3, 4, 5, 6, 7, 3, 9, 10]
    assert pack.targets.tolist() == [20, 21, 22, 23, 24, 30, 31, 32]
    assert (pack.completions.chosen.tolist(), pack.completions.rejected.tolist()) == ([5], [3])


def test_pairs_of_one_question_share_its_prompt_and_the_answers_that_several_compare() -> None:
    question, first, second, third = [10, 11], [20, 21, 22], [30], [40, 41]
    rows = [
        TokenRow("a", question, first, second), TokenRow("b", [12], [50], [60, 61]),
        TokenRow("c", question, third, first), TokenRow("d", question, third, second),
    ]  # fmt: skip
    pack = make_pack(rows, [0, 1, 2, 3])
    assert pack.input_ids.tolist() == [10, 11, 20, 21, 22, 30, 40, 41, 12, 50, 60, 61]
    assert pack.position_ids.tolist() == [0, 1, 2, 3, 4, 2, 2, 3, 0, 1, 1, 2]
    assert pack.trees == (Tree(0, 2, (5, 6, 8)), Tree(8, 9, (10, 12)))
    assert pack.pairs.tolist() == [0, 2, 3, 1]
    assert pack.sides == (Sides(0, 1), Sides(2, 0), Sides(2, 1), Sides(3, 4))
    assert pack.positions.tolist() == [1, 2, 3, 1, 1, 6, 8, 8, 10]
    assert pack.targets.tolist() == [20, 21, 22, 30, 40, 41, 50, 60, 61]
    assert (pack.completions.chosen.tolist(), pack.completions.rejected.tolist()) == ([3, 2, 2, 1], [1, 3, 1, 2])


def test_pairs_are_put_together_within_the_budget_and_apart_where_ranks_would_wait() -> None:
    rows = related_rows()
    # The first question: a prompt of 5, answers of 7, 4, 3 and 66 tokens; the second 9 + 70 + 12, the third 20 + 8 + 9.
    assert [pack.tokens for pack in pack_batch(rows, 1000, 1)[0]] == [85 + 91 + 37]
    assert sorted(pack.tokens for pack in pack_batch(rows, 91, 1)[0]) == [37, 85, 91]
    # In 80 tokens its answers do not fit together: 7, 4 and 3 do, and the two pairs with that of 66 go apart.
    assert sorted(pack.tokens for pack in pack_batch(rows, 80, 1)[0]) == [19 + 37, 75, 91]
    # On two ranks, the first with the second question and the others: 91 | 85 + 37, the slowest 122.
    assert sorted(sum(pack.tokens for pack in row) for row in pack_batch(rows, 1000, 2)) == [91, 122]
    # One question of many pairs on four ranks would keep one at work; apart they take the time of a pair or two.
    (_, prompt, *_), *_ = made_up_rows([(2, 1, 1)])
    answers = [row.chosen_ids for row in made_up_rows([(1, 20, 1)] * 8, seed=5)]
    alike = [TokenRow(str(n), prompt, answers[n], answers[n + 1]) for n in range(0, 8, 2)]
    assert [sum(pack.tokens for pack in row) for row in pack_batch(alike, 1000, 4)] == [42] * 4
    assert [pack.tokens for pack in pack_batch(alike, 1000, 1)[0]] == [2 + 8 * 20]


def test_questions_are_shuffled_whole_and_batches_hold_as_many_pairs_as_ever() -> None:
    questions = (0, 1, 0, 3, 1, 0, 6, 3, 0, 1)
    order = [row for step in range(5) for row in batch_indices(10, 2, 42, step, questions)]
    assert sorted(order) == list(range(10))
    runs = [(question, len(list(rows))) for question, rows in groupby(questions[row] for row in order)]
    assert sorted(runs) == [(0, 4), (1, 3), (3, 2), (6, 1)]
    again = [row for step in range(5, 10) for row in batch_indices(10, 2, 42, step, questions)]
    assert again != order and sorted(again) == list(range(10))


def test_questions_of_one_pair_each_come_in_the_order_of_pairs() -> None:
    for step in range(6):
        assert batch_indices(20, 6, 7, step, tuple(range(20))) == batch_indices(20, 6, 7, step)


def test_an_empty_prompt_or_completion_is_refused() -> None:
    for row in (TokenRow("p", [], [1], [1]), TokenRow("c", [1], [], [1]), TokenRow("r", [1], [1], [])):
        with pytest.raises(ValueError, match=f"pair {row.pair_id} has an empty"):
            make_pack([row], [0])


def pairs_of(pack: Pack) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompt, chosen and rejected of each pair, as they are read off the layout."""
    ids = pack.input_ids.tolist()
    parts = [(ids[prompt], ids[completion]) for prompt, completion in pack.sequences()]
    found = []
    for chosen, rejected in pack.sides:
        assert parts[chosen][0] == parts[rejected][0]
        found.append((parts[chosen][0], parts[chosen][1], parts[rejected][1]))
    return found


@given(lengths, st.integers(1, 150), st.integers(1, 8), st.lists(st.integers(0, 3), min_size=60, max_size=60))
def test_packs_hold_every_pair_once_within_the_budget_and_as_many_on_every_rank(
    sizes: list[tuple[int, int, int]], budget: int, ranks: int, shared: list[int]
) -> None:
    rows = made_up_rows(sizes)
    # Some share prompts and answers, on the same side and across.
    for number, row in enumerate(rows):
        prompt, chosen, rejected = shared[3 * number : 3 * number + 3]
        others = [rows[0], rows[-1], rows[number // 2], row]
        rows[number] = row._replace(
            prompt_ids=others[prompt].prompt_ids, chosen_ids=others[chosen].rejected_ids,
            rejected_ids=others[rejected].rejected_ids,
        )  # fmt: skip
    packs = pack_batch(rows, budget, ranks)
    assert len(packs) == ranks
    assert len({len(row) for row in packs}) == 1
    assert {pack.weight for row in packs for pack in row} <= {0.0, 1.0}
    kept = [pack for row in packs for pack in row if pack.weight]
    assert Counter(int(pair) for pack in kept for pair in pack.pairs) == Counter(range(len(rows)))
    for pack in kept:
        assert pack.tokens <= budget or len(pack.pairs) == 1
        for pair, parts in zip(pack.pairs.tolist(), pairs_of(pack), strict=True):
            assert parts == rows[pair][1:]
    for pack in (pack for row in packs for pack in row if not pack.weight):
        assert pack.tokens <= 3
    assert len(packs[0]) <= -(-len(rows) // ranks)  # never more forward passes than one a pair


@given(lengths, st.integers(1, 150), st.integers(1, 8))
def test_packing_depends_on_nothing_but_its_arguments(
    sizes: list[tuple[int, int, int]], budget: int, ranks: int
) -> None:
    rows = made_up_rows(sizes)
    first, second = ([[pack.pairs.tolist() for pack in row] for row in pack_batch(rows, budget, ranks)] for _ in "ab")
    assert first == second


def test_ranks_get_like_work_from_unlike_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [
        tuple(int(n) for n in torch.exp(torch.randn(3, generator=generator) * 0.6 + 5).clamp(1, 700)) for _ in range(32)
    ]
    packs = pack_batch(made_up_rows(sizes), 2048, 8)
    work = [sum(pack.tokens for pack in row) for row in packs]
    assert sum(work) / (8 * max(work)) > 0.9
    slowest = sum(max(pack.tokens for pack in step) for step in zip(*packs, strict=True))
    assert sum(work) / (8 * slowest) > 0.85


def test_a_pack_goes_to_a_device_whole() -> None:
    pack = make_pack(made_up_rows(), [1, 2]).to("meta")
    tensors = [pack.input_ids, pack.position_ids, pack.positions, pack.targets, pack.pairs, *pack.completions]
    assert all(tensor.is_meta for tensor in tensors)
    assert pack.trees


def test_answers_that_share_a_long_prompt_see_at_most_twice_the_keys_that_a_pack_may_hold_tokens() -> None:
    # Four answers of 10 tokens behind a prompt of 100 are 140 tokens and 4 * 110 = 440 keys; three are 130 and 330.
    rows = [TokenRow(str(i), [1] * 100, [2 * i + 2] * 10, [2 * i + 3] * 10) for i in range(6)]
    assert [[pack.tokens for pack in rank] for rank in pack_batch(rows, 220, 1)] == [[140, 140, 140]]
    for budget in (110, 150, 220, 440, 1000):
        for pack in pack_batch(rows, budget, 1)[0]:
            keys = sum(prompt.stop - prompt.start + part.stop - part.start for prompt, part in pack.sequences())
            assert len(pack.pairs) == 1 or (pack.tokens <= budget and keys <= 2 * budget)


def test_a_pair_joins_the_first_of_the_groups_to_which_it_adds_least() -> None:
    a, b, c, d, e, f = ([10 * n] * tokens for n, tokens in enumerate((4, 4, 3, 2, 1, 2), 1))
    # Prompt 1, room 12. {a b} takes 9 and {c d}, which would make it 14, 6. {a e} adds 1 to the first; {d f} adds 2 to
    # the second, and would make the first 14; {e f} would add 2 to the first, and adds 1 to the second; {e d} nothing.
    pairs = [(a, b), (c, d), (a, e), (d, f), (e, f), (e, d)]
    rows = [TokenRow(str(number), [1], *pair) for number, pair in enumerate(pairs)]
    assert [(group.pairs, group.tokens) for group in grouped(rows, 12)] == [([0, 2], 10), ([1, 3, 4, 5], 9)]
    # Two groups hold c, and either has room for e.
    rows = [TokenRow(str(number), [1], *pair) for number, pair in enumerate([(c, a), (c, b), (c, e)])]
    assert [group.pairs for group in grouped(rows, 10)] == [[0, 2], [1]]


def test_thousands_of_pairs_of_one_prompt_are_grouped_in_no_time() -> None:
    # An answer compared with 8,000 others, as where all pairs of a data set have the same prompt: 4,000 groups.
    rows = [TokenRow(str(number), [1], [2], [3, number]) for number in range(8000)]
    since = time.process_time()
    groups = grouped(rows, 6)
    assert time.process_time() - since < 8  # half a second; looking at group after group takes a minute
    assert [group.pairs for group in groups] == [[number, number + 1] for number in range(0, 8000, 2)]
