"""An XML file of a dump, made ready to be read in pieces.

in   Posts.xml or Users.xml, of any size
out  a file in UTF-8 without comments (the same one, unless it had to be copied), and where to cut it

Inside an element `<` cannot stand raw, so in a file without comments, CDATA sections and processing instructions every
`<row` begins a row: the file can be cut before any of them, wherever the ends of lines are.
"""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tasks.errors import InputError

RANGE_BYTES: Final = 32 << 20  # what one worker holds at a time; five times this in memory while it is parsed
MAX_ROW_BYTES: Final = 128 << 20
_HEAD: Final = 1 << 20
_ROW: Final = re.compile(rb"<row[\s/>]")
_DECLARATION: Final = re.compile(rb"""^<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
_MARKUP: Final = re.compile(rb"<[!?]")
# From there on: what is closed, one after another in one match, since a file can be 100 megabytes of `<?a?>` and a step
# in Python for each took a minute. Possessive, so that no way back is kept in memory.
_CLOSED: Final = re.compile(rb"(?:(?:<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>)[ \t\r\n]*+)++", re.DOTALL)
_BLANK: Final = bytes(byte if byte in b"\r\n" else ord(" ") for byte in range(256))
_WHERE: Final = re.compile(r"(?:, line [0-9]+, column [0-9]+)?(?: \(<string>, line [0-9]+\))?$")
_CLOSERS: Final = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}


@dataclass(frozen=True)
class Cut:
    """A file and the byte ranges of its rows; the last range ends with the file."""

    path: Path
    ranges: list[tuple[int, int]]


def cut(path: Path, shown: str, root: str, scratch: Path, *, plain: bool = False) -> Cut:
    """Where to cut the file at `path`, whose root element must be `root`.

    `shown` is what messages call it. `plain` says that comments and the like may be there and are to be blanked out.
    Copies, where needed, go to the folder `scratch`. Raises InputError for what is no such file.
    """
    with open(path, "rb") as handle:
        head = handle.read(_HEAD)
        _refuse_strangers(head, shown)
        encoding = _encoding(head, shown)
        size = path.stat().st_size
    if encoding is not None:
        path = _transcoded(path, shown, encoding, scratch)
    if plain:
        path = _blanked(path, shown, scratch)
    with open(path, "rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(0)
        head = handle.read(_HEAD)
        first = _ROW.search(head)
        if first is None and size > _HEAD:
            raise InputError(f"{shown} is not a dump: there is no <row> in its first {_HEAD} bytes")
        header = head[: first.start()] if first else head
        if not plain and (b"<!" in header or header.count(b"<?") > 1):
            return cut(path, shown, root, scratch, plain=True)
        _check_root(header, shown, root, whole=first is None)
        if first is None:
            return Cut(path, [])
        starts = [first.start()]
        while (found := _next_row(handle, starts[-1] + RANGE_BYTES, size, shown)) is not None:
            starts.append(found)
    return Cut(path, list(zip(starts, [*starts[1:], size], strict=True)))


def _refuse_strangers(head: bytes, shown: str) -> None:
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:200].lower()
    if not start:
        raise InputError(f"{shown} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{shown} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        raise InputError(f"{shown} is a web page, not a dump: the download went wrong")


def _encoding(head: bytes, shown: str) -> str | None:
    """The encoding to translate from, or None for UTF-8."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
        (b"<\0?\0", "utf-16-le"), (b"\0<\0?", "utf-16-be"),
    ):  # fmt: skip
        if head.startswith(mark):
            return name
    declared = _DECLARATION.match(head.removeprefix(codecs.BOM_UTF8))
    if declared is None:
        return None
    said = declared[1].decode("ascii")
    try:
        name = codecs.lookup(said).name
    except LookupError:
        name = ""
    if name in ("utf-8", "ascii"):
        return None
    if not name.startswith(("utf-16", "utf-32", "iso8859", "cp125", "koi8")):  # Python has "encodings" that unzip
        raise InputError(f"{shown} says that it is in {said!r}, which is not an encoding that a dump may have")
    return name


def _transcoded(path: Path, shown: str, encoding: str, scratch: Path) -> Path:
    """A copy in UTF-8, its XML declaration blanked out since what it says no longer holds."""
    copy = scratch / f"{path.name}.utf-8"
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    with open(path, "rb") as source, open(copy, "wb") as target:
        declared = True
        try:
            while chunk := source.read(_HEAD):
                text = decoder.decode(chunk)
                if declared:
                    text = re.sub(r"^\ufeff?\s*<\?xml[^>]*\?>", lambda found: re.sub(r"[^\n]", " ", found[0]), text)
                    declared = False
                target.write(text.encode("utf-8"))
            decoder.decode(b"", True)
        except UnicodeError as error:
            raise InputError(f"{shown} is damaged: it says {encoding} and has bytes that are not: {error}") from error
    return copy


def _blanked(path: Path, shown: str, scratch: Path) -> Path:
    """A copy whose comments, CDATA sections and processing instructions are spaces: places and lines stay right."""
    copy = scratch / f"{path.name}.plain"
    with open(path, "rb") as source, open(copy, "wb") as target:
        closer = b""  # of what the end of the chunk before left open
        rest = b""
        while True:
            chunk = source.read(8 << 20)
            data = rest + chunk
            out, rest, closer = _blank(data, closer, shown, last=not chunk)
            target.write(out)
            if not chunk:
                break
        if closer:
            raise InputError(f"{shown} is cut short: the end of a comment ({closer.decode()}) is not there")
    return copy


def _blank(data: bytes, closer: bytes, shown: str, *, last: bool) -> tuple[bytes, bytes, bytes]:
    """What can be written of `data`, what must wait for more, and the closer of what is still open."""
    out = bytearray()
    at = 0
    while True:
        if closer:
            end = data.find(closer, at)
            if end < 0:
                keep = len(data) if last else max(at, len(data) - 2)
                out += spaces(data[at:keep])
                return bytes(out), data[keep:], closer
            out += spaces(data[at : end + len(closer)])
            at, closer = end + len(closer), b""
        found = _MARKUP.search(data, at)
        if found is None:
            keep = len(data) if last else max(at, len(data) - 1)
            return bytes(out + data[at:keep]), data[keep:], b""
        start = found.start()
        out += data[at:start]
        closed = _CLOSED.match(data, start)
        if closed is not None:
            out += spaces(closed[0])
            at = closed.end()
            continue
        if len(data) - start < 9 and not last:
            return bytes(out), data[start:], b""
        mark = next((mark for mark in _CLOSERS if data.startswith(mark, start)), None)
        if mark is None:
            raise InputError(
                f"{shown} is refused: it has a document type or an entity declaration, which no dump has and which "
                "could make it grow without end"
            )
        closer = _CLOSERS[mark]
        at = start + len(mark)
        out += spaces(data[start:at])


def spaces(data: bytes) -> bytes:
    """As long as `data` and with its ends of lines, and nothing else."""
    return data.translate(_BLANK)


def parser_said(message: object) -> str:
    """What lxml says is wrong, without where: it counts from the beginning of what it was given."""
    return _WHERE.sub("", " ".join(str(message).split()))[:200]


def _check_root(header: bytes, shown: str, root: str, *, whole: bool) -> None:
    """Refuse a file whose root is not `root`. `header` ends before the first row, or is the `whole` file."""
    from lxml import etree

    parser = etree.XMLPullParser(events=("start",), encoding="utf-8", no_network=True, load_dtd=False)
    tags = []
    try:
        parser.feed(header.removeprefix(codecs.BOM_UTF8) + (b"" if whole else b"<row />"))
        tags = [element.tag for _, element in parser.read_events()]
        if whole:
            parser.close()
    except (etree.XMLSyntaxError, ValueError) as error:
        said = parser_said(error)
        raise InputError(f"{shown} is not a dump, or is damaged at its very beginning: {said}") from error
    if tags[:1] != [root] or len(tags) != 2 - whole:
        found = f"its root is <{tags[0]}>" if tags else "it has no root"
        wanted = f"<{root}> with rows"
        if tags[:1] == [root]:
            found, wanted = f"there is a <{tags[1]}>", "a <row>"
        raise InputError(f"{shown} is not a dump: {found} where {wanted} was expected")


def _next_row(handle: IO[bytes], at: int, size: int, shown: str) -> int | None:
    """Where the first row at or after the byte `at` begins."""
    limit = at + MAX_ROW_BYTES
    while at < size:
        if at > limit:
            raise InputError(f"{shown} is refused: a row is longer than {MAX_ROW_BYTES} bytes near byte {at}")
        handle.seek(at)
        block = handle.read(256 << 10)
        found = _ROW.search(block)
        if found:
            return at + found.start()
        at += max(1, len(block) - 4)  # the mark may lie across the edge
    return None
