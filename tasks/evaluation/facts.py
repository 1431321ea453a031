"""What evaluation knows of a pair besides its log-probs: ids, votes, dates and lengths, never the text.

in   pairs (tasks/pairs.py); token rows (lengths in tokens)
out  FACTS_SCHEMA   one row a pair
"""

from typing import Final

import numpy as np
import polars as pl
from blake3 import blake3

from tasks.code_blocks import code_chars
from tasks.evaluation.statistics import IntArray

FACTS_SCHEMA: Final = pl.Schema(
    {
        "pair_id": pl.String,
        "unit": pl.String,  # SITE/QUESTION, or the digest of the prompt where the source has no ids
        "site": pl.String,
        "year": pl.Int32,  # in which the question was asked
        "score_gap": pl.Int64,  # net votes of chosen minus rejected; the four below are null where unknown
        "rank_gap": pl.Int64,  # the same under the ranking rule
        "accepted": pl.Float64,  # 1 the chosen answer alone was accepted, 0 the rejected one alone, 0.5 neither or both
        "earlier": pl.Float64,  # 1 the chosen answer was posted first, 0 the rejected one, 0.5 at the same instant
        "chosen_chars": pl.Int64,  # characters of the whole text, before any truncation
        "rejected_chars": pl.Int64,
        "code_share": pl.Float64,  # characters in code blocks (tasks/code_blocks.py), of all in the three texts; 0 to 1
    }
)

_TEXTS: Final = ("prompt", "chosen", "rejected")


def pair_facts(pairs: pl.DataFrame) -> pl.DataFrame:
    """The facts of each pair, in the order given."""
    facts = pairs.with_columns(unit=question_units(pairs)).select(fact_expressions().values())
    return facts.select(FACTS_SCHEMA.names())


def fact_expressions() -> dict[str, pl.Expr]:
    """Every column of FACTS_SCHEMA, worked out from the columns of a pair and `unit`."""
    accepted = pl.col("chosen_accepted").cast(pl.Float64) - pl.col("rejected_accepted").cast(pl.Float64)
    chosen_first = pl.col("chosen_created") < pl.col("rejected_created")
    rejected_first = pl.col("chosen_created") > pl.col("rejected_created")
    characters = pl.sum_horizontal(pl.col(side).str.len_chars() for side in _TEXTS)
    code = pl.sum_horizontal(pl.col(side).map_elements(code_chars, return_dtype=pl.Int64) for side in _TEXTS)
    worked_out = {
        "pair_id": pl.col("pair_id"),
        "unit": pl.col("unit"),
        "site": pl.col("site"),
        "year": pl.col("created").dt.year(),
        "score_gap": pl.col("chosen_score") - pl.col("rejected_score"),
        "rank_gap": pl.col("chosen_rank") - pl.col("rejected_rank"),
        "accepted": 0.5 + 0.5 * accepted,
        "earlier": 0.5 + 0.5 * (chosen_first.cast(pl.Float64) - rejected_first.cast(pl.Float64)),
        "chosen_chars": pl.col("chosen").str.len_chars(),
        "rejected_chars": pl.col("rejected").str.len_chars(),
        "code_share": code / characters,
    }
    return {name: worked_out[name].cast(kind).alias(name) for name, kind in FACTS_SCHEMA.items()}


def question_units(pairs: pl.DataFrame) -> pl.Series:
    """The question that a pair belongs to: what is drawn in a bootstrap."""
    named = pairs.select(pl.format("{}/{}", "site", "question_id")).to_series().to_list()
    prompts = pairs.get_column("prompt")
    units = [
        unit if unit is not None else "prompt/" + blake3(prompts[row].encode()).hexdigest()[:32]
        for row, unit in enumerate(named)
    ]
    return pl.Series("unit", units, dtype=pl.String)


def unit_numbers(units: pl.Series) -> IntArray:
    """The units numbered from 0 in the order of their names, so that no row order moves a resample."""
    names, numbers = np.unique(units.to_numpy(), return_inverse=True)
    del names
    return numbers.astype(np.int64)
