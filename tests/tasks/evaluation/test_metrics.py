"""Rows and facts -> metrics.json: hand-worked numbers, and policies whose habits are known."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import brier_score_loss

from tasks.errors import StageFailed
from tasks.evaluation.calibration import reliability
from tasks.evaluation.facts import FACTS_SCHEMA, pair_facts
from tasks.evaluation.held_out import joined
from tasks.evaluation.metrics import HEADLINE, ROWS_SCHEMA, metrics, no_metrics
from tasks.evaluation.rewards import margins, reward_of, rewards
from tasks.pairs import PAIR_SCHEMA


def made_rows(
    count: int, *, skill: float = 0.8, length_only: bool = False, trained: bool = True, seed: int = 0
) -> pl.DataFrame:
    """Held-out rows of three sites; the chosen answer is the longer one in about 62 % of them."""
    generator = np.random.default_rng(seed)
    gap = generator.normal(30, 100, count).round().astype(int)
    rejected_tokens = generator.integers(120, 400, count)
    chosen_tokens = np.maximum(1, rejected_tokens + gap)
    gap = chosen_tokens - rejected_tokens
    wins = gap > 0 if length_only else generator.random(count) < skill
    shift = np.where(wins, 1.0, -1.0) * generator.gamma(2.0, 4.0, count) * trained
    reference = -2.5 * np.stack([chosen_tokens, rejected_tokens]) + generator.normal(0, 20, (2, count))
    drop = -0.02 * (trained and not length_only)
    rows = pl.DataFrame(
        {
            "pair_id": [f"s{row // 2 % 3}.example.com/{row // 2}/{2 * row}/{2 * row + 1}" for row in range(count)],
            "chosen_logps": reference[0] + shift / 2 + drop * chosen_tokens,
            "rejected_logps": reference[1] - shift / 2 + drop * rejected_tokens,
            "ref_chosen_logps": reference[0],
            "ref_rejected_logps": reference[1],
            "chosen_tokens": chosen_tokens,
            "rejected_tokens": rejected_tokens,
        }
    )
    facts = pl.DataFrame(
        {
            "pair_id": rows["pair_id"],
            "unit": [f"s{row // 2 % 3}.example.com/{row // 2}" for row in range(count)],
            "site": [f"s{row // 2 % 3}.example.com" for row in range(count)],
            "year": generator.integers(2012, 2024, count),
            "score_gap": generator.geometric(0.2, count),
            "rank_gap": generator.integers(1, 6, count),
            "accepted": generator.choice([0.0, 0.5, 1.0], count, p=[0.1, 0.5, 0.4]),
            "earlier": generator.choice([0.0, 1.0], count, p=[0.45, 0.55]),
            "chosen_chars": chosen_tokens * 4,
            "rejected_chars": rejected_tokens * 4,
            "code_share": np.maximum(0.0, generator.uniform(-1.0, 1.0, count)),
        },
        schema_overrides=dict(FACTS_SCHEMA.items()),
    )
    rows = rows.with_columns(margins(rows, 0.1)).select(pl.col(name).cast(kind) for name, kind in ROWS_SCHEMA.items())
    cut = pl.DataFrame(
        {"pair_id": rows["pair_id"], "chosen_cut": chosen_tokens > 450, "rejected_cut": rejected_tokens > 380}
    )
    return rows.join(facts, on="pair_id").join(cut, on="pair_id")


def judged(rows: pl.DataFrame, times: int = 60) -> dict[str, Any]:
    return metrics(rows, beta=0.1, times=times, seed=42)


def test_three_pairs_worked_by_hand() -> None:
    rows = made_rows(3).with_columns(
        chosen_logps=pl.Series([-10.0, -20.0, -30.0]),
        ref_chosen_logps=pl.Series([-20.0, -20.0, -10.0]),  # changes +10, 0, -20
        rejected_logps=pl.Series([-5.0, -30.0, -8.0]),
        ref_rejected_logps=pl.Series([-5.0, -30.0, -18.0]),  # changes 0, 0, +10
        chosen_tokens=pl.Series([10, 20, 40]),
        rejected_tokens=pl.Series([5, 20, 80]),
        accepted=pl.Series([1.0, 0.5, 0.0]),
    )
    rows = rows.with_columns(margins(rows, 0.1))
    assert rows["margin"].to_list() == pytest.approx([1.0, 0.0, -3.0])
    found = judged(rows)
    assert found["accuracy"] == pytest.approx(1 / 3)  # the tie is wrong
    assert found["ties"] == 1
    assert found["margin"] == pytest.approx(-2 / 3)
    expected = (math.log(1 + math.exp(-1)) + math.log(2) + math.log(1 + math.exp(3))) / 3
    assert found["loss"] == pytest.approx(expected)
    assert found["length_baseline_accuracy"] == pytest.approx(0.5)  # longer, equal, shorter
    assert found["baselines"]["shorter"]["accuracy"] == pytest.approx(0.5)
    assert found["baselines"]["accepted"]["accuracy"] == pytest.approx(0.5)
    assert found["baselines"]["accepted"]["decided"] == pytest.approx(2 / 3)
    assert found["policy_only"]["before"]["accuracy"] == pytest.approx(2 / 3)
    assert found["policy_only"]["after"]["accuracy"] == pytest.approx(1 / 3)
    assert found["policy_only"]["only_before_right"] == 1
    assert found["per_token"]["after"]["accuracy"] == pytest.approx(1 / 3)  # -1 / -1, -1 / -1.5, -0.75 / -0.1
    assert found["drift"]["chosen_logps_per_token"]["change"] == pytest.approx(-10 / 70)
    assert found["drift"]["chosen_fell"]["share"] == pytest.approx(1 / 3)
    assert found["drift"]["kl_proxy_per_token"]["kl"] == pytest.approx((10 - 10) / 175)  # -10 chosen, +10 rejected
    assert found["length"]["where_chosen_shorter"]["accuracy"] == 0.0
    assert found["length"]["chosen_longer"] == pytest.approx(1 / 3)


def test_a_margin_is_made_of_what_the_loss_compares() -> None:
    rows = pl.DataFrame(
        {"chosen_logps": [-10.0], "ref_chosen_logps": [-20.0], "chosen_tokens": [5],
         "rejected_logps": [-8.0], "ref_rejected_logps": [-6.0], "rejected_tokens": [4]}
    )  # fmt: skip
    assert margins(rows, 0.1, reward_of("sigmoid")).to_list() == pytest.approx([0.1 * (10 - -2)])
    assert margins(rows, 5.0, reward_of("dpo_norm")).to_list() == pytest.approx([5 * (10 / 5 - -2 / 4)])
    assert margins(rows, 2.0, reward_of("simpo")).to_list() == pytest.approx([2 * (-10 / 5 - -8 / 4)])
    assert [reward_of(loss) for loss in ("ipo", "ipo_sum", "robust", "ld")] == [
        "averaged log-ratio", "summed log-ratio", "summed log-ratio", "summed log-ratio",
    ]  # fmt: skip
    chosen, rejected = rewards(rows, 0.1, "summed log-ratio")
    assert (chosen[0], rejected[0]) == pytest.approx((1.0, -0.2))


def test_a_policy_equal_to_its_reference_has_learned_nothing_at_all() -> None:
    found = judged(made_rows(200, trained=False))
    assert found["accuracy"] == 0.0
    assert found["ties"] == found["pairs"] == 200
    assert found["margin"] == found["margin_low"] == found["margin_high"] == 0.0
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert found["drift"]["chosen_logps_per_token"] == {"change": 0.0, "low": 0.0, "high": 0.0}
    assert found["drift"]["kl_proxy_per_token"] == {"kl": 0.0, "low": 0.0, "high": 0.0}
    assert found["drift"]["chosen_fell"]["share"] == 0.0
    assert found["policy_only"]["gain"]["difference"] == 0.0
    assert found["policy_only"]["mcnemar_p"] == 1.0
    assert found["length_controlled_accuracy"] is None
    assert "all pairs are wrong" in found["length"]["controlled_reason"]
    assert found["calibration"]["brier"] == pytest.approx(0.25)
    assert found["warnings"][0] == "Every margin is 0: the policy is its reference."


def test_a_policy_that_only_learned_length_is_unmasked() -> None:
    found = judged(made_rows(1500, length_only=True))
    assert found["accuracy"] > 0.55
    assert found["accuracy"] == pytest.approx(found["length_baseline_accuracy"], abs=0.01)
    assert found["length_controlled_accuracy"] < 0.55
    assert found["length"]["where_chosen_shorter"]["accuracy"] == 0.0
    assert "The model is no better than a rule that always picks the longer answer." in found["warnings"]
    assert "With length held equal the accuracy moves by more than 10 points." in found["warnings"]


def test_a_policy_with_skill_beats_every_baseline_and_is_told_so() -> None:
    found = judged(made_rows(1500, skill=0.85))
    assert found["accuracy_low"] > found["length_baseline_accuracy"] > 0.5
    assert found["length_controlled_accuracy_low"] > 0.75
    for name in ("longer", "longer_characters", "shorter", "accepted", "earlier"):
        assert found["baselines"][name]["model_beyond"]["low"] > 0
    assert found["drift"]["chosen_fell"]["share"] > 0.5


def test_the_kl_proxy_is_what_each_token_lost() -> None:
    rows = made_rows(120, trained=False).with_columns(
        pl.col("chosen_logps") - 0.03 * pl.col("chosen_tokens"),
        pl.col("rejected_logps") - 0.03 * pl.col("rejected_tokens"),
    )
    found = judged(rows.with_columns(margins(rows, 0.1)))["drift"]["kl_proxy_per_token"]
    assert [found["kl"], found["low"], found["high"]] == pytest.approx([0.03] * 3)


def test_every_curve_holds_every_pair_once() -> None:
    found = judged(made_rows(600))
    assert set(found["curves"]) == {
        "score_gap", "rank_gap", "length_gap", "site", "year", "truncation", "code", "posted",
    }  # fmt: skip
    for curve in found["curves"].values():
        assert sum(one["pairs"] for one in curve) == 600
        assert sum(one["pairs"] * one["accuracy"] for one in curve) / 600 == pytest.approx(found["accuracy"])
    by_site = [one["accuracy"] for one in found["curves"]["site"]]
    assert found["sites"]["macro_accuracy"] == pytest.approx(sum(by_site) / 3)


def test_every_site_counts_alike_however_many_there_are() -> None:
    """Thirty sites, of which the curve shows twenty: the first is right in all of its 31 pairs, the others in none."""
    sites = ["first"] * 31 + [f"s{number}" for number in range(29)]
    rows = made_rows(60).with_columns(site=pl.Series(sites), margin=pl.Series([1.0] * 31 + [-1.0] * 29))
    found = judged(rows)
    assert found["sites"] == {"macro_accuracy": pytest.approx(1 / 30), "sites": 30}
    assert found["curves"]["site"][-1]["label"] == "10 more sites"


def test_the_curve_over_code_is_of_its_share_in_all_three_texts() -> None:
    texts = {"prompt": "prose\n", "chosen": "```\nx\n```\n", "rejected": "a\n\n\tx"}  # 6 + 10 + 5 characters
    one = {name: None for name in PAIR_SCHEMA.names()} | texts
    assert pair_facts(pl.DataFrame([one], schema=PAIR_SCHEMA))["code_share"].to_list() == pytest.approx([12 / 21])
    rows = made_rows(4).with_columns(code_share=pl.Series([0.0, 0.1, 0.25, 1.0]))
    assert [(one["label"], one["pairs"]) for one in judged(rows)["curves"]["code"]] == [
        ("prose only", 1), ("under ¼", 1), ("¼ to ½", 1), ("½ and more", 1),
    ]  # fmt: skip


def test_columns_that_a_source_lacks_are_null_with_a_reason() -> None:
    unknown = ("site", "year", "score_gap", "rank_gap", "accepted", "earlier", "chosen_cut", "rejected_cut")
    rows = made_rows(100).with_columns(pl.lit(None).cast(pl.Float64).alias(name) for name in unknown)
    found = judged(
        rows.with_columns(pl.col("site").cast(pl.String), pl.col("chosen_cut", "rejected_cut").cast(pl.Boolean))
    )
    assert set(found["curves"]) == {"length_gap", "code"}
    assert found["baselines"]["accepted"] == {"reason": "the source does not say which answer was accepted"}
    assert found["sites"]["macro_accuracy"] is None


def test_a_pair_of_which_it_is_not_known_what_was_cut_is_in_no_bin_of_it() -> None:
    every_other = pl.when(pl.int_range(pl.len()) % 2 == 0)
    rows = made_rows(100).with_columns(every_other.then(pl.col(name)).alias(name) for name in ("chosen_cut", "site"))
    found = judged(rows)["curves"]
    assert [sum(one["pairs"] for one in found[name]) for name in ("truncation", "site")] == [50, 50]


def test_the_order_of_the_rows_changes_no_number() -> None:
    rows = made_rows(200)
    assert json.dumps(judged(rows)) == json.dumps(judged(rows)), "the same rows twice"
    shuffled = judged(rows.sample(fraction=1.0, shuffle=True, seed=1))
    for name in HEADLINE:
        assert shuffled[name] == pytest.approx(judged(rows)[name], abs=1e-12)


def test_metrics_are_json_without_nan() -> None:
    for count in (1, 2, 7):
        json.dumps(judged(made_rows(count), times=20), allow_nan=False)


def test_no_held_out_pair_gives_nulls_and_the_reason() -> None:
    found = no_metrics("sample.held_out is 0")
    assert [found[name] for name in HEADLINE] == [None] * 6
    assert found["reason"] == "sample.held_out is 0"


def test_brier_and_calibration_are_scikit_learns() -> None:
    rows = made_rows(500)
    margin = rows["margin"].to_numpy()
    sure = 1 / (1 + np.exp(-margin))
    assert judged(rows)["calibration"]["brier"] == pytest.approx(brier_score_loss(np.ones(500), sure, labels=[0, 1]))


def test_a_model_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    generator = np.random.default_rng(0)
    probability = generator.uniform(0.5, 1.0, 40_000)
    margin = np.log(probability / (1 - probability)) * np.where(generator.random(40_000) < probability, 1, -1)
    assert reliability(margin)["expected_calibration_error"] < 0.01
    assert reliability(5 * margin)["expected_calibration_error"] > 0.1  # the same answers, said five times as loud


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda scores: scores.head(2), "1 of 3 held-out pairs have no log-probs of the policy, the first of them c"),
        (lambda scores: pl.concat([scores, scores.head(1)]), "name pair a twice"),
        (
            lambda scores: scores.with_columns(chosen_logps=pl.Series([-1.0, math.nan, -1.0])),
            "finite number, the first of them b",
        ),
        (
            lambda scores: scores.with_columns(rejected_logps=pl.Series([-1.0, -1.0, None])),
            "finite number, the first of them c",
        ),
        (lambda scores: scores.with_columns(chosen_tokens=pl.Series([3, 3, 4])), "other token lengths"),
    ],
)
def test_broken_log_probs_are_named(spoil: Any, said: str) -> None:
    lengths = pl.DataFrame({"pair_id": ["a", "b", "c"], "chosen_tokens": [3, 3, 3], "rejected_tokens": [2, 2, 2]})
    scores = lengths.with_columns(chosen_logps=pl.lit(-1.0), rejected_logps=pl.lit(-2.0))
    reference = lengths.select("pair_id", ref_chosen_logps=pl.lit(-1.0), ref_rejected_logps=pl.lit(-2.0))
    assert joined(lengths, scores, reference).height == 3
    with pytest.raises(StageFailed, match=said):
        joined(lengths, spoil(scores), reference)


def test_facts_of_a_pair_come_from_its_columns() -> None:
    one = {name: None for name in PAIR_SCHEMA.names()} | {
        "pair_id": "beer.stackexchange.com/1/4/7", "site": "beer.stackexchange.com", "question_id": 1,
        "prompt": "Why?", "chosen": "Because:\n\n    code", "rejected": "No idea.",
        "chosen_rank": 4, "rejected_rank": 1, "chosen_score": 12, "rejected_score": 3,
        "chosen_accepted": True, "rejected_accepted": False, "created": datetime(2014, 1, 21, tzinfo=UTC),
        "chosen_created": datetime(2014, 1, 22, tzinfo=UTC), "rejected_created": datetime(2014, 1, 21, tzinfo=UTC),
    }  # fmt: skip
    nameless = one | {"pair_id": "paired/00ff", "site": None, "question_id": None, "created": None, "chosen": "x",
                      "chosen_accepted": None, "rejected_accepted": None, "chosen_created": None}  # fmt: skip
    first, second = pair_facts(pl.DataFrame([one, nameless], schema=PAIR_SCHEMA)).to_dicts()
    assert first["unit"] == "beer.stackexchange.com/1"
    assert (first["year"], first["score_gap"], first["rank_gap"]) == (2014, 9, 3)
    assert first["code_share"] == pytest.approx(8 / 30)  # a line and its indent
    assert (first["accepted"], first["earlier"], first["chosen_chars"]) == (1.0, 0.0, 18)
    assert second["unit"].startswith("prompt/") and len(second["unit"]) == 39
    assert (second["accepted"], second["earlier"], second["code_share"]) == (None, None, 0.0)
