"""Pairs of sources that give pairs and no posts, under the rules that made pairs keep to.

in   pairs.parquet of each such source
out  which rows stay; those dropped for a repeated name or by a switch that numbers decide; counts

Only numbers and names are read. A question's cap holds where the source tells the question.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from tasks.keyed import keyed_ranks
from tasks.pairing.candidates import Rules
from tasks.pairing.number_switches import NUMBER_REASONS
from tasks.pairs import DROPPED_SCHEMA

_LEFT_SCHEMA: Final = pl.Schema(
    {"source": pl.Int64(), "row": pl.UInt32(), "pair_id": pl.String(), "site": pl.String(), "question_id": pl.Int64()}
)


@dataclass(frozen=True)
class Given:
    """A source that gave pairs: its file, and those that stay."""

    path: Path
    rows: pl.DataFrame  # row (index into the file), pair_id


@dataclass
class GivenPairs:
    """All such sources: `considered = capped + dropped.* + the rows that stay`."""

    sources: list[Given] = field(default_factory=list)
    dropped: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DROPPED_SCHEMA))
    counts: Counter[str] = field(default_factory=Counter)


def given_pairs(paths: Sequence[Path], known: pl.Series, rules: Rules) -> GivenPairs:
    """What stays of the pairs in `paths`. Of two with one name the second is dropped; `known` names others.

    The cap is that of a question, whichever of `paths` its pairs are in.
    """
    found = GivenPairs()
    left = [pl.DataFrame(schema=_LEFT_SCHEMA)]
    for number, path in enumerate(paths):
        table = pl.scan_parquet(path).select(rules.switches.given_columns()).collect()
        judged = table.select("pair_id", "site", "question_id", reason=rules.switches.given_verdicts(table))
        del table
        rows = judged.with_row_index("row")
        found.counts["considered"] += rows.height
        repeated = rows["pair_id"].is_in(known.implode()) | ~rows["pair_id"].is_first_distinct()
        rows = rows.with_columns(reason=pl.when(repeated).then(pl.lit("duplicate_id")).otherwise("reason"))
        for reason in ("duplicate_id", *NUMBER_REASONS):
            gone = rows.filter(pl.col("reason") == reason)
            found.counts[f"dropped.{reason}"] += gone.height
            place = pl.format("row {}", pl.col("row") + 1)
            dropped = gone.select("pair_id", reason=pl.lit(reason), place=place)
            found.dropped = pl.concat([found.dropped, dropped])
        rows = rows.filter(pl.col("reason").is_null())
        left.append(rows.select(pl.lit(number).alias("source"), pl.exclude("reason")).cast(_LEFT_SCHEMA))
        known = pl.concat([known, rows["pair_id"]])
    every = pl.concat(left)
    kept = _capped(every, rules)
    found.counts["capped"] += every.height - kept.height
    for number, path in enumerate(paths):
        found.sources.append(Given(path, kept.filter(pl.col("source") == number).select("row", "pair_id")))
    return found


def _capped(rows: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Not more than the cap of each question that is told, those of the lowest keyed rank."""
    cap = rules.max_pairs_per_question
    if cap is None:
        return rows
    over = pl.col("question_id").is_not_null() & (pl.len().over("site", "question_id") > cap)
    many = rows.filter(over)
    if many.is_empty():
        return rows
    ranked = many.with_columns(key=keyed_ranks(rules.seed, "cap", many["pair_id"])).sort("key", "pair_id")
    few = ranked.filter(pl.int_range(pl.len()).over("site", "question_id") < cap).drop("key")
    return pl.concat([rows.filter(~over), few]).sort("source", "row")
