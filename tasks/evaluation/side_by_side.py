"""Several judged runs side by side: what was set otherwise, what each reached, and which is better on shared pairs.

in   one Judged a run: its settings, metrics.json, rows.parquet
out  SideBySide: settings that differ, headline numbers with intervals, the paired comparison, what to be wary of
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import polars as pl

from tasks.errors import RecipeError
from tasks.evaluation.comparison import Comparison, compare

# Each with `NAME_low` and `NAME_high` beside it where there is an interval.
SHOWN: Final = ("accuracy", "length_controlled_accuracy", "length_baseline_accuracy", "margin", "loss")

# Where a run keeps its files is no setting of the model.
_PLACES: Final = frozenset({"work_dir"})

MISSING: Final = "not set"


@dataclass(frozen=True)
class Judged:
    """A run with its evaluation."""

    name: str
    settings: Mapping[str, Any]
    """The whole recipe, nested as in YAML."""
    metrics: Mapping[str, Any]
    rows: pl.DataFrame
    """STORED_SCHEMA of tasks/evaluation/metrics.py."""


@dataclass(frozen=True)
class SideBySide:
    """Runs in the order given; the first is what the others are measured against."""

    runs: list[str]
    differing: dict[str, list[Any]]
    """Key path to the value of each run, for the keys in which any two runs differ."""
    headlines: list[dict[str, Any]]
    """Of each run: SHOWN with intervals, `pairs`, `questions`, `ties`, `beta`, `reward`."""
    paired: Comparison | None
    notes: list[str] = field(default_factory=list)
    """What a reader must know before believing a difference, in sentences."""

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return {
            "runs": [
                {"name": name, "settings": {key: values[place] for key, values in self.differing.items()},
                 "metrics": self.headlines[place]}
                for place, name in enumerate(self.runs)
            ],
            "paired": None if self.paired is None else asdict(self.paired),
            "notes": self.notes,
        }  # fmt: skip


def side_by_side(runs: Sequence[Judged], *, times: int = 1000, seed: int = 42) -> SideBySide:
    """Compare two runs or more; `times` and `seed` are those of the paired bootstrap over questions.

    Raises RecipeError for fewer than two runs and for a run that was judged on no pair.
    """
    if len(runs) < 2:
        raise RecipeError(f"a comparison needs two runs or more, not {len(runs)}")
    for run in runs:
        if run.rows.height == 0:
            raise RecipeError(f"run {run.name} was judged on no held-out pair: {run.metrics.get('reason')}")
    shared = set.intersection(*(set(run.rows.get_column("pair_id")) for run in runs))
    paired = compare({run.name: run.rows for run in runs}, times=times, seed=seed) if shared else None
    return SideBySide(
        runs=[run.name for run in runs],
        differing=differing([run.settings for run in runs]),
        headlines=[_headline(run.metrics) for run in runs],
        paired=paired,
        notes=list(_notes(runs, shared)),
    )


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The key paths whose values are not the same everywhere, in the order of the first recipe that has them."""
    flat = [dict(_flat(one)) for one in settings]
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: [one.get(key, MISSING) for one in flat] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if path in _PLACES:
            continue
        found += _flat(value, f"{path}.") if isinstance(value, Mapping) and value else [(path, value)]
    return found


def _headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in SHOWN:
        found[name] = metrics.get(name)
        for end in ("low", "high"):
            if f"{name}_{end}" in metrics:
                found[f"{name}_{end}"] = metrics[f"{name}_{end}"]
    longer = metrics["baselines"]["longer"]
    found["length_baseline_accuracy_low"], found["length_baseline_accuracy_high"] = longer["low"], longer["high"]
    return found | {name: metrics[name] for name in ("pairs", "questions", "ties", "beta", "reward")}


def _notes(runs: Sequence[Judged], shared: set[str]) -> list[str]:
    said = []
    sizes = ", ".join(f"{run.name} {run.rows.height:,}" for run in runs)
    if not shared:
        said.append(
            f"The runs share no held-out pair ({sizes}): their numbers are of different questions, and no paired test "
            "can be made. The same sources, seed and sample.held_out give the same held-out pairs."
        )
    elif any(run.rows.height != len(shared) for run in runs):
        said.append(
            f"The held-out pairs differ: {len(shared):,} are shared ({sizes}). The paired numbers are of the shared "
            "ones, the numbers of each run of all of its own."
        )
    if shared and (recut := _recut(runs)):
        said.append(
            f"{recut:,} of the {len(shared):,} shared pairs have other lengths in tokens from run to run: they were "
            "cut or tokenized otherwise, so the runs did not see the same text."
        )
    scales = {(run.metrics["beta"], run.metrics["reward"]) for run in runs}
    if len(scales) > 1:
        said.append(
            "Margin and loss are in units of beta and of the loss's own reward, which differ here: compare accuracies."
        )
    if len(runs) > 2 and shared:
        said.append(
            f"{len(runs) - 1} runs are measured against {runs[0].name}: the adjusted p (Holm) takes that into account, "
            "the intervals do not."
        )
    return said


def _recut(runs: Sequence[Judged]) -> int:
    """Shared pairs whose answers have not the same number of tokens in every run."""
    lengths = ["chosen_tokens", "rejected_tokens"]
    first = runs[0].rows.select("pair_id", *lengths)
    same = first
    for run in runs[1:]:
        same = same.join(run.rows.select("pair_id", *lengths), on=["pair_id", *lengths], how="semi")
    every = first
    for run in runs[1:]:
        every = every.join(run.rows, on="pair_id", how="semi")
    return every.height - same.height
