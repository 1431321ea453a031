"""Unseen: pairs from elsewhere -> those to judge by, none of whose questions training has seen.

in   pairs.parquet (pair) of `evaluate.sources`; train.parquet (sample)
out  held_out.parquet   the pairs to judge by, in the order of their keyed rank
     train.parquet      no row: nothing of these is trained on, and the stages that follow want both
     dropped.parquet    pair_id, reason, place

A question is known by site and number where both sides tell them, and by what its prompt says: its first letters and
digits, since one question is written in Markdown in many ways, and edited at its end more often than at its beginning.
"""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

import polars as pl

from tasks.duplicates.content import content_key, key_series, normalised
from tasks.keyed import keyed_ranks
from tasks.manifest import Manifest, reasons
from tasks.ordered import batches, write_ordered
from tasks.pairs import DROPPED_SCHEMA, PAIR_SCHEMA
from tasks.store import Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change

REASONS: Final = ("seen_question", "seen_prompt")
BEGINNING: Final = 200  # letters and digits by which a prompt is known

_MARKUP: Final = re.compile(r"</?[a-z][^<>]*>|\]\([^()\s]*\)|<?https?://\S+", re.IGNORECASE)
_WORD: Final = re.compile(r"[^\W_]+")


def said(prompt: str) -> str:
    """What a prompt says whatever its markup: the first letters and digits of its text, without tags and addresses.

    All of the prompt where it has neither letters nor digits.
    """
    text = normalised(prompt)
    return "".join(_WORD.findall(_MARKUP.sub(" ", text)))[:BEGINNING] or text


def unseen(store: Store, pairs: Manifest, sampled: Manifest, number: int, seed: int) -> Manifest:
    """At most `number` of `pairs`, drawn by keyed rank from those whose question is not in the sample's train pairs.

    Counts: `pairs = held_out + not_sampled + dropped.*`.
    """

    def build(work: Workspace) -> dict[str, int]:
        source = pairs.path("pairs.parquet")
        judged = _judged(source, *_seen(sampled.path("train.parquet")))
        free = judged.filter(pl.col("reason").is_null())
        drawn = free.with_columns(rank=keyed_ranks(seed, "held_out", free["pair_id"])).sort("rank", "pair_id")
        drawn = drawn.head(number)
        scratch = work.partial / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        order = drawn["row"].cast(pl.Int64).to_numpy()
        write_ordered(source, work.folder / "held_out.parquet", order, PAIR_SCHEMA, scratch)
        pl.DataFrame(schema=PAIR_SCHEMA).write_parquet(work.folder / "train.parquet")
        dropped = judged.filter(pl.col("reason").is_not_null()).sort("pair_id")
        place = pl.format("row {}", pl.col("row") + 1)
        dropped.select("pair_id", "reason", place=place).cast(DROPPED_SCHEMA).write_parquet(
            work.folder / "dropped.parquet"
        )
        if dropped.height:
            work.message(f"{dropped.height:,} pairs of evaluate.sources are of questions that training has seen")
        return {
            "pairs": judged.height, "held_out": drawn.height, "not_sampled": free.height - drawn.height,
            **reasons("dropped", REASONS, Counter(dropped["reason"])), "train": 0,
        }  # fmt: skip

    inputs = {"pairs": pairs, "sampled": sampled}
    return store.stage("unseen", VERSION, {"number": number, "seed": seed}, inputs, build)


def _seen(train: Path) -> tuple[pl.DataFrame, pl.Series]:
    """The questions of the train pairs by site and number, and the keys of their prompts; each once."""
    questions, prompts = [], []
    for batch in batches(train, ["site", "question_id", "prompt"]):
        questions.append(batch.select("site", "question_id").drop_nulls().unique())
        prompts.append(_keys(batch["prompt"]).unique())
    return pl.concat(questions).unique(), pl.concat(prompts).unique()


def _keys(prompts: pl.Series) -> pl.Series:
    known: dict[str, bytes] = {}  # the pairs of one question repeat its prompt
    for prompt in prompts:
        if prompt not in known:
            known[prompt] = content_key(said(prompt))
    return key_series([known[prompt] for prompt in prompts]).alias("key")


def _judged(source: Path, questions: pl.DataFrame, prompts: pl.Series) -> pl.DataFrame:
    """`row, pair_id, reason` of each pair; reason null where training has not seen its question."""
    found = [pl.DataFrame(schema={"row": pl.UInt32, "pair_id": pl.String, "reason": pl.String})]
    start = 0
    for batch in batches(source, ["pair_id", "site", "question_id", "prompt"]):
        told = batch.join(
            questions.with_columns(told=True), on=["site", "question_id"], how="left", maintain_order="left"
        )
        reason = (
            pl.when(told["told"].fill_null(value=False))
            .then(pl.lit("seen_question"))
            .when(_keys(batch["prompt"]).is_in(prompts.implode()))
            .then(pl.lit("seen_prompt"))
        )
        found.append(batch.with_row_index("row", offset=start).select("row", "pair_id", reason=reason))
        start += batch.height
    return pl.concat(found)
