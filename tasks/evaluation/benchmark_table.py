"""Two models on the same benchmarks, compared item by item.

in   benchmarks.json and items.parquet of either (tasks/benchmark.py, tasks/alpaca_eval.py)
out  for metrics.json: `benchmarks`, one entry a benchmark: before, after, the difference and its 95 % interval;
     `benchmark_notes`: how that was made, warnings, and the paper's rows beside its own model

Shapes: N items. Both models are asked the same items, so the standard error of the difference is that of the N
differences: sd / sqrt(N). Where a metric is not the mean of its items, the two standard errors are added as squares,
which is wider than need be.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from tasks.errors import StageFailed
from tasks.evaluation.statistics import Z_95, FloatArray, agreed
from tasks.evaluation.suite import CATEGORIES, PUBLISHED, PUBLISHED_START, SUITE
from tasks.manifest import Manifest

ITEMS_SCHEMA: Final = pl.Schema(
    {"benchmark": pl.String, "task": pl.String, "doc": pl.Int64, "digest": pl.String, "value": pl.Float64}
)

_SAME: Final = 1e-6  # a mean of items that is so near the metric is the metric


def compared_benchmarks(examined: Sequence[tuple[Manifest, Manifest]], model: Manifest) -> dict[str, Any]:
    """`benchmarks` and `benchmark_notes` of start and tuned model, a pair of manifests for each who examined them.

    `model` is the start model's manifest: it may be the paper's own.
    """
    tasks = []
    for both in examined:
        before, after = (json.loads(one.path("benchmarks.json").read_text(encoding="utf-8")) for one in both)
        items = [pl.read_parquet(one.path("items.parquet")) for one in both]
        for first, second in zip(before, after, strict=True):
            tasks.append(_compared(first, second, *(frame.filter(benchmark=first["name"]) for frame in items)))
    notes: dict[str, Any] = {
        "interval": "95 %, normal, of the differences item by item where they are known",
        "warnings": warnings(tasks),
    }
    if model.config.get("repo") == PUBLISHED_START:
        notes["published"] = _beside_published(tasks)
    return {"benchmarks": tasks, "benchmark_notes": notes}


def _compared(
    first: Mapping[str, Any], second: Mapping[str, Any], before: pl.DataFrame, after: pl.DataFrame
) -> dict[str, Any]:
    """One benchmark. `difference` is after less before, whichever is better."""
    known = {one.name: one for one in SUITE}.get(first.get("suite", first["name"]))
    made: dict[str, Any] = {
        "name": first["name"], "task": first["task"], "metric": first["metric"], "shots": first["shots"],
        "category": known.category if known else "other", "as_published": bool(known and known.same and first["whole"]),
        "note": first.get("note") or (known.note if known else ""), "items": first["asked"],
        "higher_is_better": first["higher_is_better"],
    }  # fmt: skip
    if "by" in first:
        made["by"] = first["by"]
    made |= {"before": first["value"], "after": second["value"]}
    pairs = before.join(after, on=["task", "doc"], how="inner", suffix="_tuned", maintain_order="left")
    same = pairs.filter(pl.col("digest") == pl.col("digest_tuned")).height
    if not same == pairs.height == before.height == after.height:
        raise StageFailed(
            f"benchmark {first['name']}: the two models were not asked the same items; build both again with "
            "--force evaluate"
        )
    # An item without a value is one that a judge did not decide: then the two means are of different items.
    whole = pairs.drop_nulls(["value", "value_tuned"]).height == pairs.height
    values = [pairs[column].drop_nulls().to_numpy() for column in ("value", "value_tuned")]
    own = [whole and _is_mean(one["value"], column) for one, column in zip((first, second), values, strict=True)]
    errors = [
        standard_error(column) if mine else one["stderr"]
        for one, column, mine in zip((first, second), values, own, strict=True)
    ]
    made |= {"before_error": errors[0], "after_error": errors[1], "paired": all(own)}
    if all(own):
        error = standard_error(values[1] - values[0])
    else:
        known_errors = [one for one in errors if one is not None]
        error = math.hypot(*known_errors) if len(known_errors) == 2 else None
    difference = second["value"] - first["value"]
    low, high = _interval(difference, error, np.concatenate(values), same)
    return made | {"difference": difference, "difference_error": error, "low": low, "high": high}


def _interval(
    difference: float, error: float | None, values: FloatArray, items: int
) -> tuple[float, float] | tuple[None, None]:  # fmt: skip
    """Of the difference. Where every item says the same, the standard error knows nothing of chance."""
    if error is None:
        return None, None
    if error == 0.0 and not len(values):
        return None, None
    if error == 0.0 and items and values.min() >= 0.0 and values.max() <= 1.0:
        return agreed(difference, items)
    return difference - Z_95 * error, difference + Z_95 * error


def _is_mean(value: float, items: FloatArray) -> bool:
    return len(items) > 0 and abs(float(items.mean()) - value) < _SAME


def standard_error(values: FloatArray) -> float | None:
    """That of the mean of `values` (N,); None where one value says nothing of chance."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _beside_published(tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Percent by category: the paper's rows, and the mean of ours where all that is ours is measured as theirs."""
    columns = [*CATEGORIES, "average"]
    rows: dict[str, dict[str, float | None]] = {
        name: dict(zip(columns, row, strict=True)) for name, row in PUBLISHED.items()
    }
    for side, model in (("before", "start"), ("after", "tuned")):
        means: dict[str, float | None] = {}
        for category in CATEGORIES:
            same = [100 * one[side] for one in tasks if one["category"] == category and one["as_published"]]
            whole = sum(one.category == category and (one.same or one.task is None) for one in SUITE)
            means[category] = sum(same) / len(same) if same and len(same) == whole else None
        rows[f"this run, {model}"] = means | {"average": None}
    return {"columns": columns, "rows": rows}


def warnings(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where tuning hurt beyond chance, in sentences."""
    said = []
    for one in tasks:
        end = one["high"] if one["higher_is_better"] else one["low"]
        if end is not None and (end < 0 if one["higher_is_better"] else end > 0):
            said.append(f"The tuned model is worse than the start model on {one['name']}, beyond chance.")
    return said
