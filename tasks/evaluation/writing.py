"""Answers of models to prompts, written by ranks: one part file a batch, so that an interrupted generation goes on.

in   token ids of prompts, folders of models
out  for each model, mode and prompt: ids, and whether the answer ended by itself
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.evaluation.engine import ENGINES, Wanted, engine_here
from tasks.folders import write_text
from tasks.manifest import Manifest
from tasks.scores.ranks import run_ranks
from tasks.store import Silent, Store, Workspace
from training.config import Precision
from training.jobs import AnswerBatch, Engine, GenerateJob, Mode

Key = tuple[str, str, int]  # model, mode, place of the prompt


@dataclass(frozen=True)
class Writing:
    """How answers are written; what greedy ones need not has a default."""

    max_new_tokens: int
    batch_size: int
    precision: Precision
    ranks: int
    end: int
    """Id of EOS."""
    engine: Engine
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0


def by_engine(store: Store, wanted: Wanted, temperature: float, by: Callable[[Engine, Store], Manifest]) -> Manifest:
    """The stage `by` the engine that is wanted; with `auto` what is there is taken whoever wrote it.

    The host that asks need not be the one that had the device.
    """
    if wanted == "auto":
        asking = replace(store, plan=True, report=Silent())
        for engine in ENGINES:
            if not by(engine, asking).planned:
                return by(engine, store)
    return by(engine_here(wanted, temperature), store)


def written_answers(
    work: Workspace, models: Mapping[str, Path], asked: Sequence[Mapping[str, Any]], modes: Sequence[Mode], how: Writing
) -> dict[Key, dict[str, Any]]:
    """`ids` and `stopped` of every answer; `asked` has `key` and `ids` of each prompt."""
    folder = work.partial / "generation"
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    write_text(folder / "prompts.json", json.dumps(list(asked)))
    lengths = [len(one["ids"]) for one in asked]
    batches = tuple(_batches(_read_parts(parts), tuple(models), modes, lengths, how.batch_size))
    for some in [dict(models)] if how.engine == "transformers" else [{name: at} for name, at in models.items()]:
        share = tuple(batch for batch in batches if batch.model in some)
        if not share:
            continue
        GenerateJob(
            models=some, prompts=folder / "prompts.json", batches=share, parts=parts, folder=folder,
            precision=how.precision, max_new_tokens=how.max_new_tokens, temperature=how.temperature, top_p=how.top_p,
            seed=how.seed, end=how.end, engine=how.engine,
        ).write(folder / "job.json")  # fmt: skip
        outcome = run_ranks(
            work, "training.generate", folder / "job.json", folder,
            ranks=max(1, min(how.ranks, len(share) // len(some))), log_file=folder / "generate.log",
        )  # fmt: skip
        work.provenance |= {"generation": outcome.facts}
    return _read_parts(parts)


def context(model: Path) -> int | None:
    """Positions that the model has; None where its config does not say."""
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    found = settings.get("max_position_embeddings")
    return found if isinstance(found, int) else None


def _batches(
    written: Mapping[Key, Any], models: Sequence[str], modes: Sequence[Mode], lengths: Sequence[int], size: int
) -> Iterator[AnswerBatch]:
    """What is not yet written, prompts of like length together."""
    for model in models:
        for mode in modes:
            left = [number for number in range(len(lengths)) if (model, mode, number) not in written]
            left.sort(key=lambda number: lengths[number])
            for first in range(0, len(left), size):
                yield AnswerBatch(model, mode, tuple(left[first : first + size]))


def _read_parts(parts: Path) -> dict[Key, dict[str, Any]]:
    """What is written already, by model, mode and number; a file that a crash tore counts for nothing."""
    found: dict[Key, dict[str, Any]] = {}
    for path in sorted(parts.glob("*.json")):
        try:
            answers = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            path.unlink()
            continue
        found |= {(answer["model"], answer["mode"], answer["number"]): answer for answer in answers}
    return found
