"""The stages as callables: plain functions, which a plan asks and which Prefect's tasks are made around."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tasks.alpaca_eval import alpaca_eval
from tasks.benchmark import benchmark
from tasks.card import card
from tasks.dedupe import dedupe
from tasks.errors import PrefstackError, RecipeError
from tasks.evaluate import evaluate
from tasks.gate import gate
from tasks.generate import generate
from tasks.ingest import SourceConfig, ingest_source
from tasks.judge import judge
from tasks.manifest import Manifest
from tasks.model import start_model
from tasks.outputs import outputs
from tasks.pair import pair
from tasks.publish import publish
from tasks.reference import reference
from tasks.results import results
from tasks.sample import sample
from tasks.store import Store
from tasks.tokenize import tokenize
from tasks.train import train
from tasks.unseen import unseen

Step = Callable[..., Manifest]


@dataclass(frozen=True)
class Steps:
    """The stages as callables: plain functions, or the Prefect tasks around them."""

    ingest: Callable[[Store, Sequence[SourceConfig]], list[Manifest]]
    pair: Step
    dedupe: Step
    sample: Step
    card: Step
    unseen: Step
    model: Step
    tokenize: Step
    reference: Step
    train: Step
    evaluate: Step
    publish: Step
    generate: Step
    judge: Step
    benchmark: Step
    outputs: Step
    alpaca_eval: Step
    results: Step
    gate: Step
    """Its subject, unchanged; raises GateFailed."""


def plain_steps() -> Steps:
    """The stages as they are, one after the other: what a plan asks, and what a test may run."""

    def ingest(store: Store, sources: Sequence[SourceConfig]) -> list[Manifest]:
        return [_or_missing(store, "source", partial(ingest_source, store, source)) for source in sources]

    def gated(store: Store, subject: Manifest, check: Any) -> Manifest:
        if not store.plan:
            gate(store, subject, check)
        return subject

    def model(store: Store, name: str) -> Manifest:
        return _or_missing(store, "model", partial(start_model, store, name))

    return Steps(
        ingest, pair, dedupe, sample, card, unseen, model, tokenize, reference, train, evaluate, publish, generate,
        judge, benchmark, outputs, alpaca_eval, results, gated,
    )  # fmt: skip


def _or_missing(store: Store, stage: str, made: Callable[[], Manifest]) -> Manifest:
    """What `made` gives; in a plan an input that is not here is a note, not an end."""
    try:
        return made()
    except PrefstackError as error:
        # A model without a commit is missing something; a source that is wrongly described is a wrong recipe.
        if not store.plan or (isinstance(error, RecipeError) and stage != "model"):
            raise
        return Manifest(
            stage=stage, version=0, fingerprint="unknown", config={}, inputs={}, files={}, counts={}, seconds=0.0,
            provenance={"missing": str(error)}, folder=store.work_dir / "store", planned=True,
        )  # fmt: skip
