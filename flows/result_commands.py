"""The commands about results: `prefstack compare`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.options import DebugOpt, JsonOpt, WorkDirOpt, print_answer


def add_result_commands(app: typer.Typer) -> None:
    """Make the commands of this file commands of `app`."""
    app.command()(compare)


RunsArg = Annotated[
    list[str], typer.Argument(metavar="RUN RUN...", help="Two runs or more; the others are measured against the first.")
]


def compare(
    runs: RunsArg, work_dir: WorkDirOpt = Path("runs"), as_json: JsonOpt = False, debug: DebugOpt = False
) -> None:
    """Put judged runs side by side: settings, results, and a paired test on the held-out pairs that they share."""
    from flows.compare import compare_runs, compare_text

    print_answer(compare_runs(runs, work_dir.absolute()), compare_text, as_json)
