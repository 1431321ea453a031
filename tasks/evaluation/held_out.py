"""Held-out rows: token rows, log-probs of both models and facts, joined by pair and checked.

in   held_out/ (tokenize), the policy's and the reference's log-probs, held_out.parquet (sample)
out  frames in the order of the token rows
"""

from pathlib import Path
from typing import Final

import polars as pl

from tasks.errors import StageFailed
from tasks.evaluation.facts import FACTS_SCHEMA, pair_facts
from tasks.tokens.token_rows import read_token_rows

LOGPS: Final = ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")


def token_lengths(rows: Path, max_length: int | None) -> pl.DataFrame:
    """`pair_id, chosen_tokens, rejected_tokens, chosen_cut, rejected_cut` of the token rows in the folder `rows`.

    A cut answer fills the limit and has lost its EOS. Every answer that is shorter ends with EOS, which tells the id.
    No row where the folder is missing or empty; `max_length` None: what was cut is null.
    """
    schema = pl.Schema(
        {"pair_id": pl.String, "chosen_tokens": pl.Int64, "rejected_tokens": pl.Int64, "chosen_cut": pl.Boolean,
         "rejected_cut": pl.Boolean}
    )  # fmt: skip
    sides = ("chosen", "rejected")
    frame = read_token_rows(rows).select(
        "pair_id",
        *(pl.col(f"{side}_ids").list.len().cast(pl.Int64).alias(f"{side}_tokens") for side in sides),
        *(
            (pl.col("prompt_ids").list.len() + pl.col(f"{side}_ids").list.len()).alias(f"{side}_total")
            for side in sides
        ),
        *(pl.col(f"{side}_ids").list.last().alias(f"{side}_last") for side in sides),
    )
    limit = pl.lit(max_length, dtype=pl.Int64)
    whole = pl.concat(
        [frame.filter(pl.col(f"{side}_total") < limit).select(last=f"{side}_last") for side in sides]
    ).get_column("last")  # fmt: skip
    eos = whole[0] if len(whole) else None
    frame = frame.with_columns(
        ((pl.col(f"{side}_total") >= limit) & pl.col(f"{side}_last").ne_missing(eos)).alias(f"{side}_cut")
        for side in sides
    )
    return frame.select(pl.col(name).cast(kind) for name, kind in schema.items())


def check_pairs(lengths: pl.DataFrame, scores: pl.DataFrame, whose: str) -> None:
    """Raise StageFailed unless `scores` names every pair of `lengths`, and none twice."""
    ids = scores.get_column("pair_id")
    if ids.n_unique() != len(ids):
        raise StageFailed(f"evaluate: the {whose}'s log-probs name pair {ids.filter(ids.is_duplicated())[0]} twice")
    missing = lengths.join(scores, on="pair_id", how="anti", maintain_order="left")
    if missing.height:
        raise StageFailed(
            f"evaluate: {missing.height} of {lengths.height} held-out pairs have no log-probs of the {whose}, "
            f"the first of them {missing['pair_id'][0]}; score them again with --force"
        )


def joined(lengths: pl.DataFrame, policy: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    """The log-probs of both models beside the token lengths, in the order of the token rows.

    Raises StageFailed where a pair has no log-probs, more than one, other lengths, no token, or no finite number.
    """
    check_pairs(lengths, policy, "policy")
    check_pairs(lengths, reference, "reference")
    rows = lengths.select("pair_id", seen_chosen="chosen_tokens", seen_rejected="rejected_tokens")
    rows = rows.join(policy, on="pair_id", how="left", maintain_order="left")
    rows = rows.join(reference, on="pair_id", how="left", maintain_order="left")
    rows = rows.with_columns(pl.col(LOGPS).cast(pl.Float64), pl.col("chosen_tokens", "rejected_tokens").cast(pl.Int64))
    for fault, expression in (
        ("a log-prob that is not a finite number", ~pl.all_horizontal(pl.col(LOGPS).is_finite().fill_null(False))),
        ("an answer without tokens", (pl.col("seen_chosen") < 1) | (pl.col("seen_rejected") < 1)),
        (
            "other token lengths than it was scored with",
            (pl.col("seen_chosen") != pl.col("chosen_tokens")) | (pl.col("seen_rejected") != pl.col("rejected_tokens")),
        ),
    ):
        bad = rows.filter(expression)
        if bad.height:
            raise StageFailed(
                f"evaluate: {bad.height} held-out pairs have {fault}, the first of them {bad['pair_id'][0]}"
            )
    return rows


def facts_of(pairs: Path, rows: pl.DataFrame, lengths: pl.DataFrame) -> pl.DataFrame:
    """`rows` with the facts of each pair and what was cut of it."""
    wanted = rows.select("pair_id")
    facts = pair_facts(pl.read_parquet(pairs).join(wanted, on="pair_id", how="semi", maintain_order="left"))
    missing = wanted.join(facts, on="pair_id", how="anti", maintain_order="left")
    if missing.height:
        raise StageFailed(
            f"evaluate: pair {missing['pair_id'][0]} has token rows but is not in the sample's held_out.parquet"
        )
    cut = lengths.select("pair_id", "chosen_cut", "rejected_cut")
    facts = facts.select(FACTS_SCHEMA.names()).join(cut, on="pair_id", how="left", maintain_order="left")
    return rows.join(facts, on="pair_id", how="left", maintain_order="left")
