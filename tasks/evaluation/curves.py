"""Which pairs are easy: the rows cut into bins by votes, length, site, year, truncation, code share, order of posting.

A bin is a label and the rows in it. Every curve is dropped whose column is unknown for all rows.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl


class Bin(NamedTuple):
    """One point of a curve."""

    label: str
    inside: npt.NDArray[np.bool_]  # (P,)


# What a curve is called under its plot, in the order in which they are shown.
CURVES: Final = {
    "score_gap": "votes of the chosen answer minus votes of the rejected one",
    "rank_gap": "gap in units of the ranking rule",
    "length_gap": "length of the chosen answer against the rejected one, in tokens",
    "site": "site",
    "year": "year of the question",
    "truncation": "answers cut at the length limit",
    "code": "share of code in question and answers",
    "posted": "order of posting",
}

SITES_SHOWN: Final = 20

_SCORE_EDGES: Final = (0, 1, 2, 3, 5, 10, 20, 50)
_SCORE_LABELS: Final = ("below 0", "0", "1", "2", "3–4", "5–9", "10–19", "20–49", "50 and more")
_CODE_EDGES: Final = (1e-9, 1 / 4, 1 / 2)
_CODE_LABELS: Final = ("prose only", "under ¼", "¼ to ½", "½ and more")
_LENGTH_EDGES: Final = (1 / 4, 1 / 2, 1 / 1.25, 1.25, 2, 4)
_LENGTH_LABELS: Final = (
    "under ¼", "¼ to ½", "½ to 0.8", "0.8 to 1.25", "1.25 to 2", "2 to 4", "over 4 times",
)  # fmt: skip
_TRUNCATION: Final = {"neither": (False, False), "chosen only": (True, False), "rejected only": (False, True),
                      "both": (True, True)}  # fmt: skip


def curves(rows: pl.DataFrame) -> dict[str, list[Bin]]:
    """The bins of every curve of CURVES that the columns allow; empty bins are left out."""
    ratio = (rows.get_column("chosen_tokens") / rows.get_column("rejected_tokens")).to_numpy()
    cut = rows.select("chosen_cut", "rejected_cut")
    rank_gap = rows.get_column("rank_gap").cast(pl.Float64).to_numpy()
    earlier = rows.get_column("earlier").to_numpy()
    found = {
        "score_gap": _stepped(rows.get_column("score_gap").cast(pl.Float64).to_numpy(), _SCORE_EDGES, _SCORE_LABELS),
        "rank_gap": _stepped(rank_gap, (2, 3, 4, 5), ("1", "2", "3", "4", "5 and more")),
        "length_gap": _stepped(ratio, _LENGTH_EDGES, _LENGTH_LABELS),
        "site": _largest(rows.get_column("site")),
        "year": _each(rows.get_column("year").cast(pl.String)),
        "truncation": [
            Bin(label, ((cut["chosen_cut"] == chosen) & (cut["rejected_cut"] == rejected)).fill_null(False).to_numpy())
            for label, (chosen, rejected) in _TRUNCATION.items()
        ],
        "code": _stepped(rows.get_column("code_share").to_numpy(), _CODE_EDGES, _CODE_LABELS),
        "posted": [Bin("chosen posted first", earlier == 1.0), Bin("rejected posted first", earlier == 0.0)],
    }
    filled = {name: [a_bin for a_bin in bins if a_bin.inside.any()] for name, bins in found.items()}
    return {name: bins for name, bins in filled.items() if bins}


def _stepped(values: npt.NDArray[np.float64], edges: tuple[float, ...], labels: tuple[str, ...]) -> list[Bin]:
    """Bins between ascending edges; a value equal to an edge belongs above it, a null (NaN) nowhere."""
    known = ~np.isnan(values)
    numbers = np.searchsorted(np.array(edges), values, side="right")
    return [Bin(label, known & (numbers == number)) for number, label in enumerate(labels)]


def _each(names: pl.Series) -> list[Bin]:
    return [Bin(name, (names == name).fill_null(False).to_numpy()) for name in sorted(names.drop_nulls().unique())]


def _largest(names: pl.Series) -> list[Bin]:
    """A bin a name, the fullest first; what is beyond SITES_SHOWN is one bin together."""
    counted = sorted(names.drop_nulls().to_list() and names.drop_nulls().value_counts(name="pairs").rows(),
                     key=lambda row: (-row[1], row[0]))  # fmt: skip
    shown = [name for name, _ in counted[:SITES_SHOWN]]
    bins = [Bin(name, (names == name).fill_null(False).to_numpy()) for name in shown]
    if len(counted) > len(shown):
        rest = names.is_not_null() & ~names.is_in(shown)
        bins.append(Bin(f"{len(counted) - len(shown)} more sites", rest.to_numpy()))
    return bins
