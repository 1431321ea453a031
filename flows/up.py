"""`prefstack up`: everything that runs need on this machine, in one command, until Ctrl-C.

A Prefect server (unless one is named that is elsewhere), what prefstack wants of it (flows/operations.py), the
deployments of prefect.yaml, one worker a pool, and a web server for the files of the runs. Workers and server are
children that the kernel ends if this process is killed; one that ends by itself is started again, and so is a worker
that hangs (flows/heartbeats.py). Ctrl-C stops the workers first, then the server.
"""

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flows.children import Child, adopt_orphans, end_stragglers, reap, stop
from flows.deployments import deploy_all
from flows.files import ROOT_VARIABLE, URL_VARIABLE, serve_files
from flows.heartbeats import replacing_silent, worker_name
from flows.operations import POOLS, prepare_server
from flows.server import await_server, configured_api
from tasks.errors import RecipeError, Surroundings

SERVER_START: Final = 180.0  # seconds; the first start makes the database and unpacks the UI
WORKERS_STOP: Final = 50.0  # seconds; a worker gives a run 30 s to end
SERVER_STOP: Final = 15.0
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

SERVER_SETTINGS: Final = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The second UI asks a foreign host for its settings even where analytics are off.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    # Prefect's UI asks port 4200 whatever port it came from; so it asks where it came from, through a proxy too.
    "PREFECT_UI_API_URL": "/api",
    # In memory, Prefect's default, a restart of the server would strand every slot that is taken.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # How often the automations that wait are looked at: by Prefect's 5 s a lost run would come back after two minutes.
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT2S",
    # A run that is cancelled as its process starts ends without a word, and is Cancelling until the server gives up on
    # that: by default after 300 s. Of any other run nothing is left after 35 s (a worker gives it 30 s to end).
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "60",
}
WORKER_SETTINGS: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "2",  # Prefect's 10 s are most of the time from a click to a start
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def up(port: int, files_port: int, work_dir: Path, pools: Sequence[str]) -> None:
    """Run until SIGINT or SIGTERM. Raises Surroundings where something cannot start, RecipeError for unknown pools."""
    for pool in pools:
        if pool not in POOLS:
            raise RecipeError(f"there is no pool {pool!r}; pools: {', '.join(POOLS)}")
    # A shell starts a background process with SIGINT ignored, and Python leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work_dir = work_dir.absolute()
    logs = work_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    url, ours = api_url(port)
    adopt_orphans()
    with ExitStack() as stack:
        stack.enter_context(only_one(work_dir))
        stack.callback(end_stragglers)
        files = stack.enter_context(_files(work_dir, files_port))
        server: list[Child] = []
        workers: dict[str, Child] = {}
        stack.callback(lambda: stop(server, SERVER_STOP))
        stack.callback(lambda: stop(workers.values(), WORKERS_STOP))  # callbacks run from the last to the first
        if ours:
            say(f"starting the Prefect server at {url.removesuffix('/api')} ...")
            server.append(Child("server", _server_command(url), _settings(SERVER_SETTINGS), logs / "server.log"))
            server[0].start()
        stack.enter_context(_configured(url))
        if server:
            await_server(url, server[0].process, SERVER_START, server[0].log)
        else:
            await_server(url, None, 5.0)
        for change in prepare_server():
            say(f"{change.kind} {change.name}: {change.what}")
        environment = _settings(WORKER_SETTINGS) | {
            "PREFECT_API_URL": url, URL_VARIABLE: files, ROOT_VARIABLE: str(work_dir),
        }  # fmt: skip
        for pool in pools:
            worker = Child(f"worker {pool}", worker_command(pool), environment, logs / f"worker-{pool}.log")
            workers[pool] = worker
            worker.start()
        for line in deploy_all(Path.cwd(), logs / "deploy.log"):
            say(line)
        end = "the workers, then the server" if ours else "the workers; the server stays"
        say(_where(url, files, work_dir, pools) + f"\nready; Ctrl-C stops {end}")
        try:
            with replacing_silent(workers, say):
                watch([*server, *workers.values()])
        except KeyboardInterrupt:
            say(f"stopping {end} (a run gets 30 s to end) ...")
    say("stopped; `prefstack up` goes on where this ended")


def watch(children: Sequence[Child]) -> None:
    """Start again what ends by itself, for ever."""
    while True:
        for child in children:
            said = child.look_after()
            if said:
                say(said)
        reap(children)
        time.sleep(0.5)


def api_url(port: int) -> tuple[str, bool]:
    """The API to use, and whether a server has to be started for it: one that is named and elsewhere is not ours."""
    url = configured_api() or f"http://127.0.0.1:{port}/api"
    try:
        await_server(url, None, 5.0)
        return url, False
    except Surroundings:
        if urlsplit(url).hostname not in LOOPBACK:
            raise
    if _taken(urlsplit(url).port or 80):
        raise Surroundings(
            f"port {urlsplit(url).port} is taken and no Prefect server answers there: name another --port"
        )
    return url, True


@contextmanager
def only_one(work_dir: Path) -> Iterator[None]:
    """Refuse a second `prefstack up` for the same work folder."""
    with open(work_dir / ".up.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Surroundings(
                f"`prefstack up` already runs for {work_dir} (process {lock.read().strip() or 'unknown'}): it needs "
                "only one"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def worker_command(pool: str) -> list[str]:
    """The ordinary worker of a pool.

    Without `--limit`: a worker that has one ends when a run that crashed comes back before it has let go of it.
    """
    return [
        sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process",
        "--name", worker_name(pool),
    ]  # fmt: skip


def _server_command(url: str) -> list[str]:
    host, port = urlsplit(url).hostname or "127.0.0.1", urlsplit(url).port or 80
    return [sys.executable, "-P", "-m", "flows.prefect_server", "--host", host, "--port", str(port)]


def _settings(defaults: Mapping[str, str]) -> dict[str, str]:
    """This environment, with `defaults` where it says nothing itself."""
    settings = {**defaults, **os.environ}
    if "PREFECT_UI_STATIC_DIRECTORY" not in settings and "PREFECT_SERVER_UI_STATIC_DIRECTORY" not in settings:
        import prefect

        package = Path(prefect.__file__).parent / "server"
        if not os.access(package, os.W_OK):  # the first start of a server writes its UI there
            home = Path(settings.get("PREFECT_HOME") or Path.home() / ".prefect")
            settings["PREFECT_UI_STATIC_DIRECTORY"] = str(home / "ui")
    return settings


@contextmanager
def _configured(url: str) -> Iterator[None]:
    """Let Prefect in this process and in its children talk to `url`; its settings may have been read already."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    os.environ["PREFECT_API_URL"] = url
    with temporary_settings({PREFECT_API_URL: url}):
        yield


@contextmanager
def _files(work_dir: Path, port: int) -> Iterator[str]:
    if _taken(port):
        raise Surroundings(
            f"port {port}, for the files of the runs, is taken: one `prefstack up` a machine is enough; if none is at "
            "work, name another --files-port"
        )
    with serve_files(work_dir, port) as url:
        yield url


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _where(url: str, files: str, work_dir: Path, pools: Sequence[str]) -> str:
    return "\n".join([
        "",
        f"  Prefect UI   {url.removesuffix('/api')}",
        f"  files        {files}/runs/",
        f"  logs         {work_dir / 'logs'}",
        f"  workers      {', '.join(pools) or 'none'}",
        "",
        f"  In other shells: export PREFECT_API_URL={url}",
        "  A run:           prefect deployment run pipeline/pipeline --param recipe=demo",
        "",
    ])  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
