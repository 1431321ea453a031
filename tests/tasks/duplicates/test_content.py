"""Normalised texts and the keys that stand for them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.duplicates.content import EMPTY, content_key, key_series, normalised


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Why  is it\r\n flat?\t", "why is it flat?"),
        ("  \n\x1c\x0b ", ""),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("\ufb01ne caf\u00e9", "fine caf\u00e9"),
        ("cafe\u0301", "caf\u00e9"),
        ("no\u00a0break\u2028line\u3000wide", "no break line wide"),
        ("½ cup, 10⁻³", "1⁄2 cup, 10−3"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
    ],
)
def test_what_reads_the_same_is_the_same(said: str, meant: str) -> None:
    assert normalised(said) == meant


@given(st.text(st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_gives_what_the_long_way_gives(text: str) -> None:
    assert normalised(text) == " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert "  " not in once and once == once.strip()


def test_keys_are_numbers_of_128_bits() -> None:
    # xxh3_128("") is 99aa06d3014798d86001c324468d497f in the reference implementation.
    assert content_key("").hex() == "99aa06d3014798d86001c324468d497f"
    assert EMPTY.to_list() == [0x99AA06D3014798D86001C324468D497F]
    keys = [content_key(text) for text in ("a", "b", "a")]
    assert key_series(keys).to_list() == [int.from_bytes(key, "big") for key in keys]
