"""Which rows of Posts.xml become posts, and why the others do not."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

GOOD: dict[str, Any] = {
    "Id": "1", "PostTypeId": "1", "CreationDate": "2014-01-21T20:26:05.383", "Score": "2", "Title": "Why?",
    "Tags": "<crust><yeast>", "Body": "<p>a &amp; b</p>\n<p>x &lt; y</p>", "OwnerUserId": "3",
}  # fmt: skip
REPLY: dict[str, Any] = {
    "Id": "2", "PostTypeId": "2", "ParentId": "1", "CreationDate": "2015-02-03T04:05:06.007", "Score": "-3",
    "Body": "<p>So.</p>", "OwnerDisplayName": "user77", "ContentLicense": "CC BY-SA 3.0",
}  # fmt: skip


def but(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    """`row` with other attributes; None takes one away."""
    return {name: str(value) for name, value in (row | more).items() if value is not None}


def test_a_question_and_its_answer_come_out_as_they_are(ingest_rows: Callable[..., Any]) -> None:
    found = ingest_rows([GOOD, REPLY])
    asked, answered = found.posts.sort("id").to_dicts()
    assert asked == {
        "site": "bread.stackexchange.com", "id": 1, "post_type": 1, "parent_id": None, "accepted_id": None, "score": 2,
        "created": datetime(2014, 1, 21, 20, 26, 5, 383000, UTC), "edited": None, "closed": None,
        "community_owned": None, "title": "Why?", "tags": ["crust", "yeast"], "owner_id": 3, "owner_name": None,
        "license": None, "body": "<p>a &amp; b</p>\n<p>x &lt; y</p>", "offset": asked["offset"],
    }  # fmt: skip
    assert (answered["parent_id"], answered["score"], answered["owner_name"]) == (1, -3, "user77")
    assert (answered["license"], answered["tags"], answered["owner_id"]) == ("CC BY-SA 3.0", [], None)
    assert found.counts["questions"] == found.counts["answers"] == 1


@pytest.mark.parametrize("letter", ["a", "é", "𝄞"])
def test_a_post_of_a_million_characters_stays_and_one_of_one_more_is_too_long(
    ingest_rows: Callable[..., Any], letter: str
) -> None:
    longest = "<p>" + letter * (1_000_000 - 3)
    found = ingest_rows([but(GOOD, Body=longest), but(GOOD, Id=9, Body=longest + letter)])
    assert found.posts.select("id", pl.col("body").str.len_chars()).rows() == [(1, 1_000_000)]
    assert found.counts["skipped.too_long"] == 1


def test_a_post_is_found_again_by_its_offset(ingest_rows: Callable[..., Any]) -> None:
    found = ingest_rows([GOOD, REPLY])
    data = (found.manifest.folder.parent.parent.parent / "bread.stackexchange.com" / "Posts.xml").read_bytes()
    for post in found.posts.to_dicts():
        assert data[post["offset"] :].startswith(f'<row Id="{post["id"]}" '.encode())


@pytest.mark.parametrize("tags", ["<crust><yeast>", "|crust|yeast|"])
def test_tags_are_read_in_the_old_form_and_the_new(ingest_rows: Callable[..., Any], tags: str) -> None:
    assert ingest_rows([but(GOOD, Tags=tags)]).posts["tags"].to_list() == [["crust", "yeast"]]


@pytest.mark.parametrize(
    ("row", "reason", "listed"),
    [
        (but(GOOD, Id=9, PostTypeId="5"), "post_type", False),
        (but(GOOD, Id=9, PostTypeId=None), "bad_type", True),
        (but(GOOD, Id=9, PostTypeId="question"), "bad_type", True),
        (but(GOOD, Id="1000000001"), "fabricated", False),
        (but(REPLY, Id="1000000010", ParentId="1000000001"), "fabricated", False),
        (but(GOOD, Id=None), "bad_id", True),
        (but(GOOD, Id=""), "bad_id", True),
        (but(GOOD, Id="-4"), "bad_id", True),
        (but(GOOD, Id="0"), "bad_id", True),
        (but(GOOD, Id="99999999999999999999"), "bad_id", True),
        (but(GOOD, Id=9, OwnerUserId="nobody"), "bad_id", True),
        (but(GOOD, Id=9, AcceptedAnswerId="1.5"), "bad_id", True),
        (but(REPLY, Id=9, ParentId="one"), "bad_id", True),
        (but(REPLY, Id=9, ParentId=None), "orphan", True),
        (but(REPLY, Id=9, ParentId="8"), "orphan", True),
        (but(REPLY, Id=9, ParentId="2"), "orphan", True),  # an answer to an answer
        (but(GOOD, Id=9, Score=None), "bad_score", True),
        (but(GOOD, Id=9, Score="many"), "bad_score", True),
        (but(GOOD, Id=9, Score="3.0"), "bad_score", True),
        (but(GOOD, Id=9, Score="9223372036854775808"), "bad_score", True),
        (but(GOOD, Id=9, CreationDate=None), "bad_date", True),
        (but(GOOD, Id=9, CreationDate="2014-02-30T00:00:00.000"), "bad_date", True),
        (but(GOOD, Id=9, CreationDate="yesterday"), "bad_date", True),
        (but(GOOD, Id=9, CreationDate="+262142-01-01T00:00:00"), "bad_date", True),
        (but(GOOD, Id=9, LastEditDate="never"), "bad_date", True),
        (but(GOOD, Id=9, ClosedDate="2014"), "bad_date", True),
        (but(GOOD, Id=9, Body="x" * 1_000_001), "too_long", True),
    ],
)  # fmt: skip
def test_a_row_that_is_no_post_is_counted_with_its_reason(
    ingest_rows: Callable[..., Any], row: dict[str, Any], reason: str, listed: bool
) -> None:
    found = ingest_rows([GOOD, row, REPLY])
    assert found.skipped() == {reason: 1}
    assert found.ids == [1, 2]
    if listed:
        assert found.dropped.select("reason", "place").rows() == [(reason, "line 4")]
    else:
        assert found.dropped.is_empty()


@pytest.mark.parametrize("score", ["9223372036854775807", "-9223372036854775808", "0"])
def test_any_score_that_fits_is_kept(ingest_rows: Callable[..., Any], score: str) -> None:
    assert ingest_rows([but(GOOD, Score=score)]).posts["score"].to_list() == [int(score)]


def test_an_empty_body_is_kept_for_pair_to_judge(ingest_rows: Callable[..., Any]) -> None:
    assert ingest_rows([but(GOOD, Body=None), but(REPLY, Body="")]).posts["body"].to_list() == ["", ""]


def test_the_same_row_of_two_with_one_number_stays_in_any_order(ingest_rows: Callable[..., Any]) -> None:
    one, other = but(REPLY, Body="<p>one</p>"), but(REPLY, Body="<p>other</p>")
    found = [ingest_rows([GOOD, *pair], work=f"work-{at}") for at, pair in enumerate([(one, other), (other, one)])]
    for each in found:
        assert each.skipped() == {"duplicate_id": 1}
        assert each.dropped["post_id"].to_list() == [2]
    assert found[0].posts["body"].to_list() == found[1].posts["body"].to_list()


def test_answers_to_a_question_that_was_skipped_are_orphans(ingest_rows: Callable[..., Any]) -> None:
    found = ingest_rows([but(GOOD, Score="x"), REPLY])
    assert found.skipped() == {"bad_score": 1, "orphan": 1}
    assert found.dropped.select("reason", "place", "post_id", "value").rows() == [
        ("bad_score", "line 3", 1, "x"), ("orphan", "line 4", 2, None),
    ]  # fmt: skip


@pytest.mark.parametrize("reference", ["&#0;", "&#xD800;", "&#xFFFE;", "&#x1F;", "&#x110000;", "&#99999999999;"])
def test_a_reference_to_no_character_costs_its_row_not_the_file(
    ingest_rows: Callable[..., Any], reference: str
) -> None:
    text = (
        "<posts>\n"
        '<row Id="1" PostTypeId="1" CreationDate="2014-01-21T20:26:05" Score="1" Body="fine &#x1F600;" />\n'
        f'<row Id="2" PostTypeId="1" CreationDate="2014-01-21T20:26:05" Score="1" Body="a{reference}b" />\n'
        "</posts>"
    )
    found = ingest_rows(text.encode())
    assert found.posts["body"].to_list() == ["fine \N{GRINNING FACE}"]
    assert found.skipped() == {"bad_character": 1}
    assert found.dropped.select("reason", "place").rows() == [("bad_character", "line 3")]


def test_names_of_users_are_kept_and_nothing_else_of_them(ingest_rows: Callable[..., Any], site_folder: Any) -> None:
    (site_folder / "Users.xml").write_text(
        '<users><row Id="-1" DisplayName="Community" AboutMe="private" /><row Id="3" DisplayName="  Ann " />'
        '<row Id="4" /><row DisplayName="nobody" /></users>'
    )
    found = ingest_rows([GOOD])
    users = pl.read_parquet(found.manifest.path("users.parquet"))
    assert users.sort("user_id").rows() == [(-1, "Community"), (3, "Ann")]
    assert users.columns == ["user_id", "name"]
