"""What the ranks are asked to do, as JSON files: the boundary between the processes is a boundary of files.

python -m training.run JOB.json         a TrainJob
python -m training.score JOB.json       a ScoreJob
python -m training.generate JOB.json    a GenerateJob
python -m training.benchmark JOB.json   a BenchmarkJob
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from training.config import Precision, TrainConfig
from training.status import TrainerError


@dataclass(frozen=True)
class TrainJob:
    """One training."""

    model: Path
    """Folder of the start model, which is the reference too: safetensors, config, tokenizer."""
    rows: Path
    """Folder of token rows (`datasets`, save_to_disk): pair_id, prompt_ids, chosen_ids, rejected_ids."""
    reference: Path
    """Parquet: pair_id, ref_chosen_logps, ref_rejected_logps; every pair of `rows`, in any order."""
    export: Path
    """Folder that the tuned model is written to."""
    folder: Path
    """Survives interruptions: checkpoints/, metrics.jsonl, perf.log, and what training/status.py writes."""
    seed: int
    config: TrainConfig
    run: str = ""
    """Name of the run that asks: with `resume: fresh` its first try forgets old checkpoints, its retries do not."""
    end: int | None = None
    """Id of EOS: a completion that does not end in it was cut. None where that is not to be counted."""

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def adapter(self) -> Path:
        """With `train.lora`: the folder that the adapter alone is written to, beside the merged model."""
        return self.export.parent / "adapter"

    @property
    def skipped(self) -> Path:
        """The steps that were left out, where there are any (training/nonfinite.py)."""
        return self.folder / "skipped.jsonl"

    def write(self, path: Path) -> None:
        """Write the job as JSON."""
        _write(path, asdict(self) | {"config": self.config.model_dump(mode="json")})

    @classmethod
    def read(cls, path: Path) -> "TrainJob":
        """The job in `path`; TrainerError of kind `recipe` when it is not one."""
        raw = _read(path)
        try:
            return cls(
                model=Path(raw["model"]), rows=Path(raw["rows"]), reference=Path(raw["reference"]),
                export=Path(raw["export"]), folder=Path(raw["folder"]), seed=int(raw["seed"]),
                config=TrainConfig.model_validate(raw["config"]), run=raw["run"],
                end=raw.get("end"),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise TrainerError("recipe", f"{path} is not a training job: {error}") from error


@dataclass(frozen=True)
class RowSet:
    """Token rows to score, and where."""

    rows: Path
    only: Path
    """A .npy of the row numbers to score."""
    parts: Path
    """Folder for part files: row, chosen_logps, rejected_logps, chosen_tokens, rejected_tokens."""
    tail_weight: float
    """Weight of the tokens beyond the length of the pair's shorter side: 1, or that of LD-DPO."""
    by_question: bool = False
    """Whether pairs of one question are scored together, each of their answers once."""


@dataclass(frozen=True)
class ScoreJob:
    """One scoring: log-probs of token rows under a model."""

    model: Path
    sets: tuple[RowSet, ...]
    folder: Path
    """What training/status.py writes."""
    precision: Precision
    tokens_per_pack: int | None
    """None scores every pair, or question, in a pass of its own: its value then depends on no other."""

    def write(self, path: Path) -> None:
        """Write the job as JSON."""
        _write(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "ScoreJob":
        """The job in `path`; TrainerError of kind `recipe` when it is not one."""
        raw = _read(path)
        try:
            sets = tuple(
                RowSet(Path(one["rows"]), Path(one["only"]), Path(one["parts"]), one["tail_weight"], one["by_question"])
                for one in raw["sets"]
            )
            return cls(Path(raw["model"]), sets, Path(raw["folder"]), raw["precision"], raw["tokens_per_pack"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainerError("recipe", f"{path} is not a scoring job: {error}") from error


Mode = Literal["greedy", "sampled"]
Engine = Literal["transformers", "vllm"]


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts that one model answers together."""

    model: str
    """Its name in the job's `models`."""
    mode: Mode
    numbers: tuple[int, ...]
    """Places of the prompts in the job's file."""


@dataclass(frozen=True)
class GenerateJob:
    """One generation: answers of models to prompts."""

    models: dict[str, Path]
    """Name and folder of each."""
    prompts: Path
    """JSON: a list of `{"key", "ids"}`; the key names the prompt's randomness and stands in errors."""
    batches: tuple[AnswerBatch, ...]
    parts: Path
    """Folder for part files: a JSON list of `{"model", "mode", "number", "ids", "stopped"}` a batch."""
    folder: Path
    """What training/status.py writes."""
    precision: Precision
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    end: int
    """Id of EOS."""
    engine: Engine = "transformers"
    """What writes. With vllm `models` has one model: only its process gives back what vLLM holds of a device."""

    def write(self, path: Path) -> None:
        """Write the job as JSON."""
        _write(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "GenerateJob":
        """The job in `path`; TrainerError of kind `recipe` when it is not one."""
        raw = _read(path)
        try:
            return cls(
                models={name: Path(folder) for name, folder in raw["models"].items()}, prompts=Path(raw["prompts"]),
                batches=tuple(
                    AnswerBatch(one["model"], one["mode"], tuple(one["numbers"])) for one in raw["batches"]
                ),
                parts=Path(raw["parts"]), folder=Path(raw["folder"]), precision=raw["precision"],
                max_new_tokens=int(raw["max_new_tokens"]), temperature=float(raw["temperature"]),
                top_p=float(raw["top_p"]), seed=int(raw["seed"]), end=int(raw["end"]),
                engine=raw["engine"],
            )  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TrainerError("recipe", f"{path} is not a generation job: {error}") from error


@dataclass(frozen=True)
class BenchmarkTask:
    """One benchmark as lm-eval knows it."""

    name: str
    """Of the part file."""
    task: str
    shots: int | None
    metric: str | None
    """Key in lm-eval's results, such as `acc,none`; None for the task's first."""
    items: int | None
    """Drawn with Python's seed 42 from each task; None for all."""


@dataclass(frozen=True)
class BenchmarkJob:
    """Benchmarks of one model."""

    model: Path
    tasks: tuple[BenchmarkTask, ...]
    parts: Path
    """Folder for one JSON file a benchmark."""
    folder: Path
    """What training/status.py writes."""
    include: Path | None
    """Folder of further tasks."""
    precision: Precision
    limit: int | None
    """First items of each task that are asked; None for all."""
    batch_size: int
    run_code: bool

    def write(self, path: Path) -> None:
        """Write the job as JSON."""
        _write(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "BenchmarkJob":
        """The job in `path`; TrainerError of kind `recipe` when it is not one."""
        raw = _read(path)
        try:
            return cls(
                model=Path(raw["model"]), tasks=tuple(BenchmarkTask(**one) for one in raw["tasks"]),
                parts=Path(raw["parts"]), folder=Path(raw["folder"]),
                include=None if raw["include"] is None else Path(raw["include"]), precision=raw["precision"],
                limit=raw["limit"], batch_size=int(raw["batch_size"]), run_code=bool(raw["run_code"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise TrainerError("recipe", f"{path} is not a benchmark job: {error}") from error


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, default=str, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainerError("recipe", f"the job file {path} cannot be read: {error}") from error
    return raw
