"""The split: exact, disjoint by unit, nested, and blind to the order of rows."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import RecipeError
from tasks.manifest import Manifest
from tasks.ordered import write_ordered
from tasks.pairs import DEDUPED_SCHEMA
from tasks.sample import SampleConfig, draw, sample
from tasks.store import Store, Workspace


def rows_of(units: list[tuple[int | None, int]]) -> pl.DataFrame:
    """One row for each (question id or None, cluster number)."""
    return pl.DataFrame(
        {
            "pair_id": [f"made/{n:04}" for n in range(len(units))],
            "site": ["a.example.com" if question is not None else None for question, _ in units],
            "question_id": [question for question, _ in units],
            "cluster": [f"cluster {cluster}" for _, cluster in units],
        },
        schema={name: DEDUPED_SCHEMA[name] for name in ("pair_id", "site", "question_id", "cluster")},
    )


UNITS = st.lists(st.tuples(st.none() | st.integers(0, 12), st.integers(0, 25)), min_size=1, max_size=80)


def linked(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Whether a question or a cluster stands on both sides."""
    questions = one.drop_nulls("question_id").join(other, on=["site", "question_id"])
    return questions.height > 0 or one.join(other, on="cluster").height > 0


@settings(max_examples=300, deadline=None)
@given(UNITS, st.integers(0, 30), st.integers(1, 60), st.integers(0, 2**63))
def test_a_draw_is_exact_and_divides_no_unit_or_says_what_is_missing(units, held_out, size, seed):
    rows = rows_of(units)
    try:
        train, held = draw(rows, SampleConfig(size=size, held_out=held_out), seed)
    except RecipeError as error:
        if held_out > rows.height:
            assert f"sample.held_out asks for {held_out} pairs" in str(error) and f"there are {rows.height};" in str(
                error
            )
        else:
            assert f"sample.size asks for {size} train pairs" in str(error)
        return
    assert (train.height, held.height) == (size, held_out)
    assert pl.concat([train, held])["pair_id"].is_unique().all()
    assert not linked(train, held)


@settings(max_examples=100, deadline=None)
@given(UNITS, st.integers(0, 10), st.integers(0, 2**63), st.randoms())
def test_the_order_of_rows_changes_nothing(units, held_out, seed, random):
    rows = rows_of(units)
    config = SampleConfig(size=1, held_out=held_out)
    shuffled = list(range(rows.height))
    random.shuffle(shuffled)
    try:
        one = draw(rows, config, seed)
    except RecipeError as error:
        with pytest.raises(RecipeError, match="^" + str(error).replace("(", r"\(").split(";")[0]):
            draw(rows[shuffled], config, seed)
        return
    two = draw(rows[shuffled], config, seed)
    assert one[0].equals(two[0]) and one[1].equals(two[1])


@settings(max_examples=100, deadline=None)
@given(UNITS, st.integers(0, 10), st.integers(0, 2**63))
def test_a_smaller_sample_is_the_head_of_a_larger_one_and_held_out_pairs_do_not_move(units, held_out, seed):
    rows = rows_of(units)
    try:
        everything, held = draw(rows, SampleConfig(size=None, held_out=held_out), seed)
    except RecipeError:
        return
    for size in {1, everything.height // 2 or 1, everything.height}:
        train, same = draw(rows, SampleConfig(size=size, held_out=held_out), seed)
        assert train.equals(everything.head(size)) and same.equals(held)
    with pytest.raises(RecipeError, match=f"there are {everything.height} to train on"):
        draw(rows, SampleConfig(size=everything.height + 1, held_out=held_out), seed)


def test_another_draw_of_the_train_pairs_leaves_the_held_out_ones_where_they_are(tmp_path: Path):
    rows = rows_of([(number // 2, number) for number in range(120)])
    config = SampleConfig(size=30, held_out=20)
    (train, held), (other, same) = draw(rows, config, 42), draw(rows, config, 42, 7)
    assert same.equals(held) and not linked(other, same)
    assert set(other["pair_id"]) != set(train["pair_id"]) and other.height == 30
    assert draw(rows, config, 42, 42)[0].equals(train)


def test_the_rest_of_the_unit_that_overshoots_goes_nowhere():
    rows = rows_of([(question, question) for question in range(6) for _ in range(4)])
    train, held = draw(rows, SampleConfig(size=None, held_out=6), seed=5)
    assert held.group_by("question_id").len()["len"].sort().to_list() == [2, 4]
    assert train.height == 24 - 8  # two of the twenty-four are neither


def test_a_question_and_a_cluster_chain_into_one_unit():
    # 0 and 1 share question 1, 1 and 2 share cluster 8, 2 and 3 share question 2: one unit of four.
    rows = rows_of([(1, 7), (1, 8), (2, 8), (2, 9), (3, 10)])
    for seed in range(20):
        train, held = draw(rows, SampleConfig(size=1, held_out=1), seed)
        assert {train["question_id"].item() == 3, held["question_id"].item() == 3} == {True, False}


def test_units_are_drawn_by_unit_not_by_their_number_of_pairs():
    # One question with nine pairs beside nine with one: held out first in a tenth of the seeds, not in half.
    rows = rows_of([(0, 0)] * 9 + [(n, n) for n in range(1, 10)])
    first = [draw(rows, SampleConfig(size=1, held_out=1), seed)[1]["question_id"].item() for seed in range(300)]
    assert 10 <= first.count(0) <= 60


@pytest.fixture
def deduped(tmp_path: Path) -> Manifest:
    def build(work: Workspace) -> dict[str, int]:
        rows = rows_of([(n // 3, n // 3) for n in range(120)])
        texts = {name: pl.format(f"{name} of {{}}", "pair_id") for name in ("prompt", "chosen", "rejected")}
        missing = {
            name: pl.lit(None, kind) for name, kind in DEDUPED_SCHEMA.items() if name not in {*rows.columns, *texts}
        }
        frame = rows.with_columns(**texts, **missing).select(DEDUPED_SCHEMA.names())
        frame.write_parquet(work.folder / "pairs.parquet")
        return {"pairs": 120, "kept": 120}

    return Store(tmp_path).stage("dedupe", 1, {}, {}, build)


def test_the_stage_writes_what_was_drawn_and_its_counts_add_up(deduped: Manifest, tmp_path: Path):
    done = sample(Store(tmp_path), deduped, SampleConfig(size=50, held_out=20), seed=42)
    train, held = (pl.read_parquet(done.path(f"{name}.parquet")) for name in ("train", "held_out"))
    assert done.counts == {"kept": 120, "train": 50, "held_out": 20, "not_sampled": 50}
    assert (train.height, held.height) == (50, 20)
    assert train.schema == held.schema == DEDUPED_SCHEMA
    assert not linked(train, held)
    for frame in (train, held):
        assert (frame["prompt"] == pl.select(pl.lit("prompt of ") + frame["pair_id"]).to_series()).all()

    def again(**config: Any) -> Manifest:
        return sample(Store(tmp_path), deduped, SampleConfig(**config), seed=42)

    assert again(size=30, held_out=20).files["held_out.parquet"] == done.files["held_out.parquet"]
    assert again(size=None, held_out=0).counts == {"kept": 120, "train": 120, "held_out": 0, "not_sampled": 0}


def test_a_sample_is_found_again_where_its_draw_has_no_seed_of_its_own(deduped: Manifest, tmp_path: Path):
    store, config = Store(tmp_path), SampleConfig(size=2, held_out=1)
    plain = sample(store, deduped, config, 42)
    assert sample(store, deduped, config, 42, 42).reused and "train_seed" not in plain.config
    other = sample(store, deduped, config, 42, 7)
    assert not other.reused and other.fingerprint != plain.fingerprint
    assert other.files["held_out.parquet"] == plain.files["held_out.parquet"]


def test_too_few_pairs_name_the_key_what_was_asked_and_what_there_is(deduped: Manifest, tmp_path: Path):
    with pytest.raises(RecipeError, match=r"sample\.held_out asks for 121 pairs, but after dedupe there are 120"):
        sample(Store(tmp_path), deduped, SampleConfig(size=1, held_out=121), seed=42)
    with pytest.raises(RecipeError, match=r"sample\.size asks for 100 train pairs, .* there are 90 to train on"):
        sample(Store(tmp_path), deduped, SampleConfig(size=100, held_out=30), seed=42)
    assert not list((tmp_path / "store").glob("sample-*"))


@pytest.mark.parametrize("held_out", [0, 5])
def test_no_pairs_at_all_are_too_few_pairs_and_no_crash(held_out: int, tmp_path: Path):
    def build(work: Workspace) -> dict[str, int]:
        work.partial.joinpath("scratch").mkdir()
        DEDUPED_SCHEMA.to_frame().write_parquet(work.partial / "none.parquet")
        order = np.empty(0, dtype=np.int64)
        target = work.folder / "pairs.parquet"
        write_ordered(work.partial / "none.parquet", target, order, DEDUPED_SCHEMA, work.partial / "scratch")
        return {"pairs": 0, "kept": 0}

    nothing = Store(tmp_path).stage("dedupe", 1, {}, {}, build)
    for size in (None, 10):
        with pytest.raises(RecipeError, match=r"there are 0\b|of the 0 pairs"):
            sample(Store(tmp_path), nothing, SampleConfig(size=size, held_out=held_out), seed=42)
