"""Tokens from the environment: without what surrounds them, and never in an error."""

import pytest

from tasks.credentials import credential
from tasks.errors import Surroundings


def test_white_space_around_a_token_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_secret\n")
    assert credential("HF_TOKEN") == "hf_secret"


@pytest.mark.parametrize("given", ["", " \n"])
def test_an_empty_token_is_none(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", given)
    assert credential("HF_TOKEN") is None
    monkeypatch.delenv("HF_TOKEN")
    assert credential("HF_TOKEN") is None


@pytest.mark.parametrize("given", ["sk-secret\nsecond", "sk-secret\x01", "sk-sécret"])
def test_what_no_header_takes_is_refused_without_being_quoted(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", given)
    with pytest.raises(Surroundings, match="JUDGE_TOKEN holds a line end or another character") as refused:
        credential("JUDGE_TOKEN")
    assert "cret" not in str(refused.value)
