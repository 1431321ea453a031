r"""The Markdown of a post that is nothing but paragraphs of plain text: some two of five posts are.

The converter gives the same for them (asserted over real posts and made ones) and takes twice as long. A post is left
to it that has a tag but `<p>`, a reference, a backslash or maths, a blank that is neither space nor line end, a letter
that is not ASCII, or a paragraph that begins like a list, a heading or other markup.
"""

import re
from typing import Final

_OPEN: Final = "<p>"
_CLOSE: Final = "</p>\n"
_BETWEEN: Final = "</p>\n\n<p>"
_PLAIN: Final = bytes(code for code in (ord("\n"), *range(ord(" "), ord("~") + 1)) if chr(code) not in "<>&\\$")
_MARKUP: Final = r"[-+*#_~`\s]|[0-9]+[.)]"  # what the converter would escape at the start of a paragraph
_FIRST: Final = re.compile(_MARKUP)
_FURTHER: Final = re.compile(rf"\n\n(?:{_MARKUP})")


def plain_paragraphs(html: str) -> str | None:
    """The Markdown of `html`, stripped; None where it is more than plain paragraphs."""
    if "=" in html or not html.isascii() or not html.startswith(_OPEN) or not html.endswith(_CLOSE):
        return None  # the sign comes with each tag that has attributes, and is found at once
    text = html[len(_OPEN) : -len(_CLOSE)].replace(_BETWEEN, "\n\n")
    if "<" in text or text.encode().translate(None, _PLAIN):
        return None
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    if _FIRST.match(text) or _FURTHER.search(text):
        return None
    return text.strip()
