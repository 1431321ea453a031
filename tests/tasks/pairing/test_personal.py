"""What is masked and what only looks like it: the table is the specification."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest import SourceConfig, ingest_source
from tasks.pair import PairConfig, pair
from tasks.pairing.personal import PLACEHOLDERS, mask
from tasks.store import Store
from tests.tasks.test_pair import answer, outcome, question, write_dump


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail john.doe+x@gmail.com.", "mail EMAIL_ADDRESS."),
        ("[me](mailto:a_b@uni-koeln.de)", "[me](mailto:EMAIL_ADDRESS)"),
        ("```\nFrom: Ann <ann@mail.co.uk>\n```", "```\nFrom: Ann <EMAIL_ADDRESS>\n```"),  # code is masked, too
        ("from 93.184.216.34 port 22", "from IP_ADDRESS port 22"),
        ("http://93.184.216.34:8080/x", "http://IP_ADDRESS:8080/x"),
        ("ip=93.184.216.34;", "ip=IP_ADDRESS;"),
        ("at 2a00:1450:4001:82a::200e.", "at IP_ADDRESS."),
        ("call +49 221 123 4567!", "call PHONE_NUMBER!"),
        ("call +1-212-736-5000", "call PHONE_NUMBER"),
        ("(212) 736-5000 or 212-736-5000", "PHONE_NUMBER or PHONE_NUMBER"),
        ("tel:+442079460000", "tel:PHONE_NUMBER"),
        (
            "us (+49 221 1234567; 212-736-5000) or her (212-736-5000)",
            "us (PHONE_NUMBER; PHONE_NUMBER) or her (PHONE_NUMBER)",
        ),
        (
            "Connected to /93.184.216.34:8080 and host/93.184.216.34",
            "Connected to /IP_ADDRESS:8080 and host/93.184.216.34",
        ),
    ],
)
def test_personal_data_is_masked(text: str, masked: str) -> None:
    found, tally = mask(text)
    assert found == masked
    assert sum(tally.values()) == sum(masked.count(word) for word in PLACEHOLDERS.values())


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com, root@localhost, a@b.test",  # reserved for examples (RFC 2606, 6761)
        "git@github.com:torvalds/linux.git",
        "@property @user x@y $a@b$ |0>@|1>",
        "1.2.3.4 is a version, so is v10.20.30.40, version 10.20.30.40 and Chrome/99.10.20.30",
        "base >=4.14.10.0 && <4.15, base^>=4.14.10.0, numpy==1.26.14.0",
        "91.0.4472.124 1.3.6.1.4.1.311 10.20.30.40-beta 300.1.20.30",
        "10.0.0.138 127.0.0.1 192.168.178.1 169.254.10.20 224.0.10.20 203.0.113.7",  # nobody's, RFC 5737 included
        "nameserver 8.8.8.8",
        "std::vector a::b 12:30:45 2019:10:22 ::1 fe80::1 2001:db8::1",
        "+1 for this; x+1234567890; + 4.5; +1.23456789; +123456789",
        "2014-01-21 1234567890 3.14159-26535 978-3-16-148410-0 10.1000/182 555-0123 (212) 555-0123",
        "icon@2x.png logo-big@3x.jpg f(+1234567890) call(212-736-5000) lib/93.10.20.30/x ~/93.10.20.30",
        "[1]: https://bread.stackexchange.com/a/1234567890",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert mask(text) == (text, dict.fromkeys(PLACEHOLDERS, 0))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="a1.@:+-() 2/v", max_size=60))
def test_masking_twice_finds_nothing_new_but_what_the_first_left_bare(text: str) -> None:
    once, tally = mask(text)
    assert (once == text) == (sum(tally.values()) == 0)


@pytest.mark.parametrize("piece", ["a", "a.", "a@", "1.", "+1 ", "1 ", "2001:", "(212) ", "-", "a.b-", "%"])
def test_a_million_characters_of_the_worst_come_back(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert len(mask(text)[0]) <= len(text) * 2


def test_the_counts_are_those_of_the_placeholders_in_the_pairs(tmp_path: Path) -> None:
    site = "bread.stackexchange.com"
    rows = [
        question(1, Body="<p>Ask me@mail.org or 93.184.216.34</p>"),
        answer(2, 1, 9, Body="<p>+49 221 123 4567, you@mail.org, me@mail.org</p>"),
        answer(3, 1, 3, Body="<p>10.0.0.1</p>"), answer(4, 1, 0, Body="<p>x</p>"),
    ]  # fmt: skip
    source = ingest_source(Store(tmp_path), SourceConfig(path=str(write_dump(tmp_path / "dumps" / site, rows))))

    def texts(**keys: bool) -> tuple[dict[str, int], str]:
        done, pairs, _ = outcome(pair(Store(tmp_path), [source], PairConfig.model_validate(keys), 42))
        return done.counts, "\n".join(pairs.select("prompt", "chosen", "rejected").to_series(0).to_list()
                                      + pairs["chosen"].to_list() + pairs["rejected"].to_list())  # fmt: skip

    counts, plain = texts()
    assert "masked.email" not in counts
    assert "me@mail.org" in plain
    counts, said = texts(mask_personal=True)
    assert "mail.org" not in said and "10.0.0.1" in said
    for kind, word in PLACEHOLDERS.items():
        assert counts[f"masked.{kind}"] == said.count(word)
    assert (counts["masked.email"], counts["masked.ip"], counts["masked.phone"]) == (7, 3, 2)
