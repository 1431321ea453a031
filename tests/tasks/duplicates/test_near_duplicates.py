"""From words to verified near duplicates: every step against the plainest way of doing it."""

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.duplicates import near_duplicates
from tasks.duplicates.content import content_key, key_series, normalised
from tasks.duplicates.jaccard import ShingleSets
from tasks.duplicates.minhash import Bands, Sketches, bands_for
from tasks.duplicates.near_duplicates import NearTexts, near_texts
from tasks.duplicates.shingles import blocks, shingled

WORDS = [f"word{number}" for number in range(400)]
SAID = st.lists(st.sampled_from([*WORDS[:6], "é", "½", "日本語"]), min_size=1, max_size=30).map(" ".join)
TEXTS = st.lists(SAID, min_size=1, max_size=20)


def plain_shingles(text: str) -> list[str]:
    words = text.split(" ")
    return [" ".join(words[place : place + 5]) for place in range(max(1, len(words) - 4))]


def plain_hash(shingle: str) -> int:
    base, whole = 0x9E3779B97F4A7C15, 1 << 64
    value = sum(byte * pow(base, place, whole) for place, byte in enumerate(shingle.encode())) % whole
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value ^= value >> 33
        value = value * factor % whole
    return value ^ (value >> 33)


def plain_jaccard(one: str, other: str) -> float:
    left, right = set(plain_shingles(one)), set(plain_shingles(other))
    return len(left & right) / len(left | right)


def edits(chance: random.Random, count: int) -> list[str]:
    """Texts of 12 to 150 words, half of them edits of the one before: similar from 0.3 to nearly 1."""
    texts: list[list[str]] = []
    while len(texts) < count:
        texts.append(chance.choices(WORDS, k=chance.randint(12, 150)))
        changed = list(texts[-1])
        for _ in range(max(1, round(len(changed) * chance.uniform(0.0, 0.08)))):
            changed[chance.randrange(len(changed))] = chance.choice(WORDS)
        texts.append(changed)
    return [" ".join(words) for words in texts]


@pytest.fixture
def find(tmp_path: Path):
    """The near duplicates of some normalised texts, and the texts by their numbers."""

    def search(texts: list[str], threshold: float = 0.8) -> tuple[NearTexts, dict[int, str]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        pl.DataFrame({"prompt": texts}).write_parquet(folder / "pairs.parquet")
        sketches = Sketches(folder, threshold)
        for start in range(0, len(texts), 700):  # batch by batch, as the stage does
            sketches.add({content_key(text): text for text in texts[start : start + 700]})
        rows = pl.DataFrame({"prompt": key_series(map(content_key, texts))}).with_row_index("row")
        rows = rows.with_columns(turn="row")
        near = near_texts(sketches, rows, ("prompt",), folder / "pairs.parquet", threshold)
        return near, dict(zip(near.numbers(rows["prompt"]).tolist(), texts, strict=True))

    return search


@given(TEXTS)
def test_a_shingle_has_the_hash_that_its_definition_gives(texts: list[str]) -> None:
    found = shingled(texts)
    by_text = np.split(found.hashes, found.starts[1:])
    assert [hashes.tolist() for hashes in by_text] == [[plain_hash(s) for s in plain_shingles(text)] for text in texts]


@given(TEXTS, st.integers(1, 60), st.integers(1, 5))
def test_blocks_cover_all_texts_once_and_in_order(texts: list[str], size: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.duplicates.shingles.BLOCK", size)
        patch.setattr("tasks.duplicates.shingles.TEXTS", most)
        ranges = list(blocks(texts))
    assert [place for start, stop in ranges for place in range(start, stop)] == list(range(len(texts)))
    assert all(0 < stop - start <= most for start, stop in ranges)


@given(TEXTS, st.data())
@settings(deadline=None)
def test_similarity_is_that_of_the_sets(tmp_path_factory: pytest.TempPathFactory, texts: list[str], data) -> None:
    sets = ShingleSets(tmp_path_factory.mktemp("sets") / "sets", len(texts) + 1)
    order = data.draw(st.permutations(range(len(texts))))
    half = len(texts) // 2
    for numbers in (order[:half], order[half:]):
        sets.add(np.array(numbers, dtype=np.int64), [texts[number] for number in numbers])
    sets.finish()
    edges = list(combinations(range(len(texts)), 2)) or [(0, 0)]
    left, right = np.array(edges).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.duplicates.jaccard.AT_ONCE", data.draw(st.sampled_from([1, 40, 1 << 20])))
        found = sets.similarity(left, right)
    assert found.tolist() == [plain_jaccard(texts[one], texts[other]) for one, other in edges]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_the_cut_finds_pairs_at_the_threshold_and_passes_over_those_half_as_similar(threshold: float) -> None:
    bands = bands_for(threshold)

    def shares_a_band(similarity: float) -> float:
        return 1 - (1 - similarity**bands.rows) ** bands.number

    assert shares_a_band(threshold) >= 0.998
    if threshold >= 0.7:
        assert shares_a_band(threshold / 2) < 0.6
    assert bands.number * bands.rows <= 64


def test_the_cut_at_the_default_threshold_is_known() -> None:
    # 0.8**4 = 0.4096; (1 - 0.4096)**12 = 0.0018: twelve bands of four leave less than 0.002 unseen, eleven do not.
    assert bands_for(0.8) == Bands(12, 4)


def test_bands_are_shared_as_often_as_theory_says(tmp_path: Path) -> None:
    chance = random.Random(3)
    pairs = []
    while len(pairs) < 600:  # 80 words, one changed in the middle: 71 shingles in common out of 81
        words = [f"{chance.random()}" for _ in range(80)]
        other = [*words[:40], f"{chance.random()}", *words[41:]]
        pairs += [" ".join(words), " ".join(other)]
    sketches = Sketches(tmp_path, 0.8)
    sketches.add({content_key(text): text for text in pairs})
    place = {key: at for at, key in enumerate(key_series(map(content_key, pairs)))}
    frame = sketches.finish()
    number = {text: place[key] for text, key in enumerate(frame["key"])}
    shared = 0
    for bucket in sketches.buckets(frame["entry"].to_numpy()):
        for (_,), texts in bucket.group_by("key"):
            members = {number[text] for text in texts["text"]}
            shared += sum(at % 2 == 0 and at + 1 in members for at in members)
    expected = (71 / 81) ** 4  # of a band
    assert shared / (300 * 12) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_near_duplicates_are_those_that_comparing_all_with_all_finds(find, threshold: float) -> None:
    texts = edits(random.Random(11), 1_500)
    near, said = find(texts, threshold)
    edges = zip(near.left.tolist(), near.right.tolist(), strict=True)
    found = {frozenset((said[one], said[other])) for one, other in edges}
    # Texts of unrelated words share nothing: only an edit and its original can be near.
    truth = {
        frozenset(pair)
        for pair in zip(texts[::2], texts[1::2], strict=True)
        if pair[0] != pair[1] and plain_jaccard(*pair) >= threshold
    }
    assert len(truth) > 50
    assert found <= truth  # precision: exact
    assert len(found & truth) >= 0.98 * len(truth)


def test_short_texts_are_near_only_when_they_are_the_same(find) -> None:
    near, said = find(
        ["yes", "no", "yes you can", "yes you can do", "yes you can do that", "yes you can do this", "yes"]
    )
    assert near.left.size == 0
    assert len(said) == 6


def test_a_crowd_of_form_letters_is_led_by_one_text(find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "CROWD", 20)
    letter = " ".join(WORDS[:120])
    near, said = find([f"{letter} signed {WORDS[number]}" for number in range(150)] + edits(random.Random(2), 50))
    letters = {number for number, text in said.items() if text.startswith(letter)}
    parts = near.components()
    assert len({int(parts[number]) for number in letters}) == 1
    edges = set(zip(near.left.tolist(), near.right.tolist(), strict=True))
    assert all(plain_jaccard(said[one], said[other]) >= 0.8 for one, other in edges)
    inside = [edge for edge in edges if edge[0] in letters]
    assert 149 <= len(inside) <= 149 * near_duplicates.FOLLOWS * 12  # led in each of twelve bands, not all with all


def test_numbers_do_not_depend_on_the_order_of_texts(find) -> None:
    texts = [normalised(text) for text in edits(random.Random(5), 200)]
    one, other = find(texts), find(texts[::-1])
    assert one[1] == other[1]
    assert (one[0].left.tolist(), one[0].right.tolist()) == (other[0].left.tolist(), other[0].right.tolist())


def test_the_number_of_the_empty_text_is_one_more(find) -> None:
    near, _ = find(["some words that are said", "other words that are said"])
    assert near.numbers(key_series([content_key("")])).tolist() == [2]
    assert near.shingles.tolist()[2] == 0
