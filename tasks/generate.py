"""Generate: held-out prompts -> what the start and the tuned model answer, and how the answers differ.

in   model/ (start), model/ (trained), held_out/ (tokenize)
out  generations.parquet   pair_id, model (start|tuned), mode (greedy|sampled), text, tokens, stopped, ids
     generation.json       the measures (tasks/evaluation/answers.py); null with a reason where there is no prompt

prompts + skipped.* = questions; answers = prompts × 2 models × 2 modes = stopped + cut.
"""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Final

import polars as pl
from pydantic import Field, PositiveInt, model_validator

from tasks.config import StageConfig
from tasks.errors import StageFailed
from tasks.evaluation.answers import ANSWERS_SCHEMA, answer_measures, no_answers
from tasks.evaluation.engine import COOLEST, HOTTEST, Wanted, vllm_can_sample
from tasks.evaluation.writing import Writing, by_engine, context, written_answers
from tasks.folders import write_text
from tasks.judge import JudgeConfig
from tasks.keyed import keyed_ranks
from tasks.manifest import Manifest
from tasks.store import Store, Workspace
from tasks.tokens.encoder import Encoder
from tasks.tokens.token_rows import read_token_rows
from training.config import TrainConfig
from training.jobs import Engine, Mode

VERSION = 3  # bump when the bytes this stage writes would change

MODELS: Final = ("start", "tuned")
MODES: Final[tuple[Mode, ...]] = ("greedy", "sampled")


class GenerateConfig(StageConfig):
    """What both models are asked to write."""

    # The token of a row is drawn by the row's own key; of the batch only rounding is left. The judge is another stage.
    incidental: ClassVar[frozenset[str]] = frozenset({"batch_size", "judge"})

    prompts: PositiveInt = 32
    """Held-out questions, drawn by keyed rank; each is answered by both models, greedily and sampled."""
    max_new_tokens: PositiveInt = 256
    """Tokens after which an answer is cut."""
    temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 0.7
    """Divides the logits of the sampled answers."""
    engine: Wanted = "auto"
    """What writes: transformers, or vllm, which is faster and no part of prefstack; auto = vllm where it can be
    imported and has a CUDA device, or what has written already. Answers of either are another result."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Sampled answers draw from the likeliest tokens that together have this probability; 1 = from all."""
    batch_size: PositiveInt = 16
    """Prompts that are answered together on one rank."""
    judge: JudgeConfig | None = None
    """Who compares the answers of the two models; null = nobody."""

    @model_validator(mode="after")
    def _warm(self) -> "GenerateConfig":
        if self.engine == "vllm" and not vllm_can_sample(self.temperature):
            raise ValueError(
                f"evaluate.generate.temperature is {self.temperature}, and evaluate.generate.engine vllm draws at "
                f"{COOLEST} to {HOTTEST}; set the engine to transformers, or another temperature"
            )
        return self


def generate(
    store: Store, trained: Manifest, model: Manifest, tokens: Manifest, config: GenerateConfig, train: TrainConfig,
    seed: int, times: int,
) -> Manifest:  # fmt: skip
    """Answers of both models to the same prompts; `times` resamples of questions are behind each interval."""

    def build(work: Workspace, engine: Engine) -> dict[str, int]:
        folders = dict(zip(MODELS, (model.path("model"), trained.path("model")), strict=True))
        room = context(folders["tuned"])
        questions, prompts = draw_prompts(tokens.path("held_out"), config, seed, room)
        answers = pl.DataFrame(schema=ANSWERS_SCHEMA)
        found = no_answers(_why_none(questions, config.max_new_tokens, room))
        if prompts.height:
            answers = _answers(work, folders, prompts, config, train, seed, engine)
            found = answer_measures(answers, times=times, seed=seed)
        answers.write_parquet(work.folder / "generations.parquet", statistics=True)
        write_text(work.folder / "generation.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
        stopped = int(answers.get_column("stopped").sum())
        return {
            "questions": questions.height, "prompts": prompts.height,
            "skipped.no_room": int((~questions["fits"]).sum()),
            "skipped.not_drawn": int(questions["fits"].sum()) - prompts.height,
            "answers": answers.height, "stopped": stopped, "cut": answers.height - stopped,
        }  # fmt: skip

    inputs = {"model": model, "train": trained, "tokenize": tokens}

    def by(engine: Engine, store: Store) -> Manifest:
        identity = config.identity() | {"precision": train.precision, "seed": seed, "bootstrap": times}
        return store.stage("generate", VERSION, identity | {"engine": engine}, inputs, partial(build, engine=engine))

    return by_engine(store, config.engine, config.temperature, by)


def draw_prompts(
    rows: Path, config: GenerateConfig, seed: int, room: int | None
) -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
    """All questions of the token rows, in the order of their keyed rank, and the first of them that fit.

    A question stands for its pairs: `pair_id` is that of the lowest rank, `prompt_ids` what all of them share. One
    whose prompt and answer would not fit `room` tokens has `fits` false.
    """
    held_out = read_token_rows(rows).select("pair_id", "prompt_ids")
    ranked = held_out.with_columns(rank=keyed_ranks(seed, "generate", held_out["pair_id"])).sort("rank", "pair_id")
    questions = ranked.unique("prompt_ids", keep="first", maintain_order=True)
    fits = pl.lit(True) if room is None else pl.col("prompt_ids").list.len() + config.max_new_tokens <= room
    questions = questions.with_columns(fits=fits)
    return questions, questions.filter("fits").head(config.prompts)


def _why_none(questions: pl.DataFrame, max_new_tokens: int, room: int | None) -> str:
    if questions.height == 0:
        return "there is no held-out pair to take a prompt from"
    return (
        f"no prompt leaves room for evaluate.generate.max_new_tokens = {max_new_tokens} in the model's {room} positions"
    )


def _answers(
    work: Workspace, folders: dict[str, Path], prompts: pl.DataFrame, config: GenerateConfig, train: TrainConfig,
    seed: int, engine: Engine,
) -> pl.DataFrame:  # fmt: skip
    """Every answer, in the order of ANSWERS_SCHEMA's first columns; what an interrupted try has written is kept."""
    encoder = Encoder.load(folders["tuned"])
    asked = [{"key": key, "ids": ids} for key, ids in prompts.select("pair_id", "prompt_ids").iter_rows()]
    how = Writing(
        config.max_new_tokens, config.batch_size, train.precision, train.ranks, encoder.end, engine, seed,
        config.temperature, config.top_p,
    )  # fmt: skip
    written = written_answers(work, folders, asked, MODES, how)
    rows = []
    for model in MODELS:
        for mode in MODES:
            for number, one in enumerate(asked):
                answer = written.get((model, mode, number))
                if answer is None:
                    raise StageFailed(f"{work.stage}: the {model} model's {mode} answer to {one['key']} is missing")
                ids = answer["ids"]
                text = encoder.whole.decode(ids[:-1] if answer["stopped"] else ids)
                rows.append((one["key"], model, mode, text, len(ids), answer["stopped"], ids))
    return pl.DataFrame(rows, schema=ANSWERS_SCHEMA, orient="row")
