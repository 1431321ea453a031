"""Which pairs say nothing, contradict each other, or say word for word what another says.

Works on the ids of the pairs and on 128-bit keys of their normalised texts: 48 bytes a pair in place of its texts,
which are read in batches and forgotten.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from tasks.duplicates.content import EMPTY, content_key, key_series, normalised
from tasks.keyed import keyed_ranks
from tasks.ordered import batches
from tasks.pairs import PAIR_SCHEMA

IDS: Final = ("pair_id", "site", "question_id", "chosen_id", "rejected_id")
TEXTS: Final = ("prompt", "chosen", "rejected")
SAME_ID: Final = "duplicate_id"  # another row has the same pair_id
EXACT_REASONS: Final = (
    "identical_sides",  # chosen and rejected are the same text
    "empty_prompt",
    "empty_side",  # chosen or rejected has no text
    "contradictory",  # another pair has the same prompt and the same sides the other way round: neither is a preference
    "exact_duplicate",  # another pair has the same prompt, chosen and rejected
)

OnTexts = Callable[[str, Mapping[bytes, str]], None]


def text_keys(source: Path, on_texts: OnTexts | None = None) -> Iterator[pl.DataFrame]:
    """For each of TEXTS the key of its normalised text (unsigned 128 bit), batch by batch in file order.

    `on_texts(kind, texts)` is told of the normalised texts of each batch by their keys, each once; kind is `prompt` or
    `answer`.
    """
    for batch in batches(source, TEXTS):
        columns = {}
        for kind, names in (("prompt", ("prompt",)), ("answer", ("chosen", "rejected"))):
            known: dict[str, bytes] = {}  # the pairs of one question repeat its texts
            texts: dict[bytes, str] = {}
            for name in names:
                given = batch[name].fill_null("").to_list()
                for text in given:
                    if text not in known:
                        folded = normalised(text)
                        known[text] = content_key(folded)
                        texts[known[text]] = folded
                columns[name] = key_series([known[text] for text in given])
            if on_texts is not None:
                on_texts(kind, texts)
        yield pl.DataFrame(columns)


def keyed_rows(source: Path, keys: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """`row` (its number), IDS and the keys of TEXTS of every pair.

    The ids are read by themselves: as long as one column of a batch is in use, Arrow keeps all of it, texts too.
    """
    ids = pl.Schema([(name, PAIR_SCHEMA[name]) for name in IDS])
    texts = pl.Schema([(name, pl.UInt128()) for name in TEXTS])
    named = pl.concat([ids.to_frame(), *(batch.cast(ids) for batch in batches(source, IDS))])
    return named.hstack(pl.concat([texts.to_frame(), *keys])).with_row_index("row")


def repeated_ids(source: Path, ids: pl.Series) -> pl.DataFrame:
    """`row`, `reason` and `keeper`: rows whose pair_id another row has too, and the row of that id that stays.

    Which one stays follows from what stands in the rows, not from their order.
    """
    suspects = ids.is_duplicated()
    if not suspects.any():
        return pl.DataFrame(schema={"row": pl.UInt32, "reason": pl.String, "keeper": pl.UInt32})
    start, found = 0, []
    for batch in batches(source):
        here = suspects.slice(start, batch.height)
        if here.any():
            whole = batch.with_row_index("row", offset=start).filter(here)
            found.append(whole.select("row", "pair_id", said=pl.struct(pl.exclude("row")).struct.json_encode()))
        start += batch.height
    ranked = pl.concat(found).sort("pair_id", "said", "row")
    return (
        ranked.select("row", reason=pl.lit(SAME_ID), keeper=pl.col("row").first().over("pair_id"))
        .filter(pl.col("row") != pl.col("keeper"))
        .sort("row")
    )


def exact_reasons(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """`row`, `reason` and `keeper` of the rows to drop; first match wins.

    rows    what `keyed_rows` gives
    keeper  the row that a duplicate repeats: of those that say the same, the one of lowest keyed rank; else null
    """
    empty = pl.lit(EMPTY).first()  # a literal of its own would have to fit in 64 bits
    says_nothing = (
        pl.when(pl.col("chosen") == pl.col("rejected"))
        .then(pl.lit("identical_sides"))
        .when(pl.col("prompt") == empty)
        .then(pl.lit("empty_prompt"))
        .when((pl.col("chosen") == empty) | (pl.col("rejected") == empty))
        .then(pl.lit("empty_side"))
    )
    judged = rows.select("row", "pair_id", *TEXTS, reason=says_nothing, keeper=pl.lit(None, pl.UInt32))
    sides = ["prompt", "low", "high"]
    alike = (
        judged.filter(pl.col("reason").is_null())
        .with_columns(
            low=pl.min_horizontal("chosen", "rejected"),
            high=pl.max_horizontal("chosen", "rejected"),
            swapped=pl.col("chosen") > pl.col("rejected"),
        )
        .filter(pl.struct(sides).is_duplicated())
    )
    alike = alike.with_columns(rank=keyed_ranks(seed, "keeper", alike["pair_id"])).sort("rank", "pair_id")
    contradicted = pl.col("swapped").n_unique().over(sides) > 1
    repeats = alike.select(
        "row",
        reason=pl.when(contradicted).then(pl.lit("contradictory")).otherwise(pl.lit("exact_duplicate")),
        keeper=pl.when(~contradicted).then(pl.col("row").first().over(sides)),
    ).filter((pl.col("reason") == "contradictory") | (pl.col("row") != pl.col("keeper")))
    silent = judged.filter(pl.col("reason").is_not_null()).select("row", "reason", "keeper")
    return pl.concat([silent, repeats]).sort("row")


def dropped_rows(rows: pl.DataFrame, verdicts: pl.DataFrame, notes: pl.DataFrame | None = None) -> pl.DataFrame:
    """`pair_id, reason, place, kept_pair_id` of the rows with a verdict, in the order of what they say.

    verdicts  row, reason, keeper; a keeper that has a verdict itself passes on to its own keeper
    notes     row, note: what is to be said after the place of a row
    """
    place = (
        pl.when(pl.col("question_id").is_not_null())
        .then(pl.format("{}: question {}, answers {} and {}", "site", "question_id", "chosen_id", "rejected_id"))
        .otherwise("pair_id")
    )
    if notes is not None:
        rows = rows.join(notes.select("row", "note"), on="row", how="left", maintain_order="left")
        place = pl.concat_str(place, "note", separator="; ", ignore_nulls=True)
    keepers = rows.select(keeper="row", kept_pair_id="pair_id")
    return (
        _final_keepers(verdicts)
        .join(rows, on="row", how="left")
        .join(keepers, on="keeper", how="left")
        .select("pair_id", "reason", place=place, kept_pair_id="kept_pair_id")
        .sort("pair_id", "reason", "kept_pair_id")
    )


def _final_keepers(verdicts: pl.DataFrame) -> pl.DataFrame:
    """The verdicts with each keeper one that stays: the keeper's keeper where it does not."""
    further = verdicts.select(keeper="row", gone=True, next="keeper")
    while True:
        step = verdicts.join(further, on="keeper", how="left")
        if not step["gone"].any():
            return verdicts
        moved = pl.when("gone").then("next").otherwise("keeper")
        verdicts = step.select("row", "reason", keeper=moved)


def kept_rows(rows: pl.DataFrame, *verdicts: pl.DataFrame) -> pl.DataFrame:
    """The rows that no verdict drops."""
    gone = np.zeros(rows.height, dtype=bool)
    for verdict in verdicts:
        gone[verdict["row"].to_numpy()] = True
    return rows.filter(~gone[rows["row"].to_numpy()])
