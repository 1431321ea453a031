"""The quick reader gives what the parser gives, or leaves the range to it."""

from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.sources import fast_rows
from tasks.sources.fast_rows import fast_rows as quickly
from tasks.sources.rows import Damaged, HasMarkup, _parse

WANTED = ("Id", "Body", "Tags", "Missing")


def agree(data: bytes, *, last: bool = True) -> bool:
    """Whether the quick reader took `data`; it must then have read what the parser reads."""
    found = quickly(data, WANTED, "posts", last=last)
    if found is None:
        return False
    rows, offsets = _parse(data, WANTED, "posts", last=last)
    columns, places = found
    assert places == offsets
    assert list(zip(*(column.to_list() for column in columns), strict=True)) == rows
    return True


def row(values: dict[str, str]) -> str:
    escapes = {"\n": "&#xA;", "\r": "&#xD;", "\t": "&#x9;", '"': "&quot;"}
    return "  <row " + " ".join(f"{name}={quoteattr(value, escapes)}" for name, value in values.items()) + " />\r\n"


TEXT = st.text(
    st.characters(exclude_categories=["Cs"]).filter(lambda char: char >= " " or char in "\t\n\r"), max_size=30
).filter(lambda text: "\ufffe" not in text and "\uffff" not in text)
OTHERS = {name: TEXT for name in ("Body", "Tags", "Score", "LastEditorDisplayName")}
ROWS = st.lists(st.fixed_dictionaries({"Id": TEXT}, optional=OTHERS), min_size=1, max_size=5)


@given(ROWS, st.booleans())
@settings(deadline=None, max_examples=150)
def test_every_dump_is_taken_and_read_as_the_parser_reads_it(rows: list[dict[str, str]], last: bool) -> None:
    data = "".join(map(row, rows)).lstrip() + ("</posts>" if last else "")
    assert agree(data.encode(), last=last)


PIECES = st.sampled_from(
    ['"', "'", "<", ">", "/", "&", ";", "=", " ", "\n", "\t", "\0", "\x1f", "&lt;", "&#65;", "&#0;", "&#xD800;", "&x;",
     "<row ", ' Id="1"', ' Body="', "/>", "</row>", "<!--", "-->", "<?a?>", "]]>", "é", "\ufffe", " xmlns=",
     "</posts>", "\r\n"]
)  # fmt: skip


@given(
    ROWS,
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), PIECES | st.binary(max_size=3)), min_size=1, max_size=3),
    st.booleans(),
)
@settings(deadline=None, max_examples=600)
def test_whatever_is_changed_in_a_dump_the_two_never_disagree(
    rows: list[dict[str, str]], changes: list[tuple[float, int, str | bytes]], last: bool
) -> None:
    data = ("".join(map(row, rows)).lstrip() + ("</posts>" if last else "")).encode()
    for where, length, piece in changes:
        at = int(where * len(data))
        data = data[:at] + (piece if isinstance(piece, bytes) else piece.encode()) + data[at + length :]
    try:
        agree(data, last=last)
    except (Damaged, HasMarkup) as refusal:
        raise AssertionError(f"the quick reader took what the parser refuses: {data!r}") from refusal


@pytest.mark.parametrize(
    "data",
    [
        b'<row Id="1" Body="a\tb\r\nc\rd\ne&#x9;&#xA;f" /></posts>',
        b'<row Id="1" Body="&#65;&#x1F600;&amp;#66;&amp;amp;" Tags="&#x3c;a&#62;" /></posts>\r\n',
        b'<row\tId = "1"\n Body= "x"/>\n\n<row Body="" Id="&#50;"/></posts>',
        b'<row Id="1" /><row  Id="2" /> <row Tags="x" /></posts >',
        '<row Id="\N{GREEK SMALL LETTER ALPHA}" Body="it\'s >" /></posts>'.encode(),
    ],
)
def test_odd_but_valid_rows_are_taken(data: bytes) -> None:
    assert agree(data)


@pytest.mark.parametrize(
    "data",
    [
        b"</posts>", b'<row Id="1" Id="2" /></posts>', b"<row Id='1' /></posts>", b'<row Id="1" ></row></posts>',
        b'<row Id="1"Body="2" /></posts>', b'<row xmlns="a" Id="1" /></posts>',
        b'<row Id="1" /><post Id="1" /></posts>',
        b'<row Id="a<b" /></posts>', b'<row Id="&nbsp;" /></posts>', b'<row Id="a\0" /></posts>', b'<row Id="1" />',
        b'<row Id="\xff" /></posts>', b'<row Id="\xef\xbf\xbf" /></posts>', b'<row Id="1" /></users>', b'<row Id="1',
        b'<row Unwanted="\xed\xa0\x80" /></posts>', b'<row ' + b"A" * 40 + b'="1" /></posts>',
    ],
)  # fmt: skip
def test_what_is_no_plain_dump_is_left_to_the_parser(data: bytes) -> None:
    assert quickly(data, WANTED, "posts", last=True) is None


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(fast_rows, "_BLOCK", block)
    rows = [
        {"Id": str(number), "Body": "é&" * number, **({"Tags": "&#x9;"} if number % 3 else {})} for number in range(60)
    ]
    assert agree(("".join(map(row, rows)).lstrip() + "</posts>").encode())
