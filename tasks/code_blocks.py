"""Code blocks of a Markdown text: the one place that says what counts as code.

Code is the lines of a block of either form that CommonMark knows, with their line ends:

* fenced: from a line of three or more backticks or tildes to its like, both included, so that a text that is one block
  is code altogether; a fence that is not closed holds all that follows in its quotation or list item;
* indented: lines that stand four columns or more beyond what holds them, after an empty line, a heading or a block. A
  further paragraph of a list item is none, however deep the item stands.

Code within a line (`x = 1`) is prose, and so is what stands between tags of HTML.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_MAY_HOLD: Final = re.compile(r"```|~~~|^[ >]*(?: {4}|\t)", re.MULTILINE)
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_QUOTE: Final = re.compile(r"( *)> ?")
_FENCE: Final = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_ITEM: Final = re.compile(r"(?:[-+*]|[0-9]{1,9}[.)])( +|$)")
_HEADING: Final = re.compile(r"#{1,6}(?: |$)|=+$")
_DEEPEST: Final = 50  # list items in each other that are looked at: a line may hold a million
_BLOCK: Final = 4  # columns beyond what holds it, from which a line is code


class _Fence(NamedTuple):
    """A fence that is open: how it is written, in how many quotations, from which column of a list item on."""

    mark: str
    quotes: int
    margin: int


def code_chars(text: str) -> int:
    """Characters of a Markdown text that stand in code blocks."""
    return len(text) - len(without_code(text))


def code_share(text: str) -> float:
    """Characters that stand in code blocks, of all characters of a Markdown text; 0 to 1, and 0 for an empty text."""
    return code_chars(text) / max(1, len(text))


def without_code(text: str) -> str:
    """A Markdown text without the lines of its code blocks."""
    if _MAY_HOLD.search(text) is None:  # as in most texts
        return text
    return "".join(line for line, is_code in _lines(text) if not is_code)


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line with its end, and whether it is code."""
    fence: _Fence | None = None
    margins: list[list[int]] = [[]]  # for each quotation: the columns at which the contents of its list items begin
    in_paragraph = in_block = False
    empty: list[str] = []  # code where an indented block goes on after them
    for line in _LINE.findall(text):
        if fence is not None:
            quotes, indent, rest = _split(line, fence.quotes, margins)
            if quotes == fence.quotes and (not rest or indent >= fence.margin):
                yield line, True
                if indent < fence.margin + _BLOCK and rest.startswith(fence.mark) and not rest.strip(fence.mark[0]):
                    fence = None
                continue
            fence = None  # what holds it is over, and so is the block
        quotes, indent, rest = _split(line, len(line), margins)
        if not rest:
            in_paragraph = False
            empty.append(line)
            continue
        opened = _FENCE.match(rest)
        in_paragraph = in_paragraph and quotes < len(margins)  # a quotation that begins ends it
        new_block = opened or _is_rule(rest) or _HEADING.match(rest) or _ITEM.match(rest)
        if new_block or not in_paragraph:  # else it goes on with the paragraph before it, wherever it stands
            margins = [*margins[: quotes + 1], *([] for _ in range(quotes + 1 - len(margins)))]
            margins[-1] = [column for column in margins[-1] if column <= indent]
        margin = max(margins[-1], default=0)
        goes_on, in_block = in_block, not in_paragraph and indent >= margin + _BLOCK
        yield from ((one, goes_on and in_block) for one in empty)
        empty = []
        if in_block:
            yield line, True
            continue
        while len(margins[-1]) < _DEEPEST and indent < margin + _BLOCK and not _is_rule(rest):
            item = _ITEM.match(rest)
            if item is None:
                break
            margin = indent = indent + max(item.end(), item.start(1) + 1)
            margins[-1].append(margin)
            rest = rest[item.end() :]
        opened = _FENCE.match(rest) if indent < margin + _BLOCK else None
        if opened is not None:
            fence = _Fence(opened[1] or opened[2], quotes, margin)
        in_paragraph = rest != "" and not (opened or _is_rule(rest) or _HEADING.match(rest))
        yield line, opened is not None
    yield from ((one, False) for one in empty)


def _split(line: str, most: int, margins: list[list[int]]) -> tuple[int, int, str]:
    """Marks of quotations before a line, `most` at most; columns that it is indented by after them; the rest of it.

    A mark that is indented as code is none, as in `    > x`, a prompt of R.
    """
    quotes = at = 0
    while quotes < most and (mark := _QUOTE.match(line, at)) is not None:
        blanks = len(mark[1])
        if blanks >= _BLOCK:
            columns = margins[quotes] if quotes < len(margins) else []
            if blanks >= _BLOCK + max((column for column in columns if column <= blanks), default=0):
                break
        quotes, at = quotes + 1, mark.end()
    body = line[at:].expandtabs(4).rstrip()
    rest = body.lstrip(" ")
    return quotes, len(body) - len(rest), rest


def _is_rule(rest: str) -> bool:
    """Three or more of one of these marks and nothing else: a rule, before it is a list in a list in a list."""
    return rest[:1] in ("-", "*", "_") and not rest.strip(rest[0] + " ") and rest.count(rest[0]) >= 3
