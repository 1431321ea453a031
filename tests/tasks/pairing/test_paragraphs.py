"""Posts of nothing but plain paragraphs, whose Markdown is made without the converter: the same as it makes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.pairing.markdown import _library
from tasks.pairing.paragraphs import plain_paragraphs


def converted(html: str) -> str:
    library = _library("beer.stackexchange.com")
    return (library.convert(html, library.plain_options).content or "").strip()


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>One.</p>\n", "One."),
        ("<p>One  two.  \nThree \n four </p>\n\n<p>(Five) [six](seven) _a_ *b* `c` 1. d</p>\n",
         "One two.\nThree\nfour\n\n(Five) [six](seven) _a_ *b* `c` 1. d"),
        ("<p>a\n- b\n1. c\n# d</p>\n", "a\n- b\n1. c\n# d"),
        ('<p>"5 of 6" | ~~x~~\n---\n\ny</p>\n', '"5 of 6" | ~~x~~\n---\n\ny'),
    ],
)  # fmt: skip
def test_plain_paragraphs_keep_their_words_and_lose_blanks_that_say_nothing(html: str, expected: str) -> None:
    assert plain_paragraphs(html) == converted(html) == expected


@pytest.mark.parametrize(
    "text",
    ["a <em>b</em>", "a &amp; b", "a &lt; b", "a\\b", "$5 and $6", "a = b", "a\tb", "a\u00a0b", "é", "a\0b", "- a",
     "1. a", "12) a", "# a", "* a", "+ a", " - a", "~~~", "```", "___", "a</p>\n\n<p># b", "a</p>\n\n<p></p>\n\n<p>b",
     "a</p><p>b"],
)  # fmt: skip
def test_what_the_converter_may_do_something_to_is_left_to_it(text: str) -> None:
    assert plain_paragraphs(f"<p>{text}</p>\n") is None


@pytest.mark.parametrize("html", ["", "a", "<p>a", "<p>a</p>", "a</p>\n", "<p>", "<ul><li>a</li></ul>\n"])
def test_what_is_no_paragraph_is_left_to_it(html: str) -> None:
    assert plain_paragraphs(html) is None


WORDS = st.sampled_from(
    ["a", "Bc", "1", "12.", "3)", "-", "--", "+", "*", "#", ">", "=", "|", "~", "`", "_", "[x](y)", "!", '"', "'", "(",
     ".", "~~~", "```", "___", " ", "  ", "\n", "\n\n", "\n ", " \n", "\r", "\x0c", "é", "\u2003", "&amp;", "<br>",
     "</p>\n\n<p>", "</p>\n<p>"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=30).map("".join))
@settings(deadline=None, max_examples=2000)
def test_whatever_the_words_the_converter_makes_the_same_of_them(text: str) -> None:
    html = f"<p>{text}</p>\n"
    found = plain_paragraphs(html)
    if found is not None:
        assert found == converted(html)
