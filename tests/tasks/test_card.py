"""The data card of pairs that nothing has been trained on, made as the data flow makes it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.plain import plain_steps
from flows.recipe import Recipe
from flows.stages import data_stages
from tasks.manifest import Manifest
from tasks.store import Store
from tests.tasks.test_pair import answer, question, write_dump

SITE = "bread.stackexchange.com"
Run = Callable[..., tuple[Manifest, str]]


@pytest.fixture
def carded(tmp_path: Path) -> Run:
    """The card stage of a small made dump under the given keys of `pair` and `dedupe`, and its text."""
    rows: list[dict[str, Any]] = []
    for number in range(20):
        asked = 10 * number + 1
        year = 2010 + number % 4
        rows.append(question(asked, CreationDate=f"{year}-01-01T00:00:00", Body=f"<p>Why {number}? me@mail.org</p>"))
        rows += [
            answer(asked + 1, asked, 9, Body=f"<p>Long, since {number}, and so on.</p>", OwnerUserId=7),
            answer(asked + 2, asked, 0, OwnerUserId=number),
        ]  # fmt: skip
    dump = write_dump(tmp_path / "dumps" / SITE, rows, {7: "Ann | [x](y)"})

    def run(name: str = "made", **keys: Any) -> tuple[Manifest, str]:
        settings = {
            "model": "none", "work_dir": str(tmp_path / "work"), "ingest": {"sources": [str(dump)]},
            "sample": {"size": None, "held_out": 4}, "publish": {"name": name}, **keys,
        }  # fmt: skip
        store = Store(tmp_path / "work")
        before = set((tmp_path / "work" / "store").glob("card-*"))
        for _ in data_stages(plain_steps(), store, Recipe.model_validate(settings)):
            pass
        (folder,) = set((tmp_path / "work" / "store").glob("card-*")) - before
        manifest = Manifest.read(folder)
        assert manifest is not None
        return manifest, manifest.path("data_card.md").read_text("utf-8")

    return run


def test_it_says_what_came_in_and_what_was_left(carded: Run) -> None:
    made, card = carded()
    assert made.counts == {"pairs": 16, "questions": 16, "posts": 48}
    assert "| training pairs drawn | 16 |" in card
    assert f"| {SITE} | 16 | 100.0 % |" in card
    assert "None is on." not in card  # duplicates are dropped by default
    assert "| exact duplicates dropped | on |" in card
    assert "the chosen answer has more characters | 100.0 % |" in card
    assert "tokens" not in card
    for year in (2010, 2013):
        assert f"| {year} | " in card
    for plot in ("lengths", "years"):
        assert f"](plots/{plot}.png)" in card
    attribution = pl.read_csv(made.path("attribution.csv"))
    assert attribution.height == 48
    assert "Ann | [x](y)" in attribution["author"].to_list()
    assert "Ann \\| \\[x\\](y)" in card


def test_switches_and_takedown_are_told_without_naming_anybody(carded: Run, tmp_path: Path) -> None:
    bench = tmp_path / "secret-place" / "bench.txt"
    bench.parent.mkdir()
    bench.write_text("A prompt of five words\n", "utf-8")
    made, card = carded(
        pair={"exclude": [f"{SITE}/users/5", f"{SITE}/q/9999"], "mask_personal": True, "max_length_ratio": 9,
              "languages": ["en"], "drop_closed": True},
        dedupe={"near": False, "decontaminate": {"paths": [str(bench)], "ngram": 5}},
    )  # fmt: skip
    assert "| longer answer at most so many times the shorter | 9 |" in card
    assert "| languages | en |" in card
    assert "| pairs of benchmarks dropped | 5 words in a row of prompt or answers |" in card
    assert "2 ids of posts, users and pairs are left out by name; 1 of them no source has." in card
    assert "email 19, phone 0, ip 0." in card  # twenty pairs less one
    assert "excluded 1" in card
    assert "personal data was masked" in card
    everything = card + json.dumps(made.config)
    assert 'users/5"' not in everything and "9999" not in everything and "secret-place" not in everything


def test_the_same_data_gives_the_same_bytes_and_training_settings_are_no_matter(carded: Run) -> None:
    first, _ = carded()
    again, _ = carded(name="other")
    assert first.files["plots/lengths.png"].sha256 == again.files["plots/lengths.png"].sha256
    with pytest.raises(ValueError, match="not enough values"):
        carded(train={"learning_rate": 1e-3})  # nothing new was made
