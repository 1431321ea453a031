"""A dump of any size out of a small one.

in   the rows of a small dump: a given one, a real one where there is one, else rows made of words
out  Posts.xml: the rows again and again with fresh ids, each copy's bodies and titles in words of its own

A copy's letters are exchanged, vowels for vowels and consonants for consonants, outside of tags and references: words
keep their lengths and markup stays, and no two copies share a shingle. A known share of the questions, with their
answers, keeps its words: EXACT percent stay as they were, NEAR percent get a sentence more.
"""

import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

SITE: Final = "bench.stackexchange.com"
EXACT: Final = 5  # percent of the questions of each copy
NEAR: Final = 5
REAL: Final = Path(__file__).parents[1].parent / "shared" / "data" / "stackexchange" / "beer.stackexchange.com"
_IDS: Final = re.compile(rb' (Id|ParentId|AcceptedAnswerId)="(\d+)"')
_QUESTION: Final = re.compile(rb' ParentId="(\d+)"| Id="(\d+)"')
_SAID: Final = re.compile(rb' (?:Body|Title)="([^"]*)"')
_KEPT: Final = re.compile(rb"&lt;.*?&gt;|&[#\w]+;", re.DOTALL)
_GROUPS: Final = ("aeiou", "bcdfghjklmnpqrstvwxyz")


def small_dump(given: Path | None) -> list[bytes]:
    """The rows of the dump at `given` (Posts.xml, a folder with one, or a .7z), or of one that is always there."""
    if given is None:
        given = next(REAL.glob("*.7z"), None)
    if given is None:
        return list(_made_rows(random.Random(7)))
    if given.suffix != ".7z":
        return _rows_of((given / "Posts.xml" if given.is_dir() else given).read_bytes())
    import py7zr

    with tempfile.TemporaryDirectory() as folder, py7zr.SevenZipFile(given) as archive:
        archive.extract(folder, targets=["Posts.xml"])
        return _rows_of((Path(folder) / "Posts.xml").read_bytes())


def write_dump(folder: Path, rows: list[bytes], megabytes: int) -> Path:
    """A dump of about so many megabytes (10**6 bytes) in `folder`."""
    (folder / SITE).mkdir(parents=True)
    path = folder / SITE / "Posts.xml"
    step = 1 + max(int(found[1] or found[2]) for row in rows for found in _QUESTION.finditer(row))
    small = np.frombuffer(b"\n".join(rows), np.uint8)
    words = np.frombuffer(b"\n".join(_words(row) for row in rows), np.uint8) > 0
    threads = [_thread(row) for row in rows]
    size = copy = 0
    with open(path, "wb") as out:
        size += out.write(b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n')
        while size < megabytes * 1_000_000:
            changed = np.where(words, _alphabet(copy)[small], small).tobytes().split(b"\n")
            for number, (row, thread) in enumerate(zip(rows, threads, strict=True)):
                drawn = (thread * 31 + copy * 17) % 100
                made = row if drawn < EXACT + NEAR else changed[number]
                if EXACT <= drawn < EXACT + NEAR:
                    made = made.replace(b' Body="', b' Body="&lt;p&gt;This is copy %d.&lt;/p&gt;&#xA;' % copy, 1)
                made = _IDS.sub(lambda found: b' %s="%d"' % (found[1], int(found[2]) + copy * step), made)  # noqa: B023
                size += out.write(made + b"\r\n")
            copy += 1
        out.write(b"</posts>")
    return path


def _rows_of(xml: bytes) -> list[bytes]:
    return [line for line in xml.splitlines() if b"<row " in line]


def _thread(row: bytes) -> int:
    """The number of the question that a row is or answers."""
    parent = re.search(rb' ParentId="(\d+)"', row) or re.search(rb' Id="(\d+)"', row)
    return int(parent[1]) if parent else 0


def _words(row: bytes) -> bytes:
    """As long as `row`, not zero where a letter of a text stands; the line ends between rows are none."""
    marks = bytearray(len(row))
    for said in _SAID.finditer(row):
        at = said.start(1)
        for kept in (*_KEPT.finditer(row, *said.span(1)), None):
            end = kept.start() if kept else said.end(1)
            marks[at:end] = b"\1" * (end - at)
            at = kept.end() if kept else end
    return bytes(marks)


def _alphabet(copy: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """What each byte becomes in a copy; the first stays as it is."""
    table = np.arange(256, dtype=np.uint8)
    chance = random.Random(copy)
    for group in _GROUPS:
        other = "".join(chance.sample(group, len(group))) if copy else group
        for before, after in ((group, other), (group.upper(), other.upper())):
            table[list(before.encode())] = list(after.encode())
    return table


def _made_rows(chance: random.Random) -> Iterator[bytes]:
    """Questions with two to five answers, about 1 kB each: paragraphs, code, lists and links."""
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(3000)]

    def body() -> str:
        said = []
        for _ in range(chance.randint(2, 6)):
            text = " ".join(chance.choices(words, k=chance.randint(8, 40)))
            forms = [
                f"<p>{text}</p>", f"<pre><code>{text}\n    x = 1 &lt; 2\n</code></pre>",
                f"<ul>\n<li>{text}</li>\n</ul>", f'<p>see <a href="https://example.com/x">{text}</a> for $x_1$</p>',
            ]  # fmt: skip
            said.append(chance.choice(forms))
        return "\n".join(said).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;").replace("\n", "&#xA;")

    usual = 'CreationDate="2014-01-21T20:26:05.383" OwnerUserId="3" LastActivityDate="2014-01-21T20:26:05.383"'
    number = 0
    for _ in range(1000):
        number += 1
        question = number
        yield f'  <row Id="{number}" PostTypeId="1" {usual} Score="2" Body="{body()}" Tags="&lt;a&gt;" />'.encode()
        for _ in range(chance.randint(2, 5)):
            number += 1
            score = chance.randint(-2, 40)
            yield (
                f'  <row Id="{number}" PostTypeId="2" ParentId="{question}" {usual} Score="{score}" Body="{body()}" />'
            ).encode()
