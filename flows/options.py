"""Arguments and options that several commands take, said once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

# Said here once more, since the recipe that knows them takes a second to import; a test holds them together.
STAGE_NAMES: Final = "ingest, pair, dedupe, sample, model, tokenize, reference, train, evaluate, publish"

RecipeArg = Annotated[str, typer.Argument(help="A built-in recipe (demo, site, ...) or the path of a YAML file.")]
SetOpt = Annotated[list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Replace a setting; VALUE is YAML.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
ForceOpt = Annotated[
    list[str], typer.Option("--force", metavar="STAGE", help="Build this stage again; may be given again.")
]
DebugOpt = Annotated[bool, typer.Option("--debug", help="Show tracebacks and every log line of Prefect.")]
WorkDirOpt = Annotated[Path, typer.Option("--work-dir", help="Where the store and the runs are.")]


def print_answer(answer: dict[str, Any], text: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """The answer of a command: JSON, or what a person reads."""
    print(json.dumps(answer, ensure_ascii=False, indent=1) if as_json else text(answer))
