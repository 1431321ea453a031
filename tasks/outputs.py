"""Outputs: an instruction set -> what one model answers, in the form that the tool `alpaca_eval` reads.

in   model/ (start or trained); the file of instructions, or the hub's
out  outputs.json   a list of {"instruction", "output", "generator"}, in the order of the instructions
     reference.json the same of the answers to compare to, for these instructions

Greedy, in the Tulu form, by the code that writes the answers to held-out questions. A stage for each model: the start
model's answers serve every run that begins with it, and another annotator judges the same answers.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any, Final

from tasks.alpaca_eval import AlpacaEvalConfig
from tasks.digests import remembered_sha256
from tasks.errors import RecipeError, StageFailed
from tasks.evaluation.instructions import (
    FILE,
    hub_reference,
    read_instructions,
    refuse_unpinned,
    refuse_without_reference,
)
from tasks.evaluation.writing import Writing, by_engine, context, written_answers
from tasks.folders import write_text
from tasks.manifest import Manifest, digest_json
from tasks.store import External, Store, Workspace
from tasks.tokens.encoder import Encoder
from tasks.tokens.template import prompt_text
from training.config import TrainConfig
from training.jobs import Engine

VERSION = 1  # bump when the bytes this stage writes would change

GENERATOR: Final = "prefstack"  # of either model, so that its answers are the same bytes in every run


def outputs(store: Store, subject: Manifest, config: AlpacaEvalConfig, train: TrainConfig) -> Manifest:
    """Answers of the model in `subject`, a `model` or a `train` manifest.

    Raises RecipeError where an instruction leaves no room for an answer, InputError for a file that is not as it
    must be.
    """

    def build(work: Workspace, engine: Engine) -> dict[str, int]:
        asked, reference = _instructions(config)
        prompts = [one["instruction"] for one in asked]
        texts, stopped = _answers(work, subject.path("model"), prompts, config, train, engine)
        made = [
            {"instruction": one["instruction"], "output": text, "generator": GENERATOR}
            for one, text in zip(asked, texts, strict=True)
        ]
        for name, entries in (("outputs.json", made), ("reference.json", reference)):
            text = json.dumps(entries, indent=1, ensure_ascii=False)
            write_text(work.folder / name, text + "\n")
        return {"instructions": len(made), "stopped": stopped, "cut": len(made) - stopped}

    inputs: dict[str, Manifest | External] = {"model": subject, "reference": External(_reference_digest(store, config))}
    if config.instructions is not None:
        inputs["instructions"] = External(_digest(config.instructions, store.work_dir))

    def by(engine: Engine, store: Store) -> Manifest:
        identity = {"max_new_tokens": config.max_new_tokens, "precision": train.precision, "engine": engine}
        return store.stage("outputs", VERSION, identity, inputs, partial(build, engine=engine))

    return by_engine(store, config.engine, 1.0, by)


def _answers(
    work: Workspace, model: Path, instructions: list[str], config: AlpacaEvalConfig, train: TrainConfig, engine: Engine
) -> tuple[list[str], int]:
    """The answers in the order of the instructions, and how many of them ended by themselves."""
    encoder, room = Encoder.load(model), context(model)
    asked = []
    for number, instruction in enumerate(instructions, 1):
        ids = [*encoder.begin, *encoder.whole.encode(prompt_text(instruction)).ids]
        if room is not None and len(ids) + config.max_new_tokens > room:
            raise RecipeError(
                f"evaluate.benchmarks.alpaca_eval.max_new_tokens is {config.max_new_tokens}: instruction {number} has "
                f"{len(ids)} tokens, and the model {room} positions; set it lower"
            )
        asked.append({"key": f"instruction {number}", "ids": ids})
    how = Writing(config.max_new_tokens, config.batch_size, train.precision, train.ranks, encoder.end, engine)
    written = written_answers(work, {"asked": model}, asked, ("greedy",), how)
    texts, stopped = [], 0
    for number, one in enumerate(asked):
        answer = written.get(("asked", "greedy", number))
        if answer is None:
            raise StageFailed(f"{work.stage}: the answer to {one['key']} is missing")
        texts.append(encoder.whole.decode(answer["ids"][:-1] if answer["stopped"] else answer["ids"]).strip())
        stopped += answer["stopped"]
    return texts, stopped


def refuse_unreadable(config: AlpacaEvalConfig) -> None:
    """What can be known of the instructions before a model is trained: InputError or RecipeError."""
    if config.reference_outputs is None:
        refuse_unpinned(config.revision)
        if config.instructions is not None:
            read_instructions(config.instructions)
    else:
        _instructions(config)


def _instructions(config: AlpacaEvalConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is asked, and the answers to compare to of just that, in the same order."""
    path = config.reference_outputs or hub_reference(refuse_unpinned(config.revision))
    reference = read_instructions(path, "output", "generator")
    if config.instructions is None:
        return reference, reference
    asked = read_instructions(config.instructions)
    refuse_without_reference(asked, reference, path)
    known = {one["instruction"]: one for one in reference}
    return asked, [known[one["instruction"]] for one in asked]


def _reference_digest(store: Store, config: AlpacaEvalConfig) -> str:
    """The bytes of a file here; a commit names those of the hub's, so that a plan fetches nothing."""
    if config.reference_outputs is None:
        return digest_json({"file": FILE, "revision": refuse_unpinned(config.revision)})
    return _digest(config.reference_outputs, store.work_dir)


def _digest(path: Path, work_dir: Path) -> str:
    read_instructions(path)  # what is none is said when the run starts
    return remembered_sha256(path, work_dir)
