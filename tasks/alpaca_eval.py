"""AlpacaEval: answers of one model -> how often an annotator prefers them to other answers, by the tool of that name.

in   outputs.json, reference.json (outputs)
out  benchmarks.json   win rate and, of the hub's set, the length-controlled one, as `benchmark` writes them
     items.parquet     what each instruction got: 1 where the annotator prefers the model, in between by its odds
     leaderboard.csv   as the tool wrote it

The tool is run as a process (tasks/evaluation/alpaca_tool.py). It is no part of prefstack, and may live in an
environment of its own.
"""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import polars as pl
from pydantic import Field, PositiveInt

from tasks.config import StageConfig
from tasks.digests import remembered_sha256
from tasks.evaluation.alpaca_tool import annotate, read_annotations, read_leaderboard
from tasks.evaluation.benchmark_table import ITEMS_SCHEMA
from tasks.evaluation.engine import Wanted
from tasks.folders import write_text
from tasks.manifest import Manifest, digest_json
from tasks.store import External, Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change

NAME: Final = "alpaca_eval"
CONTROLLED: Final = "alpaca_eval_lc"


class AlpacaEvalConfig(StageConfig):
    """How AlpacaEval is asked; where `alpaca_eval` is among evaluate.benchmarks.tasks."""

    # Instructions and answers are known by their digests, and a stage before has written the answers.
    incidental: ClassVar[frozenset[str]] = frozenset(
        {"instructions", "reference_outputs", "revision", "max_new_tokens", "engine", "batch_size", "command",
         "annotator", "url", "key_env"}
    )  # fmt: skip

    instructions: Path | None = None
    """JSON list of `{instruction}`, each of which `reference_outputs` answers; null = all that it answers."""
    reference_outputs: Path | None = None
    """JSON list of `{instruction, output, generator}`, the answers to compare to; null = the hub's of AlpacaEval 2."""
    revision: str | None = None
    """Commit of the hub's data set tatsu-lab/alpaca_eval, 40 hex digits; wanted where `reference_outputs` is null."""
    annotator: str = "weighted_alpaca_eval_gpt4_turbo"
    """Annotator: a name that the tool knows, or a folder with a `configs.yaml` in its form."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    """Base of an endpoint in OpenAI's form, such as `http://127.0.0.1:8000/v1`; null = OpenAI's own."""
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key; null = it wants none."""
    command: str = "alpaca_eval"
    """The tool: a name on the path, or the path of one in an environment of its own."""
    max_new_tokens: PositiveInt = 2048
    """Tokens after which an answer is cut."""
    batch_size: PositiveInt = 16
    """Instructions that are answered together on one rank."""
    engine: Wanted = "auto"
    """What writes, as evaluate.generate.engine."""

    @property
    def controlled(self) -> bool:
        """Whether the tool knows the length-controlled rate: its model is fitted to the hub's set, in its order."""
        return self.reference_outputs is None and self.instructions is None


def alpaca_eval(store: Store, answered: Manifest, config: AlpacaEvalConfig) -> Manifest:
    """What the annotator makes of the answers in `answered`, an `outputs` manifest.

    Raises Surroundings where the tool or the key is missing or the endpoint refuses, Transient where it does not
    answer, StageFailed naming the log; annotations until then are found again by the next try.
    """

    def build(work: Workspace) -> dict[str, int]:
        found = annotate(
            work, answered.path("outputs.json"), answered.path("reference.json"), command=config.command,
            annotator=_annotator(config.annotator), url=config.url, key_env=config.key_env,
            controlled=config.controlled,
        )  # fmt: skip
        asked, against = (
            json.loads(answered.path(name).read_text(encoding="utf-8")) for name in ("outputs.json", "reference.json")
        )
        asked = [one["instruction"] for one in asked]
        rates = read_leaderboard(found / "leaderboard.csv")
        judged, version = read_annotations(found / "annotations.json")
        common = {
            "suite": NAME, "by": NAME, "task": NAME, "shots": 0, "higher_is_better": True, "asked": len(asked),
            "whole": True,
            "note": _note(config, against[0]["generator"], len(asked) - len(judged)),
        }  # fmt: skip
        entries: list[dict[str, Any]] = [
            {"name": NAME, "metric": "win rate", "value": rates.win_rate, "stderr": rates.error, **common}
        ]
        if rates.controlled is not None:
            entries.append(
                {"name": CONTROLLED, "metric": "length-controlled win rate", "value": rates.controlled,
                 "stderr": rates.controlled_error, **common}
            )  # fmt: skip
        rows = [
            (entry["name"], NAME, place, digest_json(text),
             judged.get(text) if entry["name"] == NAME else None)
            for entry in entries
            for place, text in enumerate(asked)
        ]  # fmt: skip
        pl.DataFrame(rows, schema=ITEMS_SCHEMA, orient="row").write_parquet(work.folder / "items.parquet")
        write_text(work.folder / "benchmarks.json", json.dumps(entries, indent=1, allow_nan=False) + "\n")
        write_text(work.folder / "leaderboard.csv", (found / "leaderboard.csv").read_text(encoding="utf-8"))
        work.provenance["alpaca_eval"] = {"version": version, "annotator": config.annotator}
        return {"benchmarks": len(entries), "asked": len(asked), "annotated": len(judged)}

    inputs: dict[str, Manifest | External] = {"outputs": answered}
    identity: dict[str, Any] = {"controlled": config.controlled}
    folder = Path(_annotator(config.annotator))
    if folder.is_absolute():
        inputs["annotator"] = External(_digest(folder, store.work_dir))
    else:
        identity["annotator"] = config.annotator
    return store.stage("alpaca_eval", VERSION, identity, inputs, build)


def _note(config: AlpacaEvalConfig, against: str, unread: int) -> str:
    """How the rates came about, for the card."""
    said = f"share of answers that {_name(config.annotator)} prefers to those of {against}"
    if not config.controlled:
        said += "; instructions of our own, for which the tool has no length-controlled rate"
    return said + (f"; {unread} replies of the annotator could not be read" if unread else "")


def _annotator(given: str) -> str:
    """A folder here by its whole path, since the tool looks for a name among its own."""
    return str(Path(given).absolute()) if Path(given).is_dir() else given


def _name(annotator: str) -> str:
    return Path(annotator).name


def _digest(folder: Path, work_dir: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_json({path.relative_to(folder).as_posix(): remembered_sha256(path, work_dir) for path in files})
