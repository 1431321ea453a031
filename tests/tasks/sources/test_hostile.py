"""Inputs made to crash, to hang or to fill the memory: each is read with counts that add up, or refused in one line.

Each case was found by trying; what it once did stands beside it.
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import py7zr
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError, Transient
from tasks.ingest import SourceConfig, ingest_source
from tasks.pairing.markdown import to_markdown
from tasks.pairing.outsized import outsized
from tasks.sources import data_files, json_rows, xml_file
from tasks.store import Store
from tasks.workers import WorkerDied

SITE = "bread.stackexchange.com"
QUESTION = '<row Id="1" PostTypeId="1" CreationDate="2014-01-21T20:26:05.383" Score="2" Body="Why?" />'
ANSWER = '<row Id="2" PostTypeId="2" ParentId="1" CreationDate="2014-01-21T20:26:05.383" Score="1" Body="So." />'
POSTS = f"<posts>{QUESTION}{ANSWER}</posts>".encode()


def refused(path: Path, ingest: Callable[..., Any], **keys: Any) -> str:
    with pytest.raises(InputError) as refusal:
        ingest(path, **keys)
    message = str(refusal.value)
    assert path.name in message
    assert "\n" not in message.strip()
    return message


# Archives


def test_a_header_said_to_lie_beyond_any_file_is_damage_and_no_fault_of_the_disk(
    tmp_path: Path, ingest: Callable[..., Any]
) -> None:
    start = struct.pack("<QQI", 1 << 62, 100, 0)
    path = tmp_path / f"{SITE}.7z"
    path.write_bytes(b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start)) + start)
    assert "damaged" in refused(path, ingest)


def test_an_archive_that_asks_for_more_memory_than_it_may_have_is_refused_and_not_tried_again(
    tmp_path: Path, ingest: Callable[..., Any]
) -> None:
    # The decoder aborts its process: that was taken for a worker killed from outside.
    path = tmp_path / f"{SITE}.7z"
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_PPMD, "order": 6, "mem": "1500m"}]) as archive:
        archive.writestr(POSTS, "Posts.xml")
    assert "memory" in refused(path, ingest)


@pytest.mark.parametrize(("status", "by_itself"), [(-6, True), (-11, True), (-9, False), (-15, False), (1, False)])
def test_a_worker_that_was_killed_is_told_from_one_that_crashed(status: int, by_itself: bool) -> None:
    died = WorkerDied("gone", status)
    assert died.by_itself is by_itself
    assert isinstance(died, Transient)


@pytest.mark.parametrize("packed", [b"", b"7", b"7z\xbc\xaf\x27\x1c", b"7z\xbc\xaf\x27\x1c" + b"\xff" * 100, POSTS])
def test_what_is_no_archive_is_refused(tmp_path: Path, ingest: Callable[..., Any], packed: bytes) -> None:
    path = tmp_path / f"{SITE}.7z"
    path.write_bytes(packed)
    refused(path, ingest)


# Files that are none


@pytest.mark.skipif(not os.path.exists("/proc/kmsg"), reason="a file that only Linux has")
@pytest.mark.parametrize("name", ["Posts.xml", "Users.xml"])
def test_a_file_of_no_size_is_refused_before_it_is_opened(
    site_folder: Path, ingest: Callable[..., Any], name: str
) -> None:
    # A regular file of no size, and who reads it waits for the kernel's next message.
    (site_folder / "Posts.xml").write_bytes(POSTS)
    (site_folder / name).unlink(missing_ok=True)
    (site_folder / name).symlink_to("/proc/kmsg")
    with pytest.raises(InputError, match=rf"{name} is empty"):
        ingest(site_folder)


@pytest.mark.parametrize("name", ["Posts.xml", "Users.xml"])
def test_a_pipe_is_never_opened(site_folder: Path, ingest: Callable[..., Any], name: str) -> None:
    (site_folder / "Posts.xml").write_bytes(POSTS)
    (site_folder / name).unlink(missing_ok=True)
    os.mkfifo(site_folder / name)
    if name == "Users.xml":
        assert ingest(site_folder).ids == [1, 2]
    else:
        assert "holds no Posts.xml" in refused(site_folder, ingest)


# XML

LAID_OUT = {
    "a comment of megabytes": b"<posts>" + QUESTION.encode() + b"<!--" + b"x" * 20_000_000 + b"-->%s</posts>",
    "comments without end": b"<posts>" + QUESTION.encode() + b"<!-- -->" * 50_000 + b"%s</posts>",
    "processing instructions": b"<posts>" + QUESTION.encode() + b"<?a b?>" * 50_000 + b"%s</posts>",
    "an unknown prefix": b"<posts>" + QUESTION.replace(" Id", ' x:y="1" Id').encode() + b"%s</posts>",
    "text and a row in a row": (
        b"<posts>" + QUESTION.replace(" />", '>text<![CDATA[<row Id="9" />]]></row>').encode() + b"%s</posts>"
    ),
    "a row in an attribute": (
        b"<posts>" + QUESTION.replace("Why?", "&lt;row Id=&quot;9&quot; />").encode() + b"%s</posts>"
    ),
    "a declaration after a declaration": (
        b'<?xml version="1.0"?><?xml version="1.0"?><posts>' + QUESTION.encode() + b"%s</posts>"
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAID_OUT.values(), ids=LAID_OUT.keys())
def test_odd_files_are_read(ingest_rows: Callable[..., Any], layout: bytes) -> None:
    # Looking for the next `<?` from each comment on, to the end of the file, took an hour for 20 MB of comments.
    assert ingest_rows(layout % ANSWER.encode()).ids == [1, 2]


REFUSED = {
    "spaces": (b" " * 2_000_000, "is empty"),
    "NULs": (b"\0" * 2_000_000, "not a dump"),
    "elements without end": (b"<posts>" * 400_000, "not a dump"),
    "rows without end": (b"<posts>" + b"<row>" * 200_000, "damaged or cut short"),
    "millions of rows without attributes": (b"<posts>" + b"<row/>" * 2_000_000 + b"</posts>", "hold no posts"),
    "comments that never end": (b"<posts>" + QUESTION.encode() + b"<!--" * 1_000_000, "cut short"),
    "rows of another name": (POSTS.replace(b"<row", b"<ROW"), "<ROW>"),
    "posts in posts": (b"<posts>" + POSTS + b"</posts>", "a <posts> where a <row>"),
    "a namespace": (POSTS.replace(b"<posts", b'<posts xmlns="http://x"'), "root"),
    "NULs after the end": (POSTS + b"\0" * 100, "line 1"),
    "two documents": (POSTS * 2, "line 1"),
    "UTF-7": (b'<?xml version="1.0" encoding="utf-7"?>' + POSTS, "utf-7"),
    "UTF-32 without a mark": (POSTS.decode().encode("utf-32-le"), "not a dump"),
    "half a reference": (POSTS[: POSTS.index(b"Why?")] + b"&am", "cut short"),
    "an attribute without quotes": (POSTS.replace(b'Id="1"', b"Id=1"), "line 1"),
    "attributes without a space": (POSTS.replace(b'" S', b'"S'), "line 1"),
    "a thousand times an attribute": (POSTS.replace(b" Id", b' a=""' * 1000 + b" Id"), "line 1"),
}


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_trusted_is_refused(
    site_folder: Path, ingest: Callable[..., Any], data: bytes, said: str
) -> None:
    (site_folder / "Posts.xml").write_bytes(data)
    with pytest.raises(InputError) as refusal:
        ingest(site_folder)
    assert said in str(refusal.value)
    assert "Posts.xml" in str(refusal.value)


def test_a_million_references_to_no_character_cost_one_row(ingest_rows: Callable[..., Any]) -> None:
    # Blanking them out byte by byte took 5 GB for 60 MB.
    bad = QUESTION.replace('Id="1"', 'Id="5"').replace("Why?", "&#0;" * 1_000_000)
    found = ingest_rows(f"<posts>{QUESTION}{bad}{ANSWER}</posts>".encode())
    assert found.ids == [1, 2]
    assert found.skipped() == {"bad_character": 1}


@pytest.mark.parametrize("reference", ["&#" + "0" * 10_000 + "65;", "&#x" + "0" * 10_000 + "41;"])
def test_a_reference_of_thousands_of_digits_is_the_character_it_names(
    ingest_rows: Callable[..., Any], reference: str
) -> None:
    found = ingest_rows(f"<posts>{QUESTION.replace('Why?', reference)}{ANSWER}</posts>".encode())
    assert found.posts.sort("id")["body"].to_list() == ["A", "So."]


@pytest.mark.parametrize("piece", [1, 7, 64, 8 << 20])
def test_markup_is_blanked_wherever_the_file_is_cut(piece: int) -> None:
    data = b'<a><!-- <row /> -->\r\n<?p <row /> ?><b x="1" /><![CDATA[ <row /> ]]></a><!---->'
    whole, rest, closer = xml_file._blank(data, b"", "x", last=True)
    assert (len(whole), rest, closer) == (len(data), b"", b"")
    assert whole.split() == [b"<a>", b"<b", b'x="1"', b"/>", b"</a>"]
    out, rest, closer = b"", b"", b""
    for at in range(0, len(data) + piece, piece):
        chunk = data[at : at + piece]
        some, rest, closer = xml_file._blank(rest + chunk, closer, "x", last=not chunk)
        out += some
    assert out + rest == whole


@pytest.mark.parametrize("markup", [b"<!---->", b"<?a?>", b"<![CDATA[]]>\r\n"])
def test_markup_after_markup_is_one_step(markup: bytes) -> None:
    # A step for each took a minute for 100 MB.
    data = markup * (8_000_000 // len(markup))
    begun = time.process_time()
    whole, rest, closer = xml_file._blank(data, b"", "x", last=True)
    assert time.process_time() - begun < 0.6
    assert (len(whole), whole.strip(), rest, closer) == (len(data), b"", b"", b"")


def test_counts_add_up_where_numbers_are_none(ingest_rows: Callable[..., Any]) -> None:
    odd = ["", "-1", "1.0", "1e3", " 1", "0x10", "\u0663", "\uff11", "NaN", "9223372036854775808", "1_000"]
    usual = {"PostTypeId": "1", "CreationDate": "2014-01-21T20:26:05.383", "Score": "2", "Body": "b"}
    rows = [{"Id": str(100 + number), **usual, "Score": value} for number, value in enumerate(odd)]
    rows += [{"Id": value, **usual} for value in odd]
    rows += [{"Id": str(200 + number), **usual, "PostTypeId": value} for number, value in enumerate(odd)]
    found = ingest_rows(rows)  # the fixture adds up
    assert set(found.skipped()) <= {"bad_id", "bad_score", "bad_type", "post_type"}
    assert found.ids == [101]  # of them all only the score -1 is a number where it stands


def test_places_of_orphans_are_their_lines(ingest_rows: Callable[..., Any]) -> None:
    # Counting the lines from the beginning again for each took a quarter of an hour for 300,000.
    orphans = "\n".join(
        ANSWER.replace(' Id="2"', f' Id="{number}"').replace('d="1"', 'd="9"') for number in range(2, 5)
    )
    found = ingest_rows(f"<posts>\n{QUESTION}\n{orphans}\n</posts>".encode())
    assert found.dropped["place"].to_list() == ["line 3", "line 4", "line 5"]


# HTML

OUTSIZED = {  # what no editor makes, and what converting it took
    "unclosed formatting": "<b><i><p>x</b>" * 50_000,  # time that grows with the square: 20 s
    "unclosed lists in preformatted text": "<pre><ul><li>" * 50_000,  # 5 GB
    "ends that end nothing": "<pre></b>" * 50_000,
    "unclosed tables": "<table><b>x" * 50_000,
    "a cell over a thousand million columns": '<table><tr><td colspan="1000000000">x</td></tr></table>',
    "cells over a thousand columns": "<tr><td colspan=1000 ROWSPAN='9'>x</td></tr>" * 20,  # 75 MB of bars a post
    "a tag of a million attributes": "<a " + "b=c " * 250_000 + ">",
    "unclosed links": "<a>" * 1_000,  # 7 s for 1 MB of such posts
    "lists in lists": "<ul><li>" * 200 + "x" + "</li></ul>" * 200,  # 5 s for 1 MB of such posts
    "preformatted text in its like": "<pre>" * 200 + "x" + "</pre>" * 200,  # 10 s for 1 MB of such posts
}


@pytest.mark.parametrize("html", OUTSIZED.values(), ids=OUTSIZED.keys())
def test_a_body_that_no_editor_made_is_not_converted(html: str) -> None:
    assert outsized(html)
    assert to_markdown(html, SITE) == ("", False)


@pytest.mark.parametrize(
    "html",
    ["<p>x</p>" * 50_000, "<p>x<br>" * 50_000, "<ul>" + "<li>x" * 50_000 + "</ul>", "a < b " * 50_000,
     '<table><tr><td colspan="3">x</td></tr></table>' * 10, ("<b>" * 40 + "</b>" * 40) * 200],
)  # fmt: skip
def test_a_long_body_alone_is_not_outsized(html: str) -> None:
    assert not outsized(html)


@pytest.mark.parametrize("piece", ["\\begin{a}", "\\begin{a}\\end{b}", "$\n$"])
def test_maths_that_never_ends_takes_time_in_proportion(piece: str) -> None:
    # Two seconds each; some 0.2 now.
    html = piece * (190_000 // len(piece))
    begun = time.process_time()
    assert to_markdown(html, SITE) == (html.strip(), True)
    assert time.process_time() - begun < 0.8


def test_markdown_many_times_longer_than_its_html_is_given_up() -> None:
    html = '<ol start="99999999999999999999">' + "<li>" * 20_000  # twenty digits each
    assert to_markdown(html, SITE) == ("", False)


# Rows of other sources


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"prompt": ["p"], "chosen": ["a"], "rejected": ["b"]} | columns), path)
    return path


@pytest.mark.parametrize(
    "created", [pa.array([2**62], pa.timestamp("us")), pa.array([1], pa.timestamp("ns", "Mars/Phobos"))]
)
def test_a_date_that_python_cannot_hold_is_an_input_error(tmp_path: Path, created: pa.Array) -> None:
    path = parquet(tmp_path / "p.parquet", created=created)
    with pytest.raises(InputError, match=r"p\.parquet is damaged"):
        ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(path), kind="jsonl"))


def test_a_text_that_a_dictionary_repeats_without_end_is_stopped_by_the_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 30 kB of Parquet that were three gigabytes of prompts.
    monkeypatch.setattr(data_files, "_FREE", 1 << 20)
    texts = pa.array(["x" * 100_000]).dictionary_encode().take(pa.array([0] * 300))
    path = parquet(tmp_path / "p.parquet", prompt=texts, chosen=["a"] * 300, rejected=["b"] * 300)
    with pytest.raises(InputError, match="max_ratio"):
        ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(path), kind="jsonl"))
    trusted = ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(path), kind="jsonl", max_ratio=1e6))
    assert trusted.counts["rows"] == 300


def test_a_file_has_no_more_rows_than_pairs_could_be_in_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 150 kB of Parquet held 30 million rows of a letter a column: they took minutes, one at a time.
    monkeypatch.setattr(data_files, "_FREE_ROWS", 1000)
    letters = {"prompt": ["p"] * 5000, "chosen": ["a"] * 5000, "rejected": ["b"] * 5000}
    path = parquet(tmp_path / "p.parquet", **letters)
    most = 1000 + path.stat().st_size // 50
    with pytest.raises(InputError, match=rf"p\.parquet holds more than {most} rows, so many for its size"):
        ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(path), kind="jsonl"))


def test_an_array_that_is_mostly_no_objects_is_not_counted_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "_MOST_JUNK", 20)
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = tmp_path / "p.json"
    path.write_text(json.dumps([good, *[1] * 1000]))
    with pytest.raises(InputError, match="most of the first 22 in its JSON array"):
        ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(path), kind="jsonl"))
    path.write_text(json.dumps([*[good] * 100, *[1] * 50]))
    counts = ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(path), kind="jsonl")).counts
    assert (counts["rows"], counts["pairs"], counts["skipped.malformed"]) == (150, 1, 50)


def test_numbers_among_the_rows_of_an_array_cost_no_more_than_rows(tmp_path: Path) -> None:
    # The rest of a megabyte was copied for each: 100 MB of such rows took minutes, these 3 s; some 0.2 now.
    path = tmp_path / "p.json"
    path.write_text("[" + '{"prompt":"p"},1 ,' * 30_000 + "2.5]")
    begun = time.process_time()
    rows = list(json_rows.array_rows(path.open("rb"), path, ""))
    assert time.process_time() - begun < 2
    assert (len(rows), sum(row.fault is None for row in rows)) == (60_001, 30_000)


def test_lines_that_are_mostly_no_json_are_not_counted_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "_MOST_JUNK", 20)
    good = b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n'
    path = tmp_path / "p.jsonl"
    path.write_bytes(good + b"x\n" * 1000)
    with pytest.raises(InputError, match="most of its first 22 lines"):
        ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(path), kind="jsonl"))
    path.write_bytes(good * 100 + b"x\n" * 50)
    counts = ingest_source(Store(tmp_path / "work"), SourceConfig(path=str(path), kind="jsonl")).counts
    assert (counts["rows"], counts["pairs"], counts["skipped.malformed"]) == (150, 1, 50)
