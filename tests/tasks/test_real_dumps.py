"""Ingest and pair on the real dumps, where they are there, against what was counted in them by other means."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import py7zr
import pytest

from tasks.ingest import SourceConfig, ingest_source
from tasks.manifest import Manifest, total
from tasks.pair import PairConfig, pair
from tasks.pairing.markdown import _library
from tasks.pairing.paragraphs import plain_paragraphs
from tasks.store import Store

DUMPS = Path(__file__).parents[3] / "shared" / "data" / "stackexchange"
COUNTS: dict[str, Any] = json.loads((DUMPS / "counts.json").read_text()) if DUMPS.is_dir() else {}
pytestmark = pytest.mark.skipif(not COUNTS, reason="the real dumps are not beside the checkout")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Store, Manifest]]:
    """The store and the posts of one of the dumps."""
    store = Store(tmp_path_factory.mktemp("real"))
    return lambda name: (store, ingest_source(store, SourceConfig(path=str(DUMPS / name))))


@pytest.mark.parametrize("name", COUNTS)
def test_every_row_is_counted_as_the_data_say(source: Any, name: str) -> None:
    counts, expected = source(name)[1].counts, COUNTS[name]
    assert counts["rows"] == expected["rows"]
    assert counts["questions"] == expected["questions"]
    assert counts["answers"] == expected["answers"]
    assert total(counts, "skipped") == counts["skipped.post_type"]
    assert counts["skipped.post_type"] == sum(n for kind, n in expected["types"].items() if kind not in ("1", "2"))


@pytest.mark.parametrize("name", COUNTS)
def test_every_post_is_what_another_parser_reads(source: Any, name: str, tmp_path: Path) -> None:
    posts = pl.read_parquet(source(name)[1].path("posts.parquet"))
    with py7zr.SevenZipFile(DUMPS / name) as archive:
        archive.extract(tmp_path, targets=["Posts.xml"])
    data = (tmp_path / "Posts.xml").read_bytes()
    rows = {int(row.get("Id", 0)): row for row in ElementTree.fromstring(data) if row.get("PostTypeId") in ("1", "2")}
    assert posts.height == len(rows)
    for post in posts.to_dicts():
        row = rows[post["id"]]
        assert post["body"] == row.get("Body")
        assert post["score"] == int(row.get("Score", ""))
        assert post["created"].strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] == row.get("CreationDate")
        assert (post["parent_id"] or 0) == int(row.get("ParentId", 0))
        assert (post["accepted_id"] or 0) == int(row.get("AcceptedAnswerId", 0))
        assert (post["owner_id"] or 0) == int(row.get("OwnerUserId", 0))
        assert post["license"] == row.get("ContentLicense")
        assert post["owner_name"] == row.get("OwnerDisplayName")
        assert data[post["offset"] :].startswith(b'<row Id="%d"' % post["id"])


@pytest.mark.parametrize("name", COUNTS)
def test_plain_paragraphs_are_what_the_converter_makes_of_them(source: Any, name: str) -> None:
    library = _library(name)
    bodies = pl.read_parquet(source(name)[1].path("posts.parquet"), columns=["body"])["body"].to_list()
    plain = [(html, text) for html in bodies if (text := plain_paragraphs(html)) is not None]
    assert len(plain) > len(bodies) / 20
    for html, text in plain:
        assert (library.convert(html, library.options).content or "").strip() == text


@pytest.mark.parametrize("name", COUNTS)
def test_under_votes_every_pair_of_different_score_is_a_pair(source: Any, name: str) -> None:
    store, posts = source(name)
    done = pair(store, [posts], PairConfig(rule="votes", max_pairs_per_question=None), 42)
    expected = COUNTS[name]
    assert done.counts["pairs"] == expected["pairs_of_different_score"]
    assert done.counts["ties"] == expected["pairs_tied"]
    assert done.counts["considered"] == expected["pairs_of_different_score"] + expected["pairs_tied"]
    pairs = pl.read_parquet(done.path("pairs.parquet"))
    assert (pairs["chosen_score"] > pairs["rejected_score"]).all()
    assert pairs["pair_id"].n_unique() == pairs.height


def test_beer_under_the_recipe_s_rule(source: Any) -> None:
    store, posts = source("beer.stackexchange.com/beer.stackexchange.com.7z")
    uncapped = pair(store, [posts], PairConfig(max_pairs_per_question=None), 42)
    assert (uncapped.counts["ties"], uncapped.counts["pairs"]) == (679, 2299)
    capped = pair(store, [posts], PairConfig(), 42)
    assert (capped.counts["capped"], capped.counts["pairs"]) == (510, 1789)
    pairs = pl.read_parquet(capped.path("pairs.parquet"))
    assert pairs.group_by("question_id").len()["len"].max() == 10
    assert (pairs["chosen_rank"] > pairs["rejected_rank"]).all()
    # the 27 rows of beer without OwnerUserId all have a name
    named = pairs.filter(pl.col("chosen_author_id").is_null())
    assert named["chosen_author"].null_count() == 0


def test_licences_worked_out_are_those_that_beer_states(source: Any) -> None:
    from tasks.pairing.licences import licence

    posts = pl.read_parquet(source("beer.stackexchange.com/beer.stackexchange.com.7z")[1].path("posts.parquet"))
    worked_out = posts.select(licence(pl.lit(None, pl.String), pl.col("created"), pl.col("edited")))
    assert worked_out.to_series().equals(posts["license"], check_names=False)
