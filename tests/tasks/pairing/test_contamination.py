"""Decontamination, driven as the pipeline drives it, and each of its steps against the plainest way of doing it."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.dedupe import DedupeConfig, dedupe
from tasks.duplicates.content import content_key, normalised
from tasks.errors import InputError
from tasks.manifest import Manifest, total
from tasks.pairing.contamination import BenchmarkFile, DecontaminateConfig, in_words, read_benchmark
from tasks.pairs import PAIR_SCHEMA
from tasks.store import Store, Workspace

PROMPT = "Write a function that takes a list of integers and gives back the largest of them, please."
SITE = "bread.stackexchange.com"
SAID = st.lists(st.sampled_from(["a", "b", "c", "é", "Bö", "x_y", "1"]), max_size=14).map(" ".join)

MakePairs = Callable[[list[tuple[str, str, str]]], Manifest]


@pytest.fixture
def paired(tmp_path: Path) -> MakePairs:
    """A pair stage of (prompt, chosen, rejected), named 1/2/3, 4/5/6, ..."""

    def make(texts: list[tuple[str, str, str]]) -> Manifest:
        def build(space: Workspace) -> dict[str, int]:
            rows = []
            for number, (prompt, chosen, rejected) in enumerate(texts):
                ids = [3 * number + place for place in (1, 2, 3)]
                rows.append(dict.fromkeys(PAIR_SCHEMA.names()) | {
                    "pair_id": f"{SITE}/{ids[0]}/{ids[1]}/{ids[2]}", "site": SITE, "question_id": ids[0],
                    "chosen_id": ids[1], "rejected_id": ids[2], "prompt": prompt, "chosen": chosen,
                    "rejected": rejected,
                })  # fmt: skip
            pl.DataFrame(rows, schema=PAIR_SCHEMA).write_parquet(space.folder / "pairs.parquet")
            return {"pairs": len(rows)}

        return Store(tmp_path / "work").stage("pair", 1, {"texts": len(texts)}, {}, build)

    return make


def run(pairs: Manifest, **keys: Any) -> tuple[Manifest, list[str], dict[str, str]]:
    """The manifest, the prompts that stay, and for each dropped pair_id of a benchmark the place that is written."""
    config = DedupeConfig.model_validate({"near": False, "decontaminate": keys})
    done = dedupe(Store(pairs.folder.parent.parent), pairs, config, 1)
    dropped = pl.read_parquet(done.path("dropped.parquet"))
    assert done.counts["pairs"] == done.counts["kept"] + total(done.counts, "dropped")
    assert dropped.height == total(done.counts, "dropped")
    found = dropped.filter(pl.col("reason") == "contaminated")
    assert done.counts.get("dropped.contaminated", 0) == found.height
    places = {row["pair_id"].removeprefix(f"{SITE}/"): row["place"] for row in found.iter_rows(named=True)}
    return done, pl.read_parquet(done.path("pairs.parquet"))["prompt"].to_list(), places


def test_neither_links_nor_raised_and_lowered_letters_hide_a_prompt(paired: MakePairs, tmp_path: Path) -> None:
    (tmp_path / "bench.txt").write_text(
        "Area in m2 of this one with H2O and CO2 near the lake at 103 kPa, a[i](x) and A (b)\n", "utf-8"
    )
    marked = (
        'Area in m<sup>2</sup> of [this one](https://a.com/x_(y)?z=1 "Two words") with H<sub>2</sub>O and '
        "CO<sub>2</sub> near [the **lake**](https://b.org/y) at 10<sup>3</sup> kPa, a[i](x) and [A](http://c.d/e) (b)"
    )
    pairs = paired([(marked, "a", "b"), (marked.replace("this one", "that one"), "c", "d")])
    done, stays, _ = run(pairs, paths=[str(tmp_path / "bench.txt")], ngram=19)
    assert done.counts["dropped.contaminated"] == 1
    assert len(stays) == 1 and "that one" in stays[0]


def test_links_without_end_are_read_in_time_in_proportion() -> None:
    for piece in ("](http:", "](http:)", "](http:(a", '](http:a "', "(a)", "<sup>"):
        assert in_words("](http:" + piece * (1_000_000 // len(piece))) is not None


def test_a_pair_that_shares_thirteen_words_goes_and_names_the_line(paired: MakePairs, tmp_path: Path) -> None:
    bench = tmp_path / "bench.txt"
    bench.write_text(f"Another prompt of no importance.\n\n{PROMPT}\n", "utf-8")
    words = PROMPT.split()
    pairs = paired([
        (f"Homework!\n\n> **{PROMPT.upper()}**", "Use max.", "No."),  # neither case nor markup hides it
        ("What does this want?", "Sure: " + " ".join(words[2:15]) + "!", "No."),  # thirteen words, in an answer
        ("What does that want?", "Sure: " + " ".join(words[2:14]) + "!", "No."),  # twelve
    ])  # fmt: skip
    _, kept, places = run(pairs, paths=[str(bench)])
    assert kept == ["What does that want?"]
    assert places == {
        "1/2/3": f"{SITE}: question 1, answers 2 and 3; prompt shares 13 words or all with bench.txt line 3",
        "4/5/6": f"{SITE}: question 4, answers 5 and 6; chosen shares 13 words or all with bench.txt line 3",
    }
    assert run(pairs, paths=[str(bench)], answers=False)[1] == ["What does this want?", "What does that want?"]
    assert len(run(pairs, paths=[str(bench)], ngram=12)[1]) == 0


def test_a_short_prompt_is_met_only_by_a_text_that_says_just_that(paired: MakePairs, tmp_path: Path) -> None:
    bench = tmp_path / "bench.txt"
    bench.write_text("What is two and two?\n", "utf-8")
    pairs = paired([("what is *two* and two", "4", "5"), ("Tell me, what is two and two?", "4", "5")])
    assert run(pairs, paths=[str(bench)])[1] == ["Tell me, what is two and two?"]


def test_what_was_contaminated_keeps_nobodys_place(paired: MakePairs, tmp_path: Path) -> None:
    bench = tmp_path / "bench.txt"
    bench.write_text(PROMPT, "utf-8")
    pairs = paired([(PROMPT, "Use max.", "No."), (PROMPT, "Use max.", "No.")])
    _, kept, places = run(pairs, paths=[str(bench)])
    assert (kept, len(places)) == ([], 2)  # and neither is an exact duplicate of the other


@pytest.mark.parametrize("form", ["jsonl", "json", "jsonl.gz", "parquet"])
def test_every_form_of_file_gives_the_same(paired: MakePairs, tmp_path: Path, form: str) -> None:
    rows = [{"task": "x", "prompt": "Another one."}, {"task": "y", "prompt": PROMPT}]
    path = tmp_path / f"bench.{form}"
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    match form:
        case "jsonl":
            path.write_bytes(lines)
        case "json":
            path.write_text(json.dumps(rows), "utf-8")
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "parquet":
            pl.DataFrame(rows).write_parquet(path)
    _, kept, places = run(paired([(PROMPT, "a", "b"), ("Else?", "a", "b")]), paths=[str(path)])
    assert kept == ["Else?"]
    place = "row 2" if form in ("json", "parquet") else "line 2"
    assert places["1/2/3"].endswith(f"with bench.{form} {place}")


def test_the_stage_is_known_by_the_bytes_and_not_by_the_place(paired: MakePairs, tmp_path: Path) -> None:
    bench = tmp_path / "bench.txt"
    bench.write_text(PROMPT, "utf-8")
    pairs = paired([("Else?", "a", "b")])
    without = run(pairs)[0]
    assert run(pairs, ngram=20)[0].folder == without.folder  # of no consequence without a file
    first = run(pairs, paths=[str(bench)])[0]
    (tmp_path / "moved").mkdir()
    moved = bench.rename(tmp_path / "moved" / "bench.txt")
    again = run(pairs, paths=[str(moved)])[0]
    assert again.reused and again.folder == first.folder != without.folder
    assert str(tmp_path) not in json.dumps(first.config | {"inputs": list(first.inputs)})
    moved.write_text("Other.", "utf-8")
    assert run(pairs, paths=[str(moved)])[0].folder != first.folder


def test_a_benchmark_that_cannot_be_read_whole_is_refused(paired: MakePairs, tmp_path: Path) -> None:
    pairs = paired([("Else?", "a", "b")])
    bench = tmp_path / "bench.jsonl"
    bench.write_text('{"prompt": "x"}\n{"question": "y", "id": 1}\n', "utf-8")
    with pytest.raises(InputError, match=r"bench\.jsonl, line 2 has no text in column 'prompt', but id, question"):
        run(pairs, paths=[str(bench)])
    bench.write_text('{"prompt": 7}\n', "utf-8")
    with pytest.raises(InputError, match=r"line 1 has no text in column 'prompt', but 7, which is none"):
        run(pairs, paths=[str(bench)])
    with pytest.raises(InputError, match=r"no such file"):
        run(pairs, paths=[str(tmp_path / "nowhere.txt")])
    (tmp_path / "empty.txt").write_text("\n \n", "utf-8")
    with pytest.raises(InputError, match=r"empty\.txt have no prompt"):
        run(pairs, paths=[str(tmp_path / "empty.txt")])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"latin\.txt is no text in UTF-8"):
        run(pairs, paths=[str(tmp_path / "latin.txt")])
    with pytest.raises(ValidationError, match="ngram"):
        DecontaminateConfig(ngram=2)


def plain_grams(text: str, size: int) -> set[str]:
    words = in_words(normalised(text)).split()
    return {" ".join(words[at : at + size]) for at in range(max(1, len(words) - size + 1))} - {""}


@settings(max_examples=150, deadline=None)
@given(prompts=st.lists(SAID, min_size=1, max_size=6), texts=st.lists(SAID, min_size=1, max_size=6))
def test_what_is_met_and_by_whom_is_what_sets_of_words_say(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("bench") / "bench.txt"
    path.write_text("".join(f"{prompt}\n" for prompt in ["z", *prompts]), "utf-8")
    benchmark = read_benchmark([BenchmarkFile("bench", "", path)], DecontaminateConfig(ngram=5))
    keyed = {content_key(normalised(text)): normalised(text) for text in texts}
    benchmark.look(keyed)
    for key, text in keyed.items():
        shared = [at for at, prompt in enumerate(prompts, start=2) if plain_grams(text, 5) & plain_grams(prompt, 5)]
        met = benchmark.met.get(key)
        assert (None if met is None else benchmark.places[met]) == (f"bench line {shared[0]}" if shared else None)


def test_many_texts_in_blocks_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    draw = random.Random(7)
    words = [f"w{number}" for number in range(50)]
    said = [" ".join(draw.choices(words, k=draw.randint(1, 400))) for _ in range(600)]
    prompts = [" ".join(text.split()[3:9]) for text in said[:20]]
    path = tmp_path / "bench.txt"
    path.write_text("\n".join(prompts), "utf-8")
    config = DecontaminateConfig(ngram=6)
    whole = read_benchmark([BenchmarkFile("bench", "", path)], config)
    keyed = {content_key(text): text for text in said}
    whole.look(keyed)
    single = read_benchmark([BenchmarkFile("bench", "", path)], config)
    for key, text in keyed.items():
        single.look({key: text})
    assert whole.met == single.met
    expected = {key for key, text in keyed.items() if any(plain_grams(text, 6) & plain_grams(p, 6) for p in prompts)}
    assert set(whole.met) == expected
