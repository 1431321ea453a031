"""Comparison: rows.parquet of several runs -> which is better on the pairs that all of them were judged on.

in   one frame a run (STORED_SCHEMA of tasks/evaluation/metrics.py)
out  Comparison: accuracies with intervals, and each run against the first: difference, McNemar's test

Only pairs that every run has are compared, and question by question: two runs that are right on the same easy
questions differ by less than their intervals let one think.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.errors import RecipeError
from tasks.evaluation.facts import unit_numbers
from tasks.evaluation.statistics import Estimate, Ratio, bootstrap, mcnemar, mean

_WITH_IDS = re.compile(r"(.+/\d+)/\d+/\d+")


@dataclass(frozen=True)
class Contender:
    """One run on the shared pairs."""

    name: str
    pairs: int
    """Pairs that it was judged on, shared or not."""
    accuracy: Estimate
    margin: Estimate
    loss: Estimate
    ties: int


@dataclass(frozen=True)
class Versus:
    """One run against the first."""

    name: str
    against: str
    accuracy: Estimate
    """Difference of accuracy, `name` minus `against`; paired."""
    loss: Estimate
    """Difference of mean loss; below 0 is better."""
    only_this: int
    """Pairs that `name` alone gets right."""
    only_other: int
    p: float
    """McNemar's exact p, which takes pairs for independent."""
    p_adjusted: float
    """The same after Holm's correction for the number of runs compared."""


@dataclass(frozen=True)
class Comparison:
    """All runs on the pairs that they share."""

    pairs: int
    questions: int
    contenders: list[Contender]
    versus: list[Versus]


def compare(runs: Mapping[str, pl.DataFrame], *, times: int = 1000, seed: int = 42) -> Comparison:
    """Compare runs by name, each against the first of `runs`.

    Raises RecipeError when there are fewer than two runs, when they share no pair, or when one names a pair twice.
    """
    if len(runs) < 2:
        raise RecipeError(f"a comparison needs two runs or more, not {len(runs)}")
    shared = _shared(runs)
    units = unit_numbers(_units(next(iter(runs.values())), shared))
    margins = {name: _in_order(rows, shared) for name, rows in runs.items()}
    first = next(iter(runs))
    ratios: dict[str, Ratio] = {}
    for name, margin in margins.items():
        right, loss = margin > 0, np.logaddexp(0.0, -margin)
        ratios[f"{name}.accuracy"] = mean(right.astype(np.float64))
        ratios[f"{name}.margin"] = mean(margin, share=False)
        ratios[f"{name}.loss"] = mean(loss, share=False)
        if name != first:
            before = margins[first] > 0
            ratios[f"{name}.accuracy.gain"] = mean(right.astype(np.float64) - before, difference=True)
            ratios[f"{name}.loss.gain"] = mean(loss - np.logaddexp(0.0, -margins[first]), share=False)
    found = bootstrap(ratios, units, times=times, seed=seed)
    contenders = [
        Contender(name, runs[name].height, found[f"{name}.accuracy"], found[f"{name}.margin"], found[f"{name}.loss"],
                  int((margin == 0).sum()))
        for name, margin in margins.items()
    ]  # fmt: skip
    discordant = {
        name: (int(((margin > 0) & (margins[first] <= 0)).sum()), int(((margin <= 0) & (margins[first] > 0)).sum()))
        for name, margin in margins.items()
        if name != first
    }
    p = {name: mcnemar(*counts) for name, counts in discordant.items()}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    versus = [
        Versus(
            name, first, found[f"{name}.accuracy.gain"], found[f"{name}.loss.gain"], *counts, p[name], adjusted[name]
        )
        for name, counts in discordant.items()
    ]
    return Comparison(len(shared), int(units.max()) + 1, contenders, versus)


def _units(rows: pl.DataFrame, ids: Sequence[str]) -> pl.Series:
    """The question of each pair: as the evaluation has it, and in older files as the name of the pair tells."""
    if "unit" not in rows.columns:
        return pl.Series("unit", [unit_of(pair_id) for pair_id in ids])
    wanted = pl.DataFrame({"pair_id": ids}, schema={"pair_id": pl.String})
    return wanted.join(rows, on="pair_id", how="left", maintain_order="left").get_column("unit")


def unit_of(pair_id: str) -> str:
    """The question that a pair belongs to, as its name tells: SITE/QUESTION, or the pair itself where it has no ids."""
    named = _WITH_IDS.fullmatch(pair_id)
    return named[1] if named else pair_id


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979): no run wins because many were tried."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def _shared(runs: Mapping[str, pl.DataFrame]) -> list[str]:
    """The ids of the pairs that every run has, sorted."""
    for name, rows in runs.items():
        ids = rows.get_column("pair_id")
        if ids.n_unique() != len(ids):
            raise RecipeError(f"{name} names pair {ids.filter(ids.is_duplicated())[0]} twice: it is no rows.parquet")
    shared = set.intersection(*(set(rows.get_column("pair_id")) for rows in runs.values()))
    if not shared:
        raise RecipeError(f"{', '.join(runs)} share no held-out pair; give them the same held-out set to compare them")
    return sorted(shared)


def _in_order(rows: pl.DataFrame, ids: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    wanted = pl.DataFrame({"pair_id": ids}, schema={"pair_id": pl.String})
    return wanted.join(rows, on="pair_id", how="left", maintain_order="left").get_column("margin").to_numpy()
