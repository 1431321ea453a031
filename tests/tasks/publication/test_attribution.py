"""One row a post used, and foreign text that stays text."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tasks.pairs import PAIR_SCHEMA
from tasks.publication.attribution import ATTRIBUTION, licenses, posts_used, write_attribution
from tasks.reports.escaping import as_html, as_markdown, as_markdown_block

SITE = "beer.stackexchange.com"


def pair(question: int | None, better: int | None, worse: int | None, **changes: Any) -> dict[str, Any]:
    known = {
        "pair_id": f"{SITE}/{question}/{better}/{worse}", "site": SITE,
        "question_id": question, "chosen_id": better, "rejected_id": worse,
        "prompt": f"q{question}", "chosen": f"a{better}", "rejected": f"a{worse}",
        "question_author": "Ann", "question_author_id": 1, "chosen_author": "Bo", "chosen_author_id": 2,
        "rejected_author": "user77", "rejected_author_id": None,
        "question_license": "CC BY-SA 3.0", "chosen_license": "CC BY-SA 4.0", "rejected_license": "CC BY-SA 2.5",
        "question_license_stated": True, "chosen_license_stated": False, "rejected_license_stated": True,
    }  # fmt: skip
    return dict.fromkeys(PAIR_SCHEMA.names()) | known | changes


def rows_of(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return posts_used(pl.LazyFrame(pairs, schema=PAIR_SCHEMA)).to_dicts()


def test_a_post_that_three_pairs_use_stands_once() -> None:
    rows = rows_of([pair(1, 4, 7), pair(1, 4, 9), pair(1, 7, 9)])
    assert [(row["kind"], row["post_id"]) for row in rows] == [
        ("question", 1), ("answer", 4), ("answer", 7), ("answer", 9),
    ]  # fmt: skip
    assert rows[0] == {
        "site": SITE, "post_id": 1, "kind": "question", "url": f"https://{SITE}/q/1", "author": "Ann",
        "author_url": f"https://{SITE}/users/1", "license": "CC BY-SA 3.0",
        "license_url": "https://creativecommons.org/licenses/by-sa/3.0/", "license_basis": "stated",
        "pair_id": f"{SITE}/1/4/7",
    }  # fmt: skip
    assert rows[1]["url"] == f"https://{SITE}/a/4"
    assert rows[1]["license_basis"] == "worked out"
    assert rows[2]["pair_id"] == f"{SITE}/1/4/7"


def test_an_author_without_id_is_named_but_not_linked() -> None:
    rejected = rows_of([pair(1, 4, 7)])[2]
    assert (rejected["author"], rejected["author_url"]) == ("user77", None)


def test_the_same_id_on_two_sites_is_two_posts() -> None:
    assert len(rows_of([pair(1, 4, 7), pair(1, 4, 7, site="cs.stackexchange.com", pair_id="cs/1/4/7")])) == 6


def test_posts_without_ids_are_told_apart_by_their_text() -> None:
    nameless = {"site": None, "chosen_license": None}
    rows = rows_of([
        pair(None, None, None, pair_id="paired/b", prompt="Same?", chosen="x", rejected="y", **nameless),
        pair(None, None, None, pair_id="paired/a", prompt="Same?", chosen="x", rejected="z", **nameless),
    ])  # fmt: skip
    assert sorted((row["kind"], row["pair_id"]) for row in rows) == [
        ("answer", "paired/a"), ("answer", "paired/a"), ("answer", "paired/b"), ("question", "paired/a"),
    ]  # fmt: skip
    assert {row["url"] for row in rows} == {None}
    assert "unknown" in {row["license_basis"] for row in rows}


def test_the_order_of_the_pairs_changes_no_byte(tmp_path: Path) -> None:
    pairs = [pair(question, question + 1, question + 2) for question in range(0, 60, 3)]
    for name, given_pairs in (("one", pairs), ("other", pairs[::-1])):
        write_attribution(posts_used(pl.LazyFrame(given_pairs, schema=PAIR_SCHEMA)), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_licence_count_a_version_and_basis() -> None:
    counted = licenses(posts_used(pl.LazyFrame([pair(1, 4, 7), pair(1, 4, 9)], schema=PAIR_SCHEMA))).rows()
    assert counted[0] == ("CC BY-SA 2.5", "stated", 2)
    assert ("CC BY-SA 4.0", "worked out", 1) in counted


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", "＝1", '=HYPERLINK("x","y")', " =1"]
)
def test_no_cell_is_a_formula_or_a_second_line(name: str, tmp_path: Path) -> None:
    rows = written(tmp_path, name)
    assert rows[1][4].startswith("'")
    assert len(rows) == 4


@given(st.text())
def test_whatever_an_author_is_called_it_stays_a_table(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    rows = written(tmp_path_factory.mktemp("csv"), name)
    assert [len(row) for row in rows] == [len(ATTRIBUTION)] * 4
    for row in rows:
        assert not re.match(r"[=+\-@\t\r\n＝＋－＠]", row[4])


def written(folder: Path, author: str) -> list[list[str]]:
    given_pair = pair(1, 4, 7, question_author=author.encode("utf-8", "replace").decode())
    write_attribution(posts_used(pl.LazyFrame([given_pair], schema=PAIR_SCHEMA)), folder / "attribution.csv")
    text = (folder / "attribution.csv").read_bytes().decode()
    assert text.count("\n") == 4
    return list(csv.reader(io.StringIO(text)))


HOSTILE = [
    "<script>alert(1)</script>", "[click](javascript:alert(1))", "![x](https://tracker.example/p.png)", "a | b",
    "`code`", "**bold** _it_ ~~no~~", "# heading", "www.evil.example", "https://evil.example",
    "&lt;b&gt;", "line\nbreak", "1. list", "- list", "> quote", "\\", "$x$", "\u202eevil", "a\x00b",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_markdown_renders_as_its_letters(name: str) -> None:
    rendered = (
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"| who |\n|---|\n| {as_markdown(name)} |\n")
    )
    cell = re.search(r"<td>(.*?)</td>", rendered, re.DOTALL)
    assert cell is not None
    assert "<" not in cell[1]  # no tag of any kind within the cell
    assert rendered.count("<td>") == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_html_is_only_text(name: str) -> None:
    from lxml import html

    element = html.fromstring(f'<p title="{as_html(name)}">{as_html(name)}</p>')
    assert len(element) == 0
    assert set(element.attrib) == {"title"}


def test_a_block_cannot_be_left_from_inside() -> None:
    tokens = MarkdownIt().parse(as_markdown_block("```\n</pre>\n````\n# out?"))
    assert [token.type for token in tokens] == ["fence"]
