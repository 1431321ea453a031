"""The command line: `prefstack run | plan | show | trace | doctor`, and the commands of result_commands.py.

Standard output carries the answer (one JSON object with --json), standard error everything else. Exit status: 0 done,
1 surroundings, 2 command line or recipe, 3 input, 4 gate, 5 scoring, training or evaluation, 130 interrupted.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from flows.options import STAGE_NAMES, DebugOpt, ForceOpt, JsonOpt, RecipeArg, SetOpt, WorkDirOpt, print_answer
from flows.quiet import quieten
from flows.result_commands import add_result_commands
from flows.server import run_api
from flows.summaries import SUMMARIES, empty_summary, failure, typed
from tasks.errors import PrefstackError, RecipeError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turns Stack Exchange into a preference-tuned language model, as a Prefect pipeline.",
)

add_result_commands(app)


@app.command()
def run(
    recipe: RecipeArg,
    overrides: SetOpt = [],  # noqa: B006
    until: Annotated[str | None, typer.Option(metavar="STAGE", help=f"The last stage to do: {STAGE_NAMES}.")] = None,
    force: ForceOpt = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="Name of the run; the default tells recipe and time.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check digests of reused files, not only sizes.")] = False,
    as_json: JsonOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Do what the recipe says; what is finished already is reused."""
    with run_api() as api:
        from flows.commands import run_command

        run_command(api, recipe, overrides, until, force, name, verify=verify, as_json=as_json, debug=debug)


@app.command()
def plan(
    recipe: RecipeArg,
    overrides: SetOpt = [],  # noqa: B006
    force: ForceOpt = [],  # noqa: B006
    as_json: JsonOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Say what would run, what is reused, and what it takes in memory, time and disk; start nothing."""
    from flows.plan import plan_recipe, plan_text

    answer = plan_recipe(recipe, overrides, force)
    print_answer(answer, plan_text, as_json)


@app.command()
def show(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FOLDER", help="A run's name, `latest` (begun last, finished or not), or a stage folder."
        ),
    ],
    work_dir: WorkDirOpt = Path("runs"),
    as_json: JsonOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Show lineage, counts and metrics of a finished run or stage folder."""
    from flows.show import show_target, show_text

    print_answer(show_target(target, work_dir.absolute()), show_text, as_json)


@app.command()
def trace(
    pair_id: Annotated[str, typer.Argument(metavar="PAIR_ID", help="Such as cooking-robots.example.com/395/396/397.")],
    run_name: Annotated[str, typer.Option("--run", help="The run to look in.")] = "latest",
    work_dir: WorkDirOpt = Path("runs"),
    as_json: JsonOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Say where a pair came from and what became of it at every stage."""
    from flows.trace import trace_pair, trace_text

    print_answer(trace_pair(pair_id, run_name, work_dir.absolute()), trace_text, as_json)


@app.command()
def doctor(work_dir: WorkDirOpt = Path("runs"), as_json: JsonOpt = False, debug: DebugOpt = False) -> None:
    """Check the installation and say how to mend what is missing."""
    from flows.doctor import check_installation, doctor_text

    answer = check_installation(work_dir.absolute())
    print_answer(answer, doctor_text, as_json)
    if not answer["healthy"]:
        raise typer.Exit(1)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Prefect server, if one has to be started.")] = 4200,
    files_port: Annotated[int, typer.Option(help="Port for the files of the runs.")] = 4201,
    work_dir: WorkDirOpt = Path("runs"),
    pool: Annotated[list[str], typer.Option(metavar="POOL", help="Pools that get a worker here.")] = ["cpu", "gpu"],  # noqa: B006
    debug: DebugOpt = False,
) -> None:
    """Start server, pools, workers, limits, automations and deployments on this machine; Ctrl-C stops them."""
    from flows.up import up

    up(port, files_port, work_dir, pool)


PoolOpt = Annotated[list[str], typer.Option("--pool", metavar="POOL", help="The work pool; may be given again.")]


@app.command()
def drain(
    pool: PoolOpt = ["cpu", "gpu"],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Let the pools hand out runs again.")] = False,
    wait: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Wait so long at most; default: for ever.")
    ] = None,
    as_json: JsonOpt = False,
    debug: DebugOpt = False,
) -> None:
    """Pause pools and wait until no run of theirs is at work: before a worker is restarted."""
    from flows.drain import drain, drain_text
    from flows.drain import resume as resume_pools

    answer = resume_pools(pool, _say) if resume else drain(pool, wait, _say)
    print_answer(answer, drain_text, as_json)


@app.command()
def gc(
    work_dir: WorkDirOpt = Path("runs"),
    keep: Annotated[int, typer.Option(min=1, help="So many of the newest runs keep what they refer to.")] = 10,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, only list it.")] = False,
    as_json: JsonOpt = False,
    debug: DebugOpt = False,
) -> None:
    """List, or with --yes remove, what no run of the last ones refers to."""
    from flows.gc import collect, gc_text

    print_answer(collect(work_dir.absolute(), keep, yes, _say), gc_text, as_json)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def json_only(wanted: bool) -> Iterator[None]:
    """While `wanted`, whatever a library prints goes to standard error: file descriptor 1 is kept for the answer."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def main() -> NoReturn:
    """The console script: any failure becomes one sentence and an exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    quieten()
    arguments = sys.argv[1:]
    as_json = "--json" in arguments
    try:
        status = app(arguments, standalone_mode=False) or 0
        if status == 130:  # typer gives Ctrl-C this status instead of letting it through
            status = _interrupted(as_json)
    except typer.Exit as stop:
        status = stop.exit_code
    except PrefstackError as error:
        status = _fail(error, arguments, as_json)
    except TyperException as error:
        status = _misused(error, arguments, as_json)
    except (KeyboardInterrupt, typer.Abort):
        status = _interrupted(as_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except Exception as error:
        status = _fail(typed(error), arguments, as_json)
    sys.stdout.flush()
    sys.exit(status)


def _misused(error: TyperException, arguments: list[str], as_json: bool) -> int:
    said, context = error.format_message(), getattr(error, "ctx", None)
    if not said:  # nothing was asked, and the help has been printed
        return RecipeError.status
    help_of = context.command_path if context else "prefstack"
    return _fail(RecipeError(f"{said} (see `{help_of} --help`)"), arguments, as_json)


def _fail(error: PrefstackError, arguments: list[str], as_json: bool) -> int:
    if "--debug" in arguments:
        traceback.print_exc()
    print(f"prefstack: {error}", file=sys.stderr)
    if as_json:
        summary = SUMMARIES[-1] if SUMMARIES else empty_summary()
        if summary["error"] is None:
            summary["error"] = failure(error, None)
        print(json.dumps(summary, ensure_ascii=False, indent=1))
    return error.status


def _interrupted(as_json: bool) -> int:
    print("prefstack: interrupted; the same command goes on from here", file=sys.stderr)
    if as_json:
        summary = SUMMARIES[-1] if SUMMARIES else empty_summary()
        summary["error"] = {"status": 130, "stage": None, "kind": "interrupted", "message": "interrupted"}
        print(json.dumps(summary, ensure_ascii=False, indent=1))
    return 130


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
