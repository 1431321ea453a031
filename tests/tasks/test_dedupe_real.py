"""Near duplicates of a real site, where texts come back every year: found against a search without MinHash."""

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest

from tasks.dedupe import DedupeConfig, dedupe
from tasks.duplicates.content import normalised
from tasks.duplicates.near_pairs import NEAR_REASONS
from tasks.ingest import SourceConfig, ingest_source
from tasks.manifest import Manifest, total
from tasks.pair import PairConfig, pair
from tasks.store import Store

SITE = "bicycles.meta.stackexchange.com"
ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "stackexchange" / SITE / f"{SITE}.7z"
Edges = dict[frozenset[str], float]

pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE.name} is not beside the checkout")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    store = Store(tmp_path_factory.mktemp("real"))
    source = ingest_source(store, SourceConfig(path=str(ARCHIVE)))
    pairs = pair(store, [source], PairConfig(), 42)
    return pairs, dedupe(store, pairs, DedupeConfig(near=True, threshold=0.8), 42)


def shingles(text: str) -> frozenset[str]:
    words = text.split(" ")
    return frozenset(" ".join(words[place : place + 5]) for place in range(max(1, len(words) - 4)))


def near(texts: set[str]) -> Edges:
    """Every two texts of Jaccard 0.8 and more, by counting the shingles that they share."""
    sets = {text: shingles(text) for text in texts}
    holders = defaultdict(list)
    for text, said in sets.items():
        for shingle in said:
            holders[shingle].append(text)
    shared: Counter[tuple[str, str]] = Counter()
    for having in holders.values():
        shared.update(combinations(sorted(having), 2))
    sizes = {edge: len(sets[edge[0]]) + len(sets[edge[1]]) - count for edge, count in shared.items()}
    return {frozenset(edge): count / sizes[edge] for edge, count in shared.items() if count / sizes[edge] >= 0.8}


def test_who_goes_is_near_who_stays_and_of_those_who_stay_none_are_near(stages: tuple[Manifest, Manifest]) -> None:
    pairs, done = stages
    columns = ["pair_id", "question_id", "prompt", "chosen", "rejected"]
    rows = {
        row["pair_id"]: row | {name: normalised(row[name]) for name in ("prompt", "chosen", "rejected")}
        for row in pl.read_parquet(pairs.path("pairs.parquet"), columns=columns).iter_rows(named=True)
    }
    prompts = near({row["prompt"] for row in rows.values()})
    answers = near({row[side] for row in rows.values() for side in ("chosen", "rejected")})
    kept = pl.read_parquet(done.path("pairs.parquet"))["pair_id"].to_list()
    dropped = pl.read_parquet(done.path("dropped.parquet")).filter(pl.col("reason").is_in(NEAR_REASONS))

    def alike(edges: Edges, one: str, other: str) -> bool:
        return one == other or frozenset((one, other)) in edges

    def same(reason: str, one: dict[str, str], other: dict[str, str]) -> bool:
        prompt, chosen, rejected = (
            alike(prompts if side == "prompt" else answers, one[side], other[side])
            for side in ("prompt", "chosen", "rejected")
        )
        if reason == "near_pair":
            return prompt and chosen and rejected
        if one["question_id"] == other["question_id"]:
            return False
        long = {side: len(one[side].split(" ")) >= 10 for side in ("prompt", "chosen", "rejected")}
        if reason == "near_question":
            return prompt and long["prompt"]
        return (chosen and long["chosen"]) or (rejected and long["rejected"])

    assert dropped.height == total({k: v for k, v in done.counts.items() if "near" in k}, "dropped") >= 10
    for row in dropped.iter_rows(named=True):
        assert row["kept_pair_id"] in set(kept)
        assert same(row["reason"], rows[row["pair_id"]], rows[row["kept_pair_id"]]), row
    # Two pairs can only be near when each has a text that has a near one, or stands under two questions.
    asked = defaultdict(set)
    for row in rows.values():
        for side in ("prompt", "chosen", "rejected"):
            asked[row[side]].add(row["question_id"])
    known = {text for edge in (*prompts, *answers) for text in edge}
    known |= {text for text, questions in asked.items() if len(questions) > 1}
    suspects = [name for name in kept if known & {rows[name][side] for side in ("prompt", "chosen", "rejected")}]
    assert len(suspects) > 20
    missed = [
        (one, other)
        for one, other in combinations(suspects, 2)
        if any(same(reason, rows[one], rows[other]) for reason in NEAR_REASONS)
    ]
    assert missed == []
