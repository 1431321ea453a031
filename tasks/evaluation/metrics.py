"""Metrics: held-out log-probs and facts -> metrics.json.

in   rows (ROWS_SCHEMA) with FACTS_SCHEMA and `chosen_cut`, `rejected_cut`
out  a dictionary for metrics.json: the headline numbers at the top, what a sceptic asks for below

"Right" is strict: margin > 0. A tie is wrong, as in RewardBench, so that a policy equal to its reference scores 0.
Everything is worked out from the stored log-probs; no model is loaded. Log-probs are natural logarithms.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.evaluation.baselines import baselines
from tasks.evaluation.calibration import brier, loss, reliability
from tasks.evaluation.curves import curves
from tasks.evaluation.facts import unit_numbers
from tasks.evaluation.length_control import length_controlled
from tasks.evaluation.rewards import Reward, rewards
from tasks.evaluation.statistics import Estimate, FloatArray, Ratio, bootstrap, coin_range, mcnemar, mean

ROWS_SCHEMA: Final = pl.Schema(
    {
        "pair_id": pl.String,
        "chosen_logps": pl.Float64,  # summed over completion tokens, policy
        "rejected_logps": pl.Float64,
        "ref_chosen_logps": pl.Float64,  # the same of the reference, which is the start model
        "ref_rejected_logps": pl.Float64,
        "chosen_tokens": pl.Int64,  # completion tokens as the model sees them, after truncation
        "rejected_tokens": pl.Int64,
        "margin": pl.Float64,  # reward of chosen minus reward of rejected (tasks/evaluation/rewards.py)
    }
)

# As they are kept: with the question that a pair belongs to (FACTS_SCHEMA), which its id does not tell where the source
# has no ids.
STORED_SCHEMA: Final = pl.Schema([*ROWS_SCHEMA.items(), ("unit", pl.String())])

HEADLINE: Final = ("accuracy", "accuracy_low", "accuracy_high", "margin", "loss", "length_baseline_accuracy")


def no_metrics(reason: str) -> dict[str, Any]:
    """What metrics.json says when there is no held-out pair: every headline number null, and why."""
    return {**dict.fromkeys(HEADLINE), "reason": reason, "pairs": 0, "questions": 0}


def metrics(
    rows: pl.DataFrame, *, beta: float, times: int, seed: int, reward: Reward = "summed log-ratio"
) -> dict[str, Any]:
    """Every number of metrics.json for `rows`, which must not be empty; `reward` is what their margins are made of."""
    units = unit_numbers(rows.get_column("unit"))
    right = rows.get_column("margin").to_numpy() > 0
    rules = baselines(rows)
    bins = curves(rows)
    ratios = _ratios(rows, right, beta, reward)
    for name, rule in rules.items():
        if rule.verdicts is not None:
            ratios[f"baseline.{name}"] = mean(rule.verdicts)
            ratios[f"decided.{name}"] = mean(rule.verdicts, where=rule.verdicts != 0.5)
            ratios[f"beyond.{name}"] = mean(right - rule.verdicts, difference=True)
    for name, curve in bins.items():
        for number, a_bin in enumerate(curve):
            ratios[f"curve.{name}.{number}"] = mean(right.astype(np.float64), where=a_bin.inside)
    found = bootstrap(ratios, units, times=times, seed=seed)
    gap = (rows.get_column("chosen_tokens") - rows.get_column("rejected_tokens")).to_numpy().astype(np.float64)
    controlled = length_controlled(right, gap, units, times=times, seed=seed)
    longer = rules["longer"].verdicts
    assert longer is not None  # token lengths are always known
    made: dict[str, Any] = {
        "accuracy": found["accuracy"].value,
        "accuracy_low": found["accuracy"].low,
        "accuracy_high": found["accuracy"].high,
        "margin": found["margin"].value,
        "loss": found["loss"].value,
        "length_baseline_accuracy": found["baseline.longer"].value,
        "reason": None,
        "pairs": rows.height,
        "questions": int(units.max()) + 1,
        "ties": int((rows.get_column("margin") == 0.0).sum()),
        "beta": beta,
        "reward": reward,
        "interval": f"95 %, percentiles of {times} bootstrap resamples of questions; exact where all of them agree",
        "margin_low": found["margin"].low,
        "margin_high": found["margin"].high,
        "loss_low": found["loss"].low,
        "loss_high": found["loss"].high,
        "length_controlled_accuracy": controlled.accuracy.value,
        "length_controlled_accuracy_low": controlled.accuracy.low,
        "length_controlled_accuracy_high": controlled.accuracy.high,
        "length": {
            "controlled_slope": controlled.slope,
            "controlled_reason": controlled.reason,
            "chosen_longer": found["chosen_longer"].value,
            "where_chosen_shorter": found["where_shorter"].named("accuracy"),
            "where_chosen_longer": found["where_longer"].named("accuracy"),
            "where_equally_long": found["where_equal"].named("accuracy"),
        },
        # Pair by pair, right minus the start model's right under the same reward.
        "over_start": found["over_start"].named("difference"),
        "policy_only": _policy_only(rows, found),
        "per_token": {
            "margin": found["per_token.margin"].named("accuracy"),
            "before": found["per_token.before"].named("accuracy"),
            "after": found["per_token.after"].named("accuracy"),
        },
        "baselines": {
            name: {"reason": rule.reason}
            if rule.verdicts is None
            else {
                **found[f"baseline.{name}"].named("accuracy"),
                "decided": float((rule.verdicts != 0.5).mean()),
                "accuracy_where_decided": found[f"decided.{name}"].value,
                "model_beyond": found[f"beyond.{name}"].named("difference"),
            }
            for name, rule in rules.items()
        },
        "calibration": {"brier": found["brier"].value, **reliability(rows.get_column("margin").to_numpy())},
        "drift": _drift(found),
        "sites": _macro(rows.get_column("site"), right),
        "curves": {
            name: [
                {"label": a_bin.label, "pairs": int(a_bin.inside.sum()),
                 **found[f"curve.{name}.{number}"].named("accuracy"),
                 "longer_accuracy": float(longer[a_bin.inside].mean())}
                for number, a_bin in enumerate(curve)
            ]
            for name, curve in bins.items()
        },
    }  # fmt: skip
    low, high = coin_range(rows.height)
    made["baselines"]["random"] = {"accuracy": 0.5, "low": low, "high": high}
    made["warnings"] = warnings(made)
    return made


def _ratios(
    rows: pl.DataFrame, right: npt.NDArray[np.bool_], beta: float, reward: Reward
) -> dict[str, Ratio]:  # fmt: skip
    """Every mean that needs no baseline and no curve."""
    chosen_reward, rejected_reward = rewards(rows, beta, reward)
    chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, margin = (
        rows.get_column(name).to_numpy().astype(np.float64) for name in ROWS_SCHEMA.names()[1:]
    )
    hits = right.astype(np.float64)
    chosen_change, rejected_change = chosen - ref_chosen, rejected - ref_rejected
    chosen_rate, rejected_rate = chosen_change / chosen_tokens, rejected_change / rejected_tokens
    before, after = _strict(ref_chosen, ref_rejected), _strict(chosen, rejected)
    # What the start model is right in under the same reward: nothing under a log-ratio, of which both sides are 0.
    start = _strict(ref_chosen / chosen_tokens, ref_rejected / rejected_tokens) * (reward == "averaged log-prob")
    return {
        "accuracy": mean(hits),
        "margin": mean(margin, share=False),
        "loss": mean(loss(margin), share=False),
        "brier": mean(brier(margin)),
        "chosen_longer": mean((chosen_tokens > rejected_tokens).astype(np.float64)),
        "where_shorter": mean(hits, where=chosen_tokens < rejected_tokens),
        "where_longer": mean(hits, where=chosen_tokens > rejected_tokens),
        "where_equal": mean(hits, where=chosen_tokens == rejected_tokens),
        "before": mean(before),
        "after": mean(after),
        "gain": mean(after - before, difference=True),
        "over_start": mean(hits - start, difference=True),
        "per_token.margin": mean(_strict(chosen_rate, rejected_rate)),
        "per_token.before": mean(_strict(ref_chosen / chosen_tokens, ref_rejected / rejected_tokens)),
        "per_token.after": mean(_strict(chosen / chosen_tokens, rejected / rejected_tokens)),
        "drift.chosen": Ratio(chosen_change, chosen_tokens, share=False),
        "drift.rejected": Ratio(rejected_change, rejected_tokens, share=False),
        # Both answers of a pair: fixed texts, whatever the model likes.
        "drift.kl": Ratio(-chosen_change - rejected_change, chosen_tokens + rejected_tokens, share=False),
        "drift.chosen_pair": mean(chosen_rate, share=False),
        "drift.rejected_pair": mean(rejected_rate, share=False),
        "drift.chosen_reward": mean(chosen_reward.to_numpy(), share=False),
        "drift.rejected_reward": mean(rejected_reward.to_numpy(), share=False),
        "drift.chosen_fell": mean(_strict(ref_chosen, chosen)),
        "drift.rejected_fell": mean(_strict(ref_rejected, rejected)),
    }


def _strict(first: FloatArray, second: FloatArray) -> FloatArray:
    return (first > second).astype(np.float64)


def _policy_only(rows: pl.DataFrame, found: Mapping[str, Estimate]) -> dict[str, Any]:
    """Log-probs without the reference: which answer the model finds likelier, before and after training."""
    before = (rows.get_column("ref_chosen_logps") > rows.get_column("ref_rejected_logps")).to_numpy()
    after = (rows.get_column("chosen_logps") > rows.get_column("rejected_logps")).to_numpy()
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return {
        "before": found["before"].named("accuracy"),
        "after": found["after"].named("accuracy"),
        "gain": found["gain"].named("difference"),
        "only_after_right": gained,
        "only_before_right": lost,
        "mcnemar_p": mcnemar(gained, lost),
    }


def _drift(found: Mapping[str, Estimate]) -> dict[str, Any]:
    """How far the policy has moved from the reference: log-probs in nats a token, rewards in units of the margin."""
    return {
        "chosen_logps_per_token": found["drift.chosen"].named("change"),
        "rejected_logps_per_token": found["drift.rejected"].named("change"),
        "chosen_logps_per_token_mean_of_pairs": found["drift.chosen_pair"].value,
        "rejected_logps_per_token_mean_of_pairs": found["drift.rejected_pair"].value,
        "chosen_reward": found["drift.chosen_reward"].value,
        "rejected_reward": found["drift.rejected_reward"].value,
        # Mean of log reference - log policy over the tokens of people's answers: what KL(reference || policy) a token
        # would be if the reference had written them. 0: not moved on these texts; above 0: they became less likely.
        "kl_proxy_per_token": found["drift.kl"].named("kl"),
        "chosen_fell": found["drift.chosen_fell"].named("share"),
        "rejected_fell": found["drift.rejected_fell"].named("share"),
    }


def _macro(sites: pl.Series, right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The mean over all sites, each counted alike, so that one big site does not speak for all."""
    named = pl.DataFrame({"site": sites, "right": right}).drop_nulls("site")
    if named.height == 0:
        return {"macro_accuracy": None, "reason": "the source does not name its sites"}
    each = named.group_by("site").agg(pl.col("right").mean()).sort("site")["right"]
    return {"macro_accuracy": float(np.mean(each.to_numpy())), "sites": len(each)}


def warnings(made: Mapping[str, Any]) -> list[str]:
    """What should make a reader stop, in sentences."""
    said = []
    accuracy, low = made["accuracy"], made["accuracy_low"]
    if made["ties"] == made["pairs"]:
        said.append("Every margin is 0: the policy is its reference.")
    elif accuracy <= made["length_baseline_accuracy"]:
        said.append("The model is no better than a rule that always picks the longer answer.")
    elif low <= made["length_baseline_accuracy"]:
        said.append("The interval of the accuracy holds the accuracy of always picking the longer answer.")
    controlled = made["length_controlled_accuracy"]
    if controlled is not None and abs(controlled - accuracy) > 0.1:
        said.append("With length held equal the accuracy moves by more than 10 points.")
    if made["drift"]["chosen_fell"]["share"] > 0.5 and made["ties"] < made["pairs"]:
        said.append("Most chosen answers are less likely than before training.")
    if made["questions"] < 100:
        said.append(f"Only {made['questions']} held-out questions: the intervals are wide and themselves uncertain.")
    return said
