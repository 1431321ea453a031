"""`prefstack run`: the flow in this process, on the server that is configured or on a temporary one."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from flows.cli import json_only
from flows.loading import loading
from flows.recipe import STAGES, load_recipe, stage_named
from flows.report import LogReport, TerminalReport, use_report
from flows.runs import find_run, run_name
from flows.server import RunApi, await_server
from flows.show import run_text
from flows.summaries import SUMMARIES
from tasks.errors import PrefstackError
from tasks.store import Report


def run_command(
    api: RunApi, recipe: str, overrides: Sequence[str], until: str | None, force: Sequence[str], name: str | None, *,
    verify: bool, as_json: bool, debug: bool,
) -> None:  # fmt: skip
    """Run a recipe and print its summary. Everything that can be refused is refused before the flow begins."""
    settings = load_recipe(recipe, overrides)
    stages = [stage_named(stage) for stage in force]
    last = stage_named(until or STAGES[-1])
    name = name or run_name(recipe)
    os.environ["PREFSTACK_VERIFY"] = "1" if verify else "0"
    work_dir = settings.work_dir.absolute()
    with prefect_ready(api, as_json, debug):
        from flows.pipeline import pipeline

        with summary_kept(lambda: _summary_of(name, work_dir)):
            summary: Any = pipeline.with_options(flow_run_name=name)(
                recipe=recipe, overrides=list(overrides), force=stages, until=last, name=name
            )
    print(json.dumps(summary, ensure_ascii=False, indent=1) if as_json else run_text(summary, work_dir))


@contextmanager
def prefect_ready(api: RunApi, as_json: bool, debug: bool) -> Iterator[None]:
    """The server answers, Prefect is imported, and reports on standard error, for as long as a flow runs here."""
    if not debug:
        # Prefect's console lines are for workers; here the run's own lines say the same in fewer words.
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    with json_only(as_json), ExitStack() as stack:
        use_report(stack.enter_context(_terminal(debug)))
        with loading():
            import flows.pipeline  # noqa: F401 (Prefect, while the server starts)

        stack.callback(_tell_the_server_all)
        await_server(api.url, api.server)
        yield


@contextmanager
def summary_kept(summary: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Keep what had been done, as `summary` tells it, for --json where what runs here fails or is stopped."""
    from prefect.exceptions import TerminationSignal

    try:
        yield
    except (Exception, KeyboardInterrupt):  # of Prefect's client, too, where the server is gone
        SUMMARIES.append(summary())
        raise
    except TerminationSignal as stop:
        SUMMARIES.append(summary())
        raise KeyboardInterrupt from stop


def _summary_of(name: str, work_dir: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((find_run(name, work_dir) / "summary.json").read_text(encoding="utf-8"))
        return found
    except (PrefstackError, OSError, ValueError):
        return {"run": name, "stages": {}, "metrics": None, "model": None, "error": None}


@contextmanager
def _terminal(debug: bool) -> Iterator[Report]:
    """Bars where standard error is a terminal, log lines where not."""
    console = Console(stderr=True)
    logger = logging.getLogger("prefstack")
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(
            console=console, show_level=False, show_path=False, log_time_format="%H:%M:%S", markup=False
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    try:
        if console.is_terminal:
            with TerminalReport(console) as report:
                yield report
        else:
            yield LogReport()
    finally:
        logger.removeHandler(handler)


def _tell_the_server_all() -> None:
    """Send what is queued while there is a server: logs and events go out in the background."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=5)
    APILogWorker.drain_all(timeout=5)
