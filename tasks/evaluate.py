"""Evaluate: tuned model and held-out rows -> metrics with intervals, and plots.

in   model/ (trained), held_out/ (tokenize), held_out.parquet (reference), held_out.parquet (sample)
out  rows.parquet     one row a held-out pair, its log-probs and margin (tasks/evaluation/metrics.py)
     metrics.json     the numbers, with intervals and baselines; null with a reason where there is no held-out pair
     plots/           PNG
"""

import json
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, PositiveInt

from tasks.benchmark import BenchmarkConfig
from tasks.config import StageConfig
from tasks.evaluation.held_out import check_pairs, facts_of, joined, token_lengths
from tasks.evaluation.metrics import ROWS_SCHEMA, STORED_SCHEMA, metrics, no_metrics
from tasks.evaluation.plots import draw_evaluation
from tasks.evaluation.rewards import margins, reward_of
from tasks.folders import write_text
from tasks.generate import GenerateConfig
from tasks.ingest import SourceConfig
from tasks.manifest import Manifest
from tasks.scores.logp_space import keyed, space, unknown
from tasks.scores.logp_store import LogpStore
from tasks.scores.scoring import Wanted, score_all
from tasks.store import Store, Workspace
from training.config import TrainConfig

VERSION = 6  # bump when the bytes this stage writes would change


class EvaluateConfig(StageConfig):
    """How the tuned model is judged."""

    # Where held-out pairs come from is told by the manifests that are handed in; the others are stages of their own.
    incidental: ClassVar[frozenset[str]] = frozenset({"sources", "held_out", "generate", "benchmarks"})

    bootstrap: PositiveInt = 1000
    """Resamples of questions behind each interval."""
    sources: list[SourceConfig] = Field(default_factory=list)
    """Held-out pairs from elsewhere, in place of the sample's own. Pairs of questions trained on are left out."""
    held_out: PositiveInt = 2_000
    """Pairs that are drawn from `sources`; fewer where there are no more."""
    generate: GenerateConfig | None = None
    """What start and tuned model are asked to write, and who judges it; null = nothing."""
    benchmarks: BenchmarkConfig | None = None
    """What both are examined in by lm-eval; null = nothing."""


def evaluate(
    store: Store, trained: Manifest, tokens: Manifest, reference: Manifest, sampled: Manifest,
    config: EvaluateConfig, train: TrainConfig, seed: int,
) -> Manifest:  # fmt: skip
    """Metrics of the tuned model beside the start model and the baselines that a sceptic asks for."""

    reward = reward_of(train.loss)

    def build(work: Workspace) -> dict[str, int]:
        lengths = token_lengths(tokens.path("held_out"), tokens.config.get("max_length"))
        rows = pl.DataFrame(schema=STORED_SCHEMA)
        if lengths.height == 0:
            found = no_metrics(_why_none(sampled))
        else:
            referred = pl.read_parquet(reference.path("held_out.parquet"))
            check_pairs(lengths, referred, "reference")  # before the long part
            counts = lengths.select("pair_id", "chosen_tokens", "rejected_tokens")
            policy = _policy_logps(work, store, trained, tokens, train)
            rows = joined(lengths, policy.join(counts, on="pair_id", how="left", maintain_order="left"), referred)
            rows = rows.with_columns(margins(rows, train.beta, reward)).select(ROWS_SCHEMA.names())
            facts = facts_of(sampled.path("held_out.parquet"), rows, lengths)
            found = metrics(facts, beta=train.beta, times=config.bootstrap, seed=seed, reward=reward)
            rows = facts.select(STORED_SCHEMA.names())
            draw_evaluation(work.folder / "plots", found, facts)
            work.message(headline(found))
        rows.write_parquet(work.folder / "rows.parquet", statistics=True)
        write_text(
            work.folder / "metrics.json", json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        )
        right = int((rows.get_column("margin") > 0).sum())
        ties = int((rows.get_column("margin") == 0).sum())
        return {"pairs": rows.height, "questions": found["questions"], "right": right, "ties": ties,
                "wrong": rows.height - right - ties}  # fmt: skip

    identity = config.identity() | {"beta": train.beta, "precision": train.precision, "reward": reward, "seed": seed}
    inputs = {"train": trained, "tokenize": tokens, "reference": reference, "sample": sampled}
    return store.stage("evaluate", VERSION, identity, inputs, build)


def _policy_logps(
    work: Workspace, store: Store, trained: Manifest, tokens: Manifest, train: TrainConfig
) -> pl.DataFrame:  # fmt: skip
    """`pair_id, chosen_logps, rejected_logps` under the tuned model, in the order of the held-out rows.

    What an earlier evaluation of the same weights has scored is found: another analysis costs no forward pass.
    """
    held_out = tokens.path("held_out")
    kept = LogpStore.of(store.work_dir, space(trained, train, 1.0))
    rows = keyed(held_out)
    with kept.in_use():
        known = kept.read(work.message)
        new = unknown(rows, known)
        if new.height:
            out = work.partial / "policy.parquet"
            wanted = Wanted(held_out, out, new["row"].to_list(), by_question=train.order == "questions")
            score_all(
                work, trained.path("model"), [wanted],
                precision=train.precision, ranks=train.ranks, tokens_per_pack=train.tokens_per_pack,
            )  # fmt: skip
            fresh = new.join(pl.read_parquet(out), on="pair_id", how="left", maintain_order="left")
            kept.add(fresh)
            known = pl.concat([known, fresh.select(known.columns)])
    return rows.join(known, on="key", how="left", maintain_order="left").drop("row", "key")


def _why_none(held_out: Manifest) -> str:
    """Why there is no pair to judge by."""
    kept = held_out.counts.get("held_out", 0)
    if kept:
        return f"none of the {kept} held-out pairs has token rows"
    if held_out.stage == "unseen":
        return "evaluate.sources have no pair of a question that training has not seen"
    return "sample.held_out is 0: no pair to judge by"


def read_metrics(evaluated: Manifest) -> dict[str, Any]:
    """metrics.json of a finished evaluation."""
    found: dict[str, Any] = json.loads(evaluated.path("metrics.json").read_text(encoding="utf-8"))
    return found


def headline(found: dict[str, Any]) -> str:
    """One line for the log."""
    return (
        f"accuracy {found['accuracy']:.3f} ({found['accuracy_low']:.3f} to {found['accuracy_high']:.3f}) on "
        f"{found['pairs']} held-out pairs; always the longer answer: {found['length_baseline_accuracy']:.3f}"
    )
