"""The stages as Prefect tasks: retried where that can help, named "Reused" where nothing was to be done."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed

from data_checks.check import Check
from flows.artifacts import publish_gate, publish_stage
from flows.plain import Steps, plain_steps
from flows.report import TaskReport
from flows.slot import devices_for
from tasks.errors import PrefstackError, Transient
from tasks.gate import gate
from tasks.ingest import SourceConfig, ingest_source
from tasks.manifest import Manifest
from tasks.store import Store

# Seconds before each further try. A gate is deterministic and gets none.
RETRIES: Final[dict[str, list[float]]] = {
    "ingest": [5, 20, 60],
    "pair": [5],
    "dedupe": [5],
    "sample": [5],
    "card": [5],
    "unseen": [5],
    "model": [5, 20, 60],
    "tokenize": [5],
    "reference": [10, 60],
    "train": [60, 300],
    "evaluate": [10, 60],
    "publish": [5],
    "generate": [10, 60],
    "judge": [30, 120],
    "benchmark": [10, 60],
    "outputs": [10, 60],
    "alpaca_eval": [30, 120],
    "results": [5],
}


def worth_another_try(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the failure may not happen again: I/O, network, a lost device; never what is deterministic.

    A plain function, since Prefect 3.8 never retries where the condition is any other callable.
    """
    try:
        state.result()
    except Transient:
        return True
    except PrefstackError:
        return False
    except (ConnectionError, TimeoutError, OSError):
        return True
    except BaseException:
        return False
    return False


def stage_task(stage: str, build: Callable[..., Manifest]) -> Task[..., Any]:
    """`build` as a task: its progress and its artifacts go to Prefect, and a reused result says so in its state."""

    @task(
        name=stage,
        description=(build.__doc__ or stage).strip().splitlines()[0],
        cache_policy=NO_CACHE,  # the store is the cache, with Prefect and without
        persist_result=False,
        retries=len(RETRIES[stage]),
        retry_delay_seconds=RETRIES[stage],
        retry_condition_fn=worth_another_try,
    )
    def run_stage(store: Store, *given: Any) -> Any:
        with TaskReport(store.report, stage) as report, devices_for(stage, build, store, given, report):
            manifest = build(replace(store, report=report), *given)
        publish_stage(stage, manifest, store.work_dir / "runs" / store.run)
        if manifest.reused:
            return Completed(name="Reused", message=str(manifest.folder), data=manifest)
        return Completed(message=f"{manifest.seconds:.1f} s, {manifest.folder}", data=manifest)

    return run_stage


def gate_task(check: Check) -> Task[..., Any]:
    """A gate as a task. It gives back its subject, so that nothing downstream can go round it; it is never retried."""

    @task(name=f"gate-{check.name}", cache_policy=NO_CACHE, persist_result=False)
    def run_gate(store: Store, subject: Manifest) -> Any:
        try:
            result = gate(store, subject, check)
        finally:
            publish_gate(check.name, store, subject, check)
        return Completed(name="Reused" if result.reused else None, message=str(result.folder), data=subject)

    return run_gate


def prefect_steps() -> Steps:
    """Every stage as a task. Training is called directly, never submitted: only then does a cancel reach it."""
    plain = plain_steps()
    ingest_task = stage_task("ingest", ingest_source)

    def ingest(store: Store, sources: Sequence[SourceConfig]) -> list[Manifest]:
        if not sources:
            return []
        if len(sources) == 1:
            return [_done(ingest_task(store, sources[0]))]
        # Not `map`: it would take the arguments behind the store for one, and hand each run all of the sources.
        futures = [ingest_task.submit(store, source) for source in sources]
        return [_done(future.result()) for future in futures]

    def called(name: str, build: Callable[..., Manifest]) -> Callable[..., Manifest]:
        made = stage_task(name, build)
        return lambda *given: _done(made(*given))

    def gated(store: Store, subject: Manifest, check: Check) -> Manifest:
        return _done(gate_task(check)(store, subject))

    return Steps(
        ingest=ingest,
        pair=called("pair", plain.pair),
        dedupe=called("dedupe", plain.dedupe),
        sample=called("sample", plain.sample),
        card=called("card", plain.card),
        unseen=called("unseen", plain.unseen),
        model=called("model", plain.model),
        tokenize=called("tokenize", plain.tokenize),
        reference=called("reference", plain.reference),
        train=called("train", plain.train),
        evaluate=called("evaluate", plain.evaluate),
        publish=called("publish", plain.publish),
        generate=called("generate", plain.generate),
        judge=called("judge", plain.judge),
        benchmark=called("benchmark", plain.benchmark),
        outputs=called("outputs", plain.outputs),
        alpaca_eval=called("alpaca_eval", plain.alpaca_eval),
        results=called("results", plain.results),
        gate=gated,
    )


def _done(outcome: Any) -> Manifest:
    """The manifest in what a task gave: a state where it named one, else the value."""
    manifest = outcome.result() if isinstance(outcome, State) else outcome
    if not isinstance(manifest, Manifest):
        raise TypeError(f"a stage gave {type(manifest).__name__} where a manifest was due")
    return manifest
