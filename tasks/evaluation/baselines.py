"""Rules that know nothing of the model: the longer, the accepted, the earlier answer wins.

A verdict is 1.0 where the rule picks the chosen answer, 0.0 where the rejected one, 0.5 where it cannot tell: a rule
without an opinion tosses a coin. (The model's own accuracy is strict: its ties are wrong.)
"""

from typing import Final, NamedTuple

import numpy as np
import polars as pl

from tasks.evaluation.statistics import FloatArray


class Baseline(NamedTuple):
    """One rule's verdicts, or why it has none."""

    verdicts: FloatArray | None  # (P,)
    reason: str | None


# What each rule is called in tables and plots, in the order in which they are shown.
BASELINES: Final = {
    "longer": "longer answer (tokens)",
    "longer_characters": "longer answer (characters)",
    "shorter": "shorter answer (tokens)",
    "accepted": "accepted answer",
    "earlier": "earlier answer",
}


def baselines(rows: pl.DataFrame) -> dict[str, Baseline]:
    """The verdicts of every rule of BASELINES on `rows` (token lengths and FACTS_SCHEMA)."""
    tokens = (rows.get_column("chosen_tokens") - rows.get_column("rejected_tokens")).to_numpy()
    characters = (rows.get_column("chosen_chars") - rows.get_column("rejected_chars")).to_numpy()
    longer = _prefers(tokens)
    return {
        "longer": Baseline(longer, None),
        "longer_characters": Baseline(_prefers(characters), None),
        "shorter": Baseline(1.0 - longer, None),
        "accepted": _known(rows, "accepted", "the source does not say which answer was accepted"),
        "earlier": _known(rows, "earlier", "the source has no dates of answers"),
    }


def _prefers(gap: FloatArray) -> FloatArray:
    return 0.5 + 0.5 * np.sign(gap.astype(np.float64))


def _known(rows: pl.DataFrame, column: str, reason: str) -> Baseline:
    verdicts = rows.get_column(column)
    if verdicts.null_count() == len(verdicts):
        return Baseline(None, reason)
    return Baseline(verdicts.fill_null(0.5).to_numpy().astype(np.float64), None)
