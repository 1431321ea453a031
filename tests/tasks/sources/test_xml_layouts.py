"""One dump in many layouts: the same posts, or one error that names the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.sources import xml_file
from tasks.sources.rows import Damaged, HasMarkup, parse

QUESTION = (
    '<row Id="1" PostTypeId="1" CreationDate="2014-01-21T20:26:05.383" Score="2" Body="&lt;p&gt;Why &amp;amp; how?" />'
)
ANSWER = '<row Id="2" PostTypeId="2" ParentId="1" CreationDate="2014-01-21T20:26:05.383" Score="1" Body="a&#xA;b é" />'
BODIES = ["<p>Why &amp; how?", "a\nb é"]

SAME = {
    "as dumps are": '\ufeff<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n  {q}\r\n  {a}\r\n</posts>',
    "all on one line": "<posts>{q}{a}</posts>",
    "no declaration, line end at the end": "<posts>\n{q}\n{a}\n</posts>\n",
    "rows over several lines": "<posts>\n{ql}\n{al}\n</posts>",
    "elements with an end tag": "<posts>{qe}{ae}</posts>",
    "single quotes": "<posts>{qs}{as_}</posts>",
    "comments with rows in them": "<posts><!-- {q} -->{q}<!-- > -- {a}{a} <! ]]> -->{a}<!----></posts><!-- end -->",
    "comment before the root": "<!-- {q} --><posts>{q}{a}</posts>",
    "a processing instruction": '<?xml version="1.0"?><?look {a} ?><posts>{q}<?and > here?>{a}</posts>',
    "a CDATA section": "<posts><![CDATA[ {a} <!-- ]]>{q}{a}</posts>",
    "text between rows": "<posts>here {q} and {a} there</posts>",
    "attributes of the root": '<posts version="2">{q}{a}</posts>',
}


def laid_out(layout: str) -> str:
    return layout.format(
        q=QUESTION, a=ANSWER,
        ql=QUESTION.replace('" ', '"\r\n\t'), al=ANSWER.replace('" ', '"\n'),
        qe=QUESTION.replace(" />", "></row>"), ae=ANSWER.replace(" />", ">\n</row >"),
        qs=QUESTION.replace('"', "'"), as_=ANSWER.replace('"', "'"),
    )  # fmt: skip


@pytest.mark.parametrize("layout", SAME.values(), ids=SAME.keys())
def test_every_valid_layout_gives_the_same_posts(ingest_rows: Callable[..., Any], layout: str) -> None:
    found = ingest_rows(laid_out(layout).encode())
    assert found.posts.sort("id")["body"].to_list() == BODIES
    assert found.counts["rows"] == 2


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [("utf-16", None), ("utf-16", "utf-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "utf-32"),
     ("iso-8859-1", "ISO-8859-1"), ("cp1252", "windows-1252"), ("utf-8-sig", "UTF-8")],
)  # fmt: skip
def test_other_encodings_give_the_same_posts(
    ingest_rows: Callable[..., Any], encoding: str, declared: str | None
) -> None:
    declaration = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else '<?xml version="1.0"?>'
    found = ingest_rows((declaration + laid_out(SAME["rows over several lines"])).encode(encoding))
    assert found.posts.sort("id")["body"].to_list() == BODIES


REFUSED = {
    "empty": (b"", "is empty"),
    "white space": (b" \r\n ", "is empty"),
    "a web page": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "Git LFS"),
    "binary": (bytes(range(256)) * 8, "not a dump"),
    "another file of the dump": (b'<users><row Id="1" /></users>', "<users>"),
    "another file without rows": (b"<comments></comments>", "<comments>"),
    "a document type": (b'<!DOCTYPE posts [<!ENTITY a "aa">]><posts><row Id="&a;" /></posts>', "document type"),
    "an external entity": (
        b'<!DOCTYPE posts SYSTEM "file:///etc/passwd"><posts><row Id="1" /></posts>',
        "document type",
    ),
    "a document type after a row": (b'<posts><row Id="1" /><!DOCTYPE posts></posts>', "document type"),
    "an unknown entity": (b'<posts><row Id="&nbsp;" /></posts>', "line 1"),
    "cut short in a row": (laid_out(SAME["as dumps are"]).encode()[:-60], "line 4"),
    "cut short after a row": (f"<posts>\n{QUESTION}\n{ANSWER}\n".encode(), "cut short"),
    "cut short in a comment": (f"<posts>{QUESTION}<!-- {ANSWER}".encode(), "cut short"),
    "cut short in the header": (b'<?xml version="1.0" encoding="utf-8"?>\n<pos', "not a dump"),
    "bytes after the end": (f"<posts>{QUESTION}</posts>PK\3\4".encode(), "line 1"),
    "a row in a row": (b'<posts><row Id="1"><row Id="2" /></row></posts>', "<row>"),
    "other elements": (b'<posts><row Id="1" /><post Id="2" /></posts>', "<post>"),
    "a NUL": (f"<posts>\n{QUESTION}\n{ANSWER}</posts>".replace("é", "\0").encode(), "line 3"),
    "bytes that are no UTF-8": (f"<posts>\n{QUESTION}\n{ANSWER}</posts>".encode("latin-1"), "line 3"),
    "a raw surrogate": (f"<posts>{ANSWER}</posts>".replace("é", "\ud800").encode("utf-8", "surrogatepass"), "line 1"),
    "an attribute twice": (b'<posts><row Id="1" Id="2" /></posts>', "line 1"),
    "half a UTF-16 character": (f"<posts>{ANSWER}</posts>".encode("utf-16")[:-1], "damaged"),
    "an unknown encoding": (b'<?xml version="1.0" encoding="klingon"?><posts></posts>', "klingon"),
    "an encoding that unzips": (b'<?xml version="1.0" encoding="bz2"?><posts></posts>', "bz2"),
}


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_dump_is_refused_in_one_line_that_names_it(
    ingest_rows: Callable[..., Any], data: bytes, said: str
) -> None:
    with pytest.raises(InputError) as refusal:
        ingest_rows(data)
    message = str(refusal.value)
    assert said in message
    assert "Posts.xml" in message
    assert "\n" not in message.strip()


@pytest.mark.parametrize(
    "empty", [b"<posts></posts>", b"<posts />", b'\xef\xbb\xbf<?xml version="1.0"?>\r\n<posts>\r\n</posts>']
)
def test_a_dump_without_rows_has_no_posts(ingest_rows: Callable[..., Any], empty: bytes) -> None:
    found = ingest_rows(empty)
    assert found.counts["rows"] == 0
    assert found.posts.is_empty()


def numbered(count: int, separator: str) -> str:
    rows = [
        f'<row Id="{number}" PostTypeId="1" CreationDate="2014-01-21T20:26:05" Score="{number % 7 or "bad"}" '
        f'Body="{"lorem &lt;b> " * (number % 50)}" />'
        for number in range(1, count + 1)
    ]
    return f"<posts>{separator}{separator.join(rows)}{separator}</posts>"


@pytest.mark.parametrize(
    "separator", ["\r\n", "", "\n\n<!-- <row Id='5' /> -->\n"], ids=["lines", "one line", "comments"]
)
def test_ranges_read_by_workers_give_what_one_range_gives(
    ingest_rows: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    data = numbered(700, separator).encode()
    whole = ingest_rows(data, work="whole")
    monkeypatch.setattr(xml_file, "RANGE_BYTES", 40_000)
    cut = ingest_rows(data, work="cut")
    assert len(list(cut.manifest.path("posts.parquet").iterdir())) > 3
    assert cut.posts.sort("id").equals(whole.posts.sort("id"))
    assert cut.dropped.equals(whole.dropped)
    assert cut.counts == whole.counts
    assert cut.skipped() == {"bad_score": 100}
    places = [int(place.removeprefix("line ")) for place in cut.dropped["place"]]
    numbers = cut.dropped["post_id"].to_list()
    lines = data.split(b"\n")
    assert all(f'Id="{number}"'.encode() in lines[place - 1] for place, number in zip(places, numbers, strict=True))


def test_damage_in_a_later_range_is_named_by_its_line_in_the_file(
    ingest_rows: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = numbered(700, "\n").split("\n")
    lines[610] = lines[610].replace('Body="', "Body=")
    monkeypatch.setattr(xml_file, "RANGE_BYTES", 40_000)
    with pytest.raises(InputError, match=r"at line 611:"):
        ingest_rows("\n".join(lines).encode())


def test_duplicates_and_orphans_are_found_across_ranges(
    ingest_rows: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = numbered(700, "\n").replace('Id="690"', 'Id="3"').replace(
        '<row Id="10" PostTypeId="1"', '<row Id="10" PostTypeId="2" ParentId="699"'
    ).replace('<row Id="699"', '<row Id="70000"')  # fmt: skip
    monkeypatch.setattr(xml_file, "RANGE_BYTES", 40_000)
    found = ingest_rows(text.encode())
    assert found.skipped() == {"bad_score": 100, "duplicate_id": 1, "orphan": 1}
    late = found.dropped.filter(pl.col("reason") != "bad_score")
    assert late.select("reason", "post_id").rows() == [("orphan", 10), ("duplicate_id", 3)] or (
        late.select("reason", "post_id").rows() == [("duplicate_id", 3), ("orphan", 10)]
    )
    assert found.ids.count(3) == 1
    lines = text.split("\n")
    for place, number in late.select("place", "post_id").iter_rows():
        assert f'Id="{number}"' in lines[int(place.removeprefix("line ")) - 1]


@given(
    values=st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"]).filter(lambda char: char >= " " and char not in "\ufffe\uffff")
        ),
        max_size=4,
    ),
    wide=st.booleans(),
)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_as_xml_is_read_back(values: list[str], wide: bool) -> None:
    space = "\n" if wide else " "
    rows = "".join(
        f"<row{space}Id={quoteattr(str(at))}{space}Body={quoteattr(text)} />" for at, text in enumerate(values)
    )
    found = parse(f"{rows}</posts>".encode(), ("Id", "Body"), "posts", last=True)
    assert list(found.columns[1]) == values
    assert list(found.columns[0]) == [str(at) for at in range(len(values))]


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 20))
@settings(deadline=None, max_examples=300)
def test_damaged_bytes_are_read_or_refused_and_nothing_else(junk: bytes, at: int, cut_out: int) -> None:
    data = f"{QUESTION}\n{ANSWER}</posts>".encode()
    at = min(at, len(data))
    hurt = data[:at] + junk + data[at + cut_out :]
    try:
        found = parse(hurt, ("Id", "Body"), "posts", last=True)
    except (Damaged, HasMarkup):
        return
    for column in found.columns:
        for value in column:
            assert value is None or "\0" not in value.encode().decode()


def test_a_row_of_fifty_megabytes_is_read_in_seconds_and_counted(
    ingest_rows: Callable[..., Any], tmp_path: Path
) -> None:
    big = ANSWER.replace("a&#xA;b", "&lt;b&gt;" * 5_500_000)
    found = ingest_rows(f"<posts>{QUESTION}{big}</posts>".encode())
    assert found.skipped() == {"too_long": 1}
