"""Answers of both models, measured: how long, how repetitive, in what form, and whether they end.

in   ANSWERS_SCHEMA, one row an answer
out  a dictionary for metrics.json: each measure of both models and its difference, with 95 % intervals

Both models answer the same prompts, so the difference is drawn pair by pair: its interval is narrower than those of
the two values let one think. Quality is not measured here; see tasks/judge.py.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from tasks.evaluation.statistics import Estimate, FloatArray, Ratio, bootstrap, mean

ANSWERS_SCHEMA: Final = pl.Schema(
    {
        "pair_id": pl.String(),  # the pair whose question was asked
        "model": pl.String(),  # start or tuned
        "mode": pl.String(),  # greedy or sampled
        "text": pl.String(),
        "tokens": pl.Int64(),  # with the EOS of an answer that stopped
        "stopped": pl.Boolean(),  # by EOS, before evaluate.generate.max_new_tokens
        "ids": pl.List(pl.Int32()),
    }
)

# Name -> what a reader is told, and whether it is a share.
MEASURES: Final = {
    "tokens": ("tokens an answer", False),
    "characters": ("characters an answer", False),
    "stopped": ("answers that end by themselves", True),
    "repeated": ("4-grams of tokens that occur before in the same answer", True),
    "fences": ("answers with a fenced code block", True),
    "lists": ("answers with a list", True),
    "empty": ("answers without text", True),
}
GRAM: Final = 4

_FENCE: Final = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
_LIST: Final = re.compile(r"^ {0,3}([-*+]|\d{1,9}[.)])[ \t]+\S", re.MULTILINE)


def no_answers(reason: str) -> dict[str, Any]:
    """What is said where no prompt was answered."""
    return {"reason": reason, "prompts": 0, "modes": {}, "warnings": []}


def repeated_share(ids: Sequence[int]) -> float | None:
    """Share of the answer's 4-grams that occur earlier in it; None where it has none."""
    grams = list(zip(*(ids[start:] for start in range(GRAM)), strict=False))
    return (len(grams) - len(set(grams))) / len(grams) if grams else None


def measured(answers: pl.DataFrame) -> pl.DataFrame:
    """`answers` with a float column a measure; null where an answer says nothing of it."""
    rows = [
        {
            "tokens": float(row["tokens"]),
            "characters": float(len(row["text"].strip())),
            "stopped": float(row["stopped"]),
            "repeated": repeated_share(row["ids"]),
            "fences": float(bool(_FENCE.search(row["text"]))),
            "lists": float(bool(_LIST.search(row["text"]))),
            "empty": float(not row["text"].strip()),
        }
        for row in answers.to_dicts()
    ]
    return pl.concat(
        [answers.select("pair_id", "model", "mode"), pl.DataFrame(rows, schema=dict.fromkeys(MEASURES, pl.Float64))],
        how="horizontal",
    )


def answer_measures(answers: pl.DataFrame, *, times: int, seed: int) -> dict[str, Any]:
    """Every measure by mode: `start`, `tuned` and `difference` (tuned minus start), each `{value, low, high}`."""
    frame = measured(answers)
    modes: dict[str, Any] = {}
    for mode in frame["mode"].unique(maintain_order=True):
        start = frame.filter(mode=mode, model="start").sort("pair_id")
        tuned = frame.filter(mode=mode, model="tuned").sort("pair_id")
        assert start["pair_id"].equals(tuned["pair_id"])
        found = _compared(start, tuned, times, seed)
        texts = [answers.filter(mode=mode, model=model).sort("pair_id")["text"] for model in ("start", "tuned")]
        modes[mode] = {
            name: {side: found[f"{name}.{side}"].named("value") for side in ("start", "tuned", "difference")}
            for name in MEASURES
        } | {"same_text": (texts[0] == texts[1]).sum() / max(1, len(texts[0]))}
    made = {
        "reason": None,
        "prompts": answers["pair_id"].n_unique(),
        "interval": f"95 %, percentiles of {times} bootstrap resamples of prompts; exact where all of them agree",
        "modes": modes,
    }
    return made | {"warnings": warnings(modes)}


def _compared(start: pl.DataFrame, tuned: pl.DataFrame, times: int, seed: int) -> dict[str, Estimate]:
    ratios: dict[str, Ratio] = {}
    for name, (_, share) in MEASURES.items():
        before, after = _values(start, name), _values(tuned, name)
        for side, values in (("start", before), ("tuned", after)):
            ratios[f"{name}.{side}"] = mean(values, where=~np.isnan(values), share=share)
        change = after - before
        ratios[f"{name}.difference"] = mean(change, where=~np.isnan(change), share=False, difference=share)
    return bootstrap(ratios, np.arange(start.height, dtype=np.int64), times=times, seed=seed)


def _values(frame: pl.DataFrame, name: str) -> FloatArray:
    values: FloatArray = frame[name].fill_null(float("nan")).to_numpy().astype(np.float64)
    return values


def warnings(modes: Mapping[str, Any]) -> list[str]:
    """What tuning has made worse beyond chance, in sentences."""
    said = []
    for mode, found in modes.items():
        if found["same_text"] == 1.0:
            said.append(f"Every {mode} answer is the same, letter by letter, as the start model's.")
        if (low := found["repeated"]["difference"]["low"]) is not None and low > 0:
            said.append(f"The tuned model's {mode} answers repeat themselves more than the start model's.")
        if (high := found["stopped"]["difference"]["high"]) is not None and high < 0:
            said.append(f"The tuned model's {mode} answers end by themselves less often than the start model's.")
        length = found["tokens"]
        if (low := length["difference"]["low"]) is not None and low > 0:
            more = length["difference"]["value"] / length["start"]["value"]
            said.append(f"The tuned model's {mode} answers are longer than the start model's, by {more:.0%}.")
    return said
