r"""A post's HTML -> Markdown.

The library does the work. What it does not know of is LaTeX, which Stack Exchange leaves in the text for MathJax: it
would double a `\\` at the end of a line, escape a line that begins with `+`, and drop indentation. So maths and
backslashes are put away before and put back after.
"""

import re
from bisect import bisect_left
from dataclasses import replace
from functools import cache
from html import unescape
from typing import TYPE_CHECKING, Final, NamedTuple

from tasks.pairing.outsized import LONG, outsized
from tasks.pairing.paragraphs import plain_paragraphs

if TYPE_CHECKING:
    from collections.abc import Callable

    from html_to_markdown._html_to_markdown import ConversionOptions as NativeOptions
    from html_to_markdown._html_to_markdown import ConversionResult

# A stand-in is a number between two of one of these characters; a post that has the first is given the next.
_MARKS: Final = [chr(code) for code in range(0xE0A0, 0xE0E0)]  # private use
_TAG: Final = re.compile(r"<(/?)(pre|code)?(?![a-zA-Z0-9])[^<>]*>|<[^<>]*>", re.IGNORECASE)
_AWAY: Final = re.compile(
    r"\\\$"  # a dollar that is none of MathJax's
    r"|\$\$[^$]+\$\$"
    r"|\$[^$]+\$"
    r"|\\begin\{([a-zA-Z]+\*?)\}"
    r"|\\+"
)
_QUOTE: Final = re.compile("[> ]*")
_ENVIRONMENT_END: Final = re.compile(r"\\end\{([a-zA-Z]+\*?)\}")
_LONGEST_ENVIRONMENT: Final = 4_000  # characters
# Over posts with no other tags than these the library's quick way gives the same in half the time. It knows not where a
# numbered list starts, has other bullets for a list in a list, and leaves out the outer one of two quotations that
# begin together.
_NOT_PLAIN: Final = re.compile(
    r"<(?:(?!/?(?:(?:p|a|em|strong|code|pre|img|h[1-3]|b|i|ul|li|blockquote|hr|br)[ >]|ol>))|/ul>\s*</li>"
    r"|blockquote>\s*<blockquote>)"
)
# In a quotation the library puts a paragraph right below the list before it, which makes it part of the last item, and
# one quotation right below another, which makes them one: a paragraph of the first goes on in the second.
_LAST_OF_LIST: Final = re.compile(r"</[uo]l>(?=\s*<p>)")
_LAST_OF_QUOTATION: Final = re.compile(r"</blockquote>(?=(?:\s|<!--[^<>]*-->)*+<blockquote)")
_BETWEEN: Final = "{0}x{0}"  # no stand-in, which has a number
# The quick way gives up at an image in a link, as the editor makes them, only to go the long way then. Most are a
# paragraph of this form, and no character of theirs would be written otherwise in Markdown.
_LINKED_IMAGE: Final = re.compile(
    r'<p><a href="(https?://[\w./?=%:-]+)"(?: rel="[a-z ]+")?><img src="(https?://[\w./?=%:-]+)" '
    r'alt="([\w.,:-]+(?: [\w.,:-]+)*)"></a></p>',
    re.ASCII,
)
_GROWTH: Final = 5  # times the HTML; links made absolute and tables in pipes stay far below
_LONGEST_MATHS: Final = 200_000  # characters of a post; no true one has more, and the search could take long


class Converted(NamedTuple):
    """What became of a post."""

    text: str
    complete: bool
    """False where the HTML is too deep or too odd to be converted whole."""


def to_markdown(html: str, site: str) -> Converted:
    """The Markdown of a post of `site`, stripped. Links relative to the site are made absolute, code is left alone."""
    library = _library(site)
    plain = len(html) <= LONG and _NOT_PLAIN.search(html) is None
    if outsized(html, cells=not plain):
        return Converted("", False)
    paragraphs = plain_paragraphs(html)
    if paragraphs is not None:
        return Converted(paragraphs, True)
    hidden, mark = html, None
    away: list[str] = []
    if ("$" in html or "\\" in html) and len(html) <= _LONGEST_MATHS:
        mark = next((mark for mark in _MARKS if mark not in html), None)
        if mark is not None:
            hidden = _put_away(html, mark, away)
    options = library.options
    if plain:
        if '"><img' in html:
            hidden = _LINKED_IMAGE.sub(r"<p>[![\3](\2)](\1)</p>", hidden)
        if '"><img' not in hidden:
            options = library.plain_options
    if "</blockquote>" in hidden:
        hidden, mark = _apart(hidden, mark)
    # Without the empty paragraph a table in a div runs into a quotation that follows.
    if not plain and "</table>" in hidden:
        hidden = hidden.replace("</table>", "</table><p></p>")
    if '<pre class="lang-none ' in hidden:
        hidden = hidden.replace('<pre class="lang-none ', '<pre class="')
    try:
        result = library.convert(hidden, options)
    except library.failures:  # what it panics at, too: lists in preformatted text, and what else no editor makes
        return Converted("", False)
    text = result.content or ""
    if mark is not None and (between := _BETWEEN.format(mark)) in text:
        text = re.sub(f"(?m)^[> ]*{between}\n|{between}", "", text)
    if away:
        text = _put_back(text, str(mark), away)
    warnings = result.warnings
    if len(text) > max(LONG, _GROWTH * len(html)):
        return Converted("", False)
    complete = not warnings or all(str(warning.kind) != "depth_limit_exceeded" for warning in warnings)
    return Converted(text.strip(), complete)


def _apart(html: str, mark: str | None) -> tuple[str, str | None]:
    """`html` with something between a list and a paragraph, and between a quotation and the next, which has a mark."""
    html = _LAST_OF_LIST.sub(r"\g<0><div></div>", html)
    if _LAST_OF_QUOTATION.search(html) is not None:
        mark = mark or next((mark for mark in _MARKS if mark not in html), None)
        if mark is not None:
            html = _LAST_OF_QUOTATION.sub(rf"\g<0><p>{_BETWEEN.format(mark)}</p>", html)
    return html, mark


def _put_away(html: str, mark: str, away: list[str]) -> str:
    """`html` with a stand-in for each piece of maths and each backslash of its text; code and tags are left alone."""

    def hide(text: str) -> str:
        if "$" not in text and "\\" not in text:  # as in most texts
            return text
        kept = []
        at = 0
        ends: dict[str, list[int]] | None = None
        while (found := _AWAY.search(text, at)) is not None:
            start, end = found.span()
            if found[1]:
                ends = _environment_ends(text) if ends is None else ends
                close = _next_near(ends.get(found[1], []), end)
                end = start + 1 if close is None else close + len(f"\\end{{{found[1]}}}")
            kept += [text[at:start], f"{mark}{len(away)}{mark}"]
            away.append(unescape(text[start:end]))
            at = end
        return "".join([*kept, text[at:]])

    pieces = []
    at = depth = 0
    for tag in _TAG.finditer(html):
        text = html[at : tag.start()]
        pieces += [text if depth else hide(text), tag[0]]
        at = tag.end()
        if tag[2]:
            depth = max(0, depth + (-1 if tag[1] else 1))
    text = html[at:]
    pieces.append(text if depth else hide(text))
    return "".join(pieces)


def _environment_ends(text: str) -> dict[str, list[int]]:
    r"""Where each `\end{name}` begins, by name. Looking ahead from each `\begin` took 5 s for 1 MB of them."""
    ends: dict[str, list[int]] = {}
    for found in _ENVIRONMENT_END.finditer(text):
        ends.setdefault(found[1], []).append(found.start())
    return ends


def _next_near(places: list[int], begun: int) -> int | None:
    """The first of `places` that an environment whose content begins at `begun` may reach to; None where none is."""
    number = bisect_left(places, begun)
    near = number < len(places) and places[number] <= begun + _LONGEST_ENVIRONMENT
    return places[number] if near else None


def _put_back(text: str, mark: str, away: list[str]) -> str:
    """`text` with what was put away; its further lines are quoted where its first one is."""
    place = re.compile(f"{mark}([0-9]+){mark}")
    line = looked = 0  # where the line begins, known of the text before `looked`: lines can be long and hold thousands

    def original(found: re.Match[str]) -> str:
        nonlocal line, looked
        piece = away[int(found[1])]
        if "\n" not in piece:
            return piece
        line = max(line, text.rfind("\n", looked, found.start()) + 1)
        looked = found.start()
        quoted = _QUOTE.match(text, line, looked)
        return piece.replace("\n", f"\n{quoted[0]}") if quoted and ">" in quoted[0] else piece

    return place.sub(original, text)


class _Library(NamedTuple):
    """html-to-markdown with its options made: its Python face makes them anew for each text, at twice the time."""

    convert: "Callable[[str, NativeOptions], ConversionResult]"
    options: "NativeOptions"
    plain_options: "NativeOptions"
    failures: type[Exception]


@cache
def _library(site: str) -> _Library:
    from html_to_markdown import ConversionOptions
    from html_to_markdown._html_to_markdown import convert
    from html_to_markdown.api import _to_rust_conversion_options
    from html_to_markdown.exceptions import ConversionError

    options = ConversionOptions(
        base_url=f"https://{site}/",
        bullets="-",
        sup_symbol="<sup>",  # Stack Exchange's own way of writing it; without a sign 10<sup>6</sup> would become 106
        sub_symbol="<sub>",
        compact_tables=True,  # columns padded to one width would be tokens for nothing
        extract_metadata=False,
        tier_strategy="tier2",
    )
    thorough = _to_rust_conversion_options(options)
    quick = _to_rust_conversion_options(replace(options, tier_strategy="tier1"))
    assert thorough is not None and quick is not None
    return _Library(convert, thorough, quick, ConversionError)
