"""Foreign text made safe for where it is written: Markdown, HTML, CSV.

Names, titles and answers are written by strangers. None of them may become markup, a link, a formula or a second line.
"""

import html
import re
import unicodedata
from typing import Final

import polars as pl

# What means something inside a line of Markdown, tables and mathematics included; and what makes a bare address a link.
_MARKUP: Final = re.compile(r"([\\`*_\[\]|~$!])")
_ADDRESS: Final = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp)(:)|\b(www)(\.)")
# What a spreadsheet may take for the beginning of a formula, full-width forms included (OWASP, "CSV Injection").
_FORMULA: Final = r"^[=+\-@＝＋－＠]"
# Control characters, line and paragraph separators, and what turns the direction of text around.
_UNSEEN: Final = r"[\p{Cc}\p{Zl}\p{Zp}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}\x{feff}]+"
_DIRECTION: Final = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def one_line(text: str) -> str:
    """`text` without control characters, line ends and direction marks: single blanks in their place."""
    seen = "".join(" " if unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs") else letter for letter in text)
    return " ".join(_DIRECTION.sub(" ", seen).split())


def as_markdown(text: str) -> str:
    """`text` as part of a line of Markdown (not its beginning) that renders as these letters, in a table too."""
    escaped = _ADDRESS.sub(r"\1\3\\\2\4", _MARKUP.sub(r"\\\1", one_line(text)))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_html(text: str) -> str:
    """`text` as HTML, for content and for quoted attributes; line ends stay."""
    seen = "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs") else " " for letter in text
    )
    return html.escape(_DIRECTION.sub("", seen), quote=True)


def as_markdown_block(text: str) -> str:
    """`text` as a fenced block that it cannot leave: the fence is longer than any run of backticks in it."""
    plain = _DIRECTION.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    longest = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{plain}\n{fence}"


def csv_cell(column: str) -> pl.Expr:
    """The column's text as one line that no spreadsheet computes: a formula gets an apostrophe before it."""
    line = pl.col(column).str.replace_all(_UNSEEN, " ").str.strip_chars()
    return pl.when(line.str.contains(_FORMULA)).then("'" + line).otherwise(line).alias(column)


def excerpt(text: str, limit: int) -> str:
    """The first `limit` characters of `text`, with a mark where something was left out."""
    return text if len(text) <= limit else text[:limit].rstrip() + " […]"
