"""The commands about results: `prefstack sweep | compare | push`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.options import DebugOpt, JsonOpt, RecipeArg, SetOpt, WorkDirOpt, print_answer
from flows.server import run_api


def add_result_commands(app: typer.Typer) -> None:
    """Make the commands of this file commands of `app`."""
    app.command()(sweep)
    app.command()(compare)
    app.command()(push)


VaryOpt = Annotated[
    list[str],
    typer.Option("--vary", metavar="KEY.PATH=V1,V2", help="A setting and its values in YAML; may be given again."),
]


def sweep(
    recipe: RecipeArg,
    vary: VaryOpt,
    overrides: SetOpt = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="Name of the sweep; the default is the recipe's.")] = None,
    as_json: JsonOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Do a run for every combination of the varied settings, and compare them; stages that they share are built once.

    Runs that fail do not stop the others; the exit status is then that of the first of them.
    """
    with run_api() as api:
        from flows.sweep_command import sweep_command

        sweep_command(api, recipe, vary, overrides, name, as_json=as_json, debug=debug)


PrivateOpt = Annotated[bool, typer.Option("--private", help="Make the repository private, if it has to be made.")]
RunsArg = Annotated[
    list[str], typer.Argument(metavar="RUN RUN...", help="Two runs or more; the others are measured against the first.")
]


def compare(
    runs: RunsArg, work_dir: WorkDirOpt = Path("runs"), as_json: JsonOpt = False, debug: DebugOpt = False
) -> None:
    """Put judged runs side by side: settings, results, and a paired test on the held-out pairs that they share."""
    from flows.compare import compare_runs, compare_text

    print_answer(compare_runs(runs, work_dir.absolute()), compare_text, as_json)


def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run's name, or `latest`.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="NAMESPACE/NAME on the hub; made where it is not there.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it has to be made.")
    ] = False,
    work_dir: WorkDirOpt = Path("runs"),
    as_json: JsonOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Push a run's model with its card and its lineage to the hub that HF_ENDPOINT names; the token is HF_TOKEN's."""
    from flows.push import push_run, push_text

    print_answer(push_run(run, repo, work_dir.absolute(), private=private), push_text, as_json)
