"""Whether converting a post's HTML could take more time or memory than any true post's.

The converter takes quadratic time or memory over the attributes of one tag, over elements that are never closed or
stand deep in each other, and over cells said to span a thousand columns. Stack Exchange closes what it opens, nests a
dozen elements at most and lets nobody write spans: what is found here was made by no editor.
"""

import re
from collections import Counter
from typing import Final

LONG: Final = 50_000  # characters: no tag is so long, and a longer post is never converted the quick way
_MOST_OPEN: Final = 50  # elements open at once; at 450 `<pre>` in each other a post of 5 kB takes 50 ms
_MOST_SPANNED: Final = 10_000  # columns and rows that the cells of a post span in all
_LONG_TAG: Final = re.compile(f"<[^<>]{{{LONG}}}")
_TAG: Final = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_SPAN: Final = re.compile(r"(?:col|row)span\s*=\s*[\"']?\s*([0-9]+)", re.IGNORECASE)
# Elements without an end, and those that end where the next one begins.
_ENDLESS: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
    | {
        "p",
        "li",
        "dt",
        "dd",
        "td",
        "th",
        "tr",
        "tbody",
        "thead",
        "tfoot",
        "option",
        "optgroup",
        "rt",
        "rp",
        "colgroup",
    }
)

# Tags that begin no element which could stay open: the most of a long post's, and quicker to count than to read.
_SURELY_NONE: Final = ("</", "<p>", "<li>", "<br>")


def outsized(html: str, *, cells: bool = True) -> bool:
    """Whether `html` is not to be converted; `cells`: it may have some."""
    # In bytes: to make text small that is not all ASCII takes long, and no other letter becomes one of these four.
    may_span = cells and b"span" in html.encode(errors="replace").lower()
    if may_span and sum(int(span[:6]) for span in _SPAN.findall(html)) > _MOST_SPANNED:
        return True
    if len(html) > LONG and _LONG_TAG.search(html) is not None:
        return True
    tags = html.count("<")  # in most posts so few that no more need be asked
    if tags <= _MOST_OPEN or tags - html.count("</") <= _MOST_OPEN:
        return False
    begun = tags - sum(map(html.count, _SURELY_NONE))
    return begun > _MOST_OPEN and _most_open(html) > _MOST_OPEN


def _most_open(html: str) -> int:
    """How many elements are open where the most are; an end without a beginning ends nothing."""
    opened = Counter[str]()
    now = most = 0
    for end, tag in _TAG.findall(html):
        name = tag.lower()
        if name in _ENDLESS:
            continue
        if not end:
            opened[name] += 1
            now += 1
            most = max(most, now)
        elif opened[name]:
            opened[name] -= 1
            now -= 1
    return most
