"""The order of things, once: the same calls build a run under Prefect, and plan one without building anything."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_checks import deduped, evaluated, ingested, paired, publishable, sampled, tokenized
from flows.evaluations import further_evaluations
from flows.gates import GatesConfig
from flows.plain import Steps
from flows.recipe import Recipe, Stage
from tasks.benchmark import asks_alpaca_eval, wanted_tasks
from tasks.errors import GateFailed
from tasks.ingest import SourceConfig
from tasks.manifest import Manifest
from tasks.outputs import refuse_unreadable
from tasks.pairing.contamination import benchmark_files
from tasks.sources.demo_site import ARCHIVE, write_demo_site
from tasks.sources.place import dumps_at
from tasks.store import Store

DEMO_SITE = "demo-site"

BeforeTraining = Callable[[Recipe, Sequence[Manifest], dict[str, Manifest]], Store]


def data_stages(steps: Steps, store: Store, recipe: Recipe) -> Iterator[tuple[Stage, list[Manifest]]]:
    """Ingest to sample, each stage as it is done; the caller stops where it wants to.

    Ingest has the sources of the evaluation behind those of the recipe: what is missing there is said at once.
    """
    # Benchmarks that cannot be read are said now, and not when the dumps have been; what no model can be examined in,
    # before one is trained.
    benchmark_files(recipe.dedupe.decontaminate, store.work_dir)
    if recipe.evaluate.benchmarks is not None:
        wanted_tasks(recipe.evaluate.benchmarks)
        if asks_alpaca_eval(recipe.evaluate.benchmarks):
            refuse_unreadable(recipe.evaluate.benchmarks.alpaca_eval)
    sources = ingest_stage(steps, store, recipe, recipe.ingest.sources)
    yield "ingest", sources + ingest_stage(steps, store, recipe, recipe.evaluate.sources)
    pairs = steps.pair(store, sources, recipe.pair, recipe.seed)
    pairs = steps.gate(store, pairs, recipe.gates.on(paired.check(recipe.pair.min_gap)))
    yield "pair", [pairs]
    deduped_pairs = steps.dedupe(store, pairs, recipe.dedupe, recipe.seed)
    deduped_pairs = steps.gate(store, deduped_pairs, recipe.gates.on(deduped.check()))
    yield "dedupe", [deduped_pairs]
    sampled_pairs = steps.sample(store, deduped_pairs, recipe.sample, recipe.seed, recipe.sample_seed)
    sizes = sampled.check(recipe.sample.size, recipe.sample.held_out)
    sampled_pairs = steps.gate(store, sampled_pairs, recipe.gates.on(sizes))
    made = {"pair": pairs, "dedupe": deduped_pairs, "sample": sampled_pairs}
    told = {key: value for key, value in described(recipe).items() if key in ("seed", *made)}
    steps.card(store, made, sources, recipe.publish.name, told)
    yield "sample", [sampled_pairs]


def training_stages(
    steps: Steps, store: Store, recipe: Recipe, sources: Sequence[Manifest], data: dict[str, Manifest]
) -> Iterator[tuple[Stage, list[Manifest]]]:
    """Model to publish. `data` holds pair, dedupe and sample."""
    sampled_pairs = data["sample"]
    model = steps.model(store, recipe.model)
    yield "model", [model]
    tokens = steps.tokenize(store, sampled_pairs, model, recipe.tokenize)
    tokens = steps.gate(store, tokens, recipe.gates.on(tokenized.check(recipe.tokenize.max_length)))
    yield "tokenize", [tokens]
    scored = steps.reference(store, tokens, model, recipe.reference, recipe.train)
    judges = Judges(sampled_pairs, tokens, scored)
    if recipe.evaluate.sources:
        judges = judges_from_elsewhere(steps, store, recipe, sampled_pairs, model)
    yield "reference", [scored]
    order = recipe.seed if recipe.training_seed is None else recipe.training_seed
    trained = steps.train(store, tokens, scored, model, recipe.train, order)
    yield "train", [trained]
    judged = steps.evaluate(
        store, trained, judges.tokens, judges.scored, judges.pairs, recipe.evaluate, recipe.train, recipe.seed
    )  # fmt: skip
    judged = steps.gate(store, judged, recipe.gates.on(evaluated.check()))
    made = {"model": model, "train": trained, "tokenize": judges.tokens, "held_out": judges.pairs}
    judged, parts = further_evaluations(steps, store, recipe, made, judged)
    if parts:  # a benchmark that was hurt is seen only now; rows that cannot be had to stop the run before
        judged = steps.gate(store, judged, recipe.gates.on(evaluated.check()))
    yield "evaluate", [judged]
    stages = data | {
        "model": model, "tokenize": tokens, "reference": scored, "train": trained, "evaluate": judged,
    }  # fmt: skip
    stages |= parts
    if recipe.evaluate.sources:
        stages["unseen"] = judges.pairs
    if recipe.publish.require_better and recipe.publish.waiver is None:
        stages["evaluate"] = must_be_better(steps, store, judged, recipe.gates)
    published = steps.publish(store, stages, sources, recipe.publish, described(recipe))
    yield "publish", [published]


def must_be_better(steps: Steps, store: Store, judged: Manifest, gates: GatesConfig) -> Manifest:
    """The evaluation, unchanged; GateFailed where it does not show that the model is better than its start."""
    try:
        return steps.gate(store, judged, gates.on(publishable.check()))
    except GateFailed as error:
        raise GateFailed(
            f"publish.require_better is true, and {error}. To publish it whatever was found, give a reason for the "
            "card as publish.waiver"
        ) from error


class Judges(NamedTuple):
    """What the model is judged by: pairs, their token rows, and the start model's log-probs of them."""

    pairs: Manifest
    tokens: Manifest
    scored: Manifest


def judges_from_elsewhere(
    steps: Steps, store: Store, recipe: Recipe, sampled_pairs: Manifest, model: Manifest
) -> Judges:  # fmt: skip
    """Pairs of `evaluate.sources`, made and tokenized as the recipe's own, of questions that training has not seen."""
    number = recipe.evaluate.held_out
    # Twice as many candidates as are wanted: some are of questions that training has seen.
    rules = recipe.pair.model_copy(update={"candidates": 2 * number})
    sources = ingest_stage(steps, store, recipe, recipe.evaluate.sources)
    pairs = steps.pair(store, sources, rules, recipe.seed)
    pairs = steps.gate(store, pairs, recipe.gates.on(paired.check(rules.min_gap)))
    pairs = steps.unseen(store, pairs, sampled_pairs, number, recipe.seed)
    tokens = steps.tokenize(store, pairs, model, recipe.tokenize)
    tokens = steps.gate(store, tokens, recipe.gates.on(tokenized.check(recipe.tokenize.max_length)))
    scored = steps.reference(store, tokens, model, recipe.reference, recipe.train)
    return Judges(pairs, tokens, scored)


def ingest_stage(steps: Steps, store: Store, recipe: Recipe, given: Sequence[SourceConfig]) -> list[Manifest]:
    """The posts or pairs of the sources `given`."""
    sources = steps.ingest(store, sources_of(given, store, recipe.seed))
    return [steps.gate(store, source, recipe.gates.on(ingested.check())) for source in sources]


def all_stages(
    steps: Steps, store: Store, recipe: Recipe, before_training: BeforeTraining | None = None
) -> Iterator[tuple[Stage, list[Manifest]]]:
    """Every stage in order, each with its manifests (ingest has one a source) as soon as it is done.

    `before_training` sees recipe, sources and data, and gives the store that the rest goes by.
    """
    # Read once, and before any dump is: a list that is edited meanwhile must not stand in the card of older pairs.
    recipe = recipe.model_copy(update={"pair": recipe.pair.with_list_read()})
    sources: list[Manifest] = []
    data: dict[str, Manifest] = {}
    for stage, manifests in data_stages(steps, store, recipe):
        if stage == "ingest":
            sources = manifests[: len(sources_of(recipe.ingest.sources, store, recipe.seed))]
        else:
            data[stage] = manifests[0]
        yield stage, manifests
    if before_training is not None:
        store = before_training(recipe, sources, data)
    yield from training_stages(steps, store, recipe, sources, data)


def sources_of(given: Sequence[SourceConfig], store: Store, seed: int) -> list[SourceConfig]:
    """The sources `given`: the made site written if it is asked for, a folder of archives taken apart."""
    found: list[SourceConfig] = []
    for source in given:
        if source.path == DEMO_SITE and not Path(source.path).exists():
            found.append(source.model_copy(update={"path": str(_demo_site(store, seed))}))
        elif source.kind == "dump":
            found.extend(source.model_copy(update={"path": path}) for path in dumps_at(source.path))
        else:
            found.append(source)
    return found


def _demo_site(store: Store, seed: int) -> Path:
    path = store.work_dir / DEMO_SITE / str(seed) / ARCHIVE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_demo_site(path, seed=seed)
    return path


def described(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it stands in a card: nothing of where or on what it ran."""
    settings = recipe.model_dump(mode="json", exclude={"work_dir", "ingest", "price"})
    for section, config in (("train", recipe.train), ("evaluate", recipe.evaluate)):
        for key in config.incidental:
            settings[section].pop(key, None)
    settings["evaluate"].pop("sources", None)
    settings["pair"] = recipe.pair.identity()  # who asked to be left out is nobody's business
    settings["dedupe"] = recipe.dedupe.identity()
    if not recipe.gates.waive:
        del settings["gates"]
    for key in ("sample_seed", "training_seed"):
        if settings[key] is None:
            del settings[key]
    if Path(recipe.model).is_absolute() or Path(recipe.model).exists():
        settings["model"] = Path(recipe.model).name
    return settings
