"""Dedupe, driven as the pipeline drives it: a pairs.parquet in, a stage folder out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedupe import REASONS, DedupeConfig, dedupe
from tasks.duplicates.content import content_key, key_series
from tasks.duplicates.exact_duplicates import exact_reasons, keyed_rows, text_keys
from tasks.manifest import Manifest, total
from tasks.pairs import DEDUPED_SCHEMA, PAIR_SCHEMA
from tasks.store import Store, Workspace

MakePairs = Callable[..., Manifest]


def pair(name: str, prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    """A pair of a source without ids, unless `name` is SITE/QUESTION/CHOSEN/REJECTED."""
    row: dict[str, Any] = dict.fromkeys(PAIR_SCHEMA.names())
    row |= {"pair_id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected, "tags": ["a", "b"]}
    parts = name.split("/")
    if len(parts) == 4:
        row |= {
            "site": parts[0],
            "question_id": int(parts[1]),
            "chosen_id": int(parts[2]),
            "rejected_id": int(parts[3]),
        }
    return row | more


@pytest.fixture
def paired(tmp_path: Path) -> MakePairs:
    """The manifest of a pair stage whose pairs.parquet has these rows, in this order."""

    def make(rows: list[dict[str, Any]], work: str = "work", row_group: int = 1000) -> Manifest:
        def build(space: Workspace) -> dict[str, int]:
            frame = pl.DataFrame(rows, schema=PAIR_SCHEMA)
            frame.write_parquet(space.folder / "pairs.parquet", row_group_size=row_group)
            return {"pairs": len(rows)}

        return Store(tmp_path / work).stage("pair", 1, {}, {}, build)

    return make


def run(
    pairs: Manifest, seed: int = 1, **config: Any
) -> tuple[Manifest, pl.DataFrame, dict[str, tuple[str, str | None]]]:
    """The manifest, the kept pairs, and for each dropped pair_id its reason and kept_pair_id."""
    done = dedupe(Store(pairs.folder.parent.parent), pairs, DedupeConfig(**config), seed)
    dropped = pl.read_parquet(done.path("dropped.parquet"))
    assert dropped.columns == ["pair_id", "reason", "place", "kept_pair_id"]
    verdicts = {row["pair_id"]: (row["reason"], row["kept_pair_id"]) for row in dropped.iter_rows(named=True)}
    assert done.counts["pairs"] == pairs.counts["pairs"] == done.counts["kept"] + total(done.counts, "dropped")
    assert dropped.height == total(done.counts, "dropped")
    return done, pl.read_parquet(done.path("pairs.parquet")), verdicts


ONE_EACH = [
    pair("beer.example.com/1/2/3", "Why is it flat?", "Because of x.", "No idea."),
    pair("made/identical", "Why is it flat?", "The  SAME", "the same"),
    pair("made/no-prompt", " \n", "Something.", "Else."),
    pair("made/no-chosen", "What now?", "\t", "Else."),
    pair("made/no-rejected", "What now?", "Something.", "  "),
    pair("made/there", "Tea or coffee?", "Tea.", "Coffee."),
    pair("made/back", "Tea or coffee?", "Coffee.", "Tea."),
    pair("made/twice-a", "Straße?", "Ja, die \ufb01ne.", "Nein."),
    pair("made/twice-b", "  STRASSE? ", "ja,\n\ndie fine.", "NEIN."),
]


def test_each_fault_is_dropped_with_its_own_reason(paired: MakePairs) -> None:
    done, kept, verdicts = run(paired(ONE_EACH), exact=True, near=False)
    twice = {"made/twice-a", "made/twice-b"}
    (stays,) = twice & set(kept["pair_id"])
    (goes,) = twice - {stays}
    assert verdicts == {
        "made/identical": ("identical_sides", None),
        "made/no-prompt": ("empty_prompt", None),
        "made/no-chosen": ("empty_side", None),
        "made/no-rejected": ("empty_side", None),
        "made/there": ("contradictory", None),
        "made/back": ("contradictory", None),
        goes: ("exact_duplicate", stays),
    }
    assert kept["pair_id"].to_list() == sorted(["beer.example.com/1/2/3", stays])
    assert kept.schema == DEDUPED_SCHEMA
    assert {f"dropped.{reason}" for reason in REASONS} <= set(done.counts)
    place = dict(pl.read_parquet(done.path("dropped.parquet")).select("pair_id", "place").iter_rows())
    assert place["made/identical"] == "made/identical"


def test_nothing_is_dropped_when_the_recipe_says_so(paired: MakePairs) -> None:
    done, kept, verdicts = run(paired(ONE_EACH), exact=False, near=False)
    assert verdicts == {}
    assert kept["pair_id"].to_list() == sorted(row["pair_id"] for row in ONE_EACH)
    assert done.counts["kept"] == len(ONE_EACH)


def test_the_keeper_depends_on_the_seed_and_on_nothing_else(paired: MakePairs) -> None:
    rows = [pair(f"made/{n:02}", "Same?", "Yes.", "No.") for n in range(20)]
    keepers = set()
    for seed in range(8):
        _, kept, verdicts = run(paired(rows), seed=seed, near=False)
        assert {keeper for _, keeper in verdicts.values()} == set(kept["pair_id"])
        keepers.add(kept["pair_id"].item())
    assert len(keepers) > 2


def test_two_rows_of_one_id_leave_one_whatever_the_recipe_says(paired: MakePairs) -> None:
    old = pair("beer.example.com/1/2/3", "Why?", "Because.", "No.", chosen_score=3)
    new = pair("beer.example.com/1/2/3", "Why?", "Because.", "No.", chosen_score=5)
    other = pair("beer.example.com/1/2/4", "Why?", "Because.", "Perhaps.")
    for exact in (True, False):
        forth = run(paired([old, other, new], f"forth-{exact}"), exact=exact, near=False)
        back = run(paired([new, other, old], f"back-{exact}"), exact=exact, near=False)
        assert forth[2] == {"beer.example.com/1/2/3": ("duplicate_id", "beer.example.com/1/2/3")}
        assert forth[0].files == back[0].files


def test_a_keeper_that_goes_itself_passes_on_to_the_one_that_stays(paired: MakePairs) -> None:
    rows = [
        pair("b.example.com/1/2/3", "Why?", "So.", "No."),
        pair("b.example.com/1/2/3", "Why?", "So.", "No.", site="x"),
    ]
    rows += [pair(f"b.example.com/{n}/8/9", "WHY?", "so.", "no.") for n in range(2, 12)]
    _, kept, verdicts = run(paired(rows), near=False)
    stays = kept["pair_id"].item()
    assert stays != "b.example.com/1/2/3", "choose another seed: the doubled row is to go"
    assert {keeper for _, keeper in verdicts.values()} == {stays}


def test_pairs_of_one_question_or_one_prompt_share_a_cluster(paired: MakePairs) -> None:
    rows = [
        pair("a.example.com/1/2/3", "How to stir?", "Slowly.", "Fast."),
        pair("a.example.com/1/2/4", "How to stir?", "Slowly.", "Never."),
        pair("b.example.com/1/2/3", "Another question of the same number.", "Yes.", "No."),
        pair("b.example.com/7/8/9", "how to  STIR?", "With a spoon.", "No."),  # asked again on another site
        pair("b.example.com/7/8/10", "Edited since: how to whisk?", "With a whisk.", "No."),  # the same question id
        pair("made/alone", "How to bake?", "Hot.", "Cold."),
    ]
    _, kept, _ = run(paired(rows), near=False)
    clusters = dict(kept.select("pair_id", "cluster").iter_rows())
    first = "a.example.com/1/2/3"
    assert clusters == {
        first: first,
        "a.example.com/1/2/4": first,
        "b.example.com/7/8/9": first,
        "b.example.com/7/8/10": first,
        "b.example.com/1/2/3": "b.example.com/1/2/3",
        "made/alone": "made/alone",
    }


def test_a_cluster_bears_the_name_of_a_pair_that_stays(paired: MakePairs) -> None:
    rows = [pair("a/0", "Q?", "Yes.", "Yes."), pair("a/1", "Q?", "Yes.", "No."), pair("a/2", "Q?", "Yes.", "Maybe.")]
    _, kept, _ = run(paired(rows), near=False)
    assert kept["cluster"].to_list() == ["a/1", "a/1"]


def test_other_order_and_other_row_groups_give_the_same_bytes(paired: MakePairs) -> None:
    rows = ONE_EACH + [pair(f"x.example.com/{n % 7}/{n}/9", f"Q{n % 5}?", f"A{n % 3}", f"B{n % 2}") for n in range(60)]
    one = run(paired(rows, "one"), near=False)[0]
    two = run(paired(rows[::-1], "two", row_group=7), near=False)[0]
    assert one.files == two.files
    assert one.counts["dropped.exact_duplicate"] > 0


SHORT = st.sampled_from(["", " ", "a", "A", "b", "B ", "c"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(SHORT, SHORT, SHORT), min_size=1, max_size=14), st.integers(0, 9))
def test_what_stays_says_each_thing_once_and_contradicts_nothing(said: list[tuple[str, str, str]], seed: int) -> None:
    ids = [f"made/{place:02}" for place in range(len(said))]
    plain = {name: tuple(text.strip().lower() for text in texts) for name, texts in zip(ids, said, strict=True)}
    frame = pl.DataFrame({"pair_id": ids}).with_row_index("row")
    keys = {
        name: key_series([content_key(texts[at]) for texts in plain.values()])
        for at, name in enumerate(("prompt", "chosen", "rejected"))
    }
    rows = frame.with_columns(**keys)
    judged = exact_reasons(rows, seed)
    reasons = {
        ids[row]: (reason, None if keeper is None else ids[keeper]) for row, reason, keeper in judged.iter_rows()
    }
    kept = {name: texts for name, texts in plain.items() if name not in reasons}
    assert len(set(kept.values())) == len(kept)
    assert all(prompt and chosen and rejected and chosen != rejected for prompt, chosen, rejected in kept.values())
    turned = {(prompt, rejected, chosen) for prompt, chosen, rejected in plain.values()}
    assert not turned & set(kept.values())
    for name, (reason, keeper) in reasons.items():
        prompt, chosen, rejected = plain[name]
        expected = (
            "identical_sides" if chosen == rejected
            else "empty_prompt" if not prompt
            else "empty_side" if not chosen or not rejected
            else "contradictory" if plain[name] in turned
            else "exact_duplicate"
        )  # fmt: skip
        assert reason == expected
        assert keeper is None or kept[keeper] == plain[name]
        assert (keeper is None) == (reason != "exact_duplicate")


@pytest.mark.parametrize("near", [False, True])
def test_no_pairs_at_all_is_no_error(paired: MakePairs, near: bool) -> None:
    done, kept, verdicts = run(paired([]), near=near)
    assert (done.counts["pairs"], kept.height, verdicts) == (0, 0, {})
    assert kept.schema == DEDUPED_SCHEMA


def test_what_is_kept_of_each_row_does_not_hold_on_to_its_texts(tmp_path: Path) -> None:
    rows = [pair(f"a.example.com/{n}/1/2", f"{n} " * 300, f"{n}. " * 300, f"{n}! " * 300) for n in range(6_000)]
    pl.DataFrame(rows, schema=PAIR_SCHEMA).write_parquet(tmp_path / "pairs.parquet")
    before = pa.total_allocated_bytes()
    kept = keyed_rows(tmp_path / "pairs.parquet", text_keys(tmp_path / "pairs.parquet"))
    assert kept.height == 6_000
    assert pa.total_allocated_bytes() - before < 1 << 20  # of 25 MB of text
