"""What `prefstack doctor` asks of the Prefect server, if there is one, and of this host's devices and disk."""

import shutil
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from flows.deployments import DEPLOYMENTS
from flows.operations import POOLS, missing_on_server
from flows.prefect_api import api
from flows.preflight import devices
from tasks.errors import PrefstackError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FREE_GB: Final = 20
SHARED: Final = (
    "nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.", "9p", "virtiofs", "afs", "ocfs2",
    "gfs2", "orangefs", "wekafs",
)  # fmt: skip
"""Starts of the names of file systems that more than one host can have."""
Entry = dict[str, Any]


def entry(check: str, holds: bool, found: str, mend: str, *, needed: bool = True) -> Entry:
    """One line of the doctor's answer."""
    return {"check": check, "holds": holds, "needed": needed, "found": found, "mend": mend}


def server_checks(url: str, work_dir: Path) -> Iterator[Entry]:
    """The server at `url`, and what prefstack wants of it. Only an unreachable server is a fault of the installation:
    the rest is wanted by whoever runs on workers."""
    from prefect import __version__

    try:
        with api() as client:
            version = client.request("GET", "/admin/version").json()
    except PrefstackError as error:
        yield entry(
            f"the Prefect server at {url}", False, str(error), "start it with `prefstack up`, or set PREFECT_API_URL"
        )
        return
    yield entry(
        "the server's version", version == __version__, str(version), f"run Prefect {__version__} on the server"
    )
    reached = database_answers(url)
    yield entry(
        "the server's database", reached, "answers" if reached else "the server cannot reach it",
        "start it; the server finds it again by itself (PREFECT_SERVER_DATABASE_CONNECTION_URL names it)",
    )  # fmt: skip
    if not reached:
        return
    missing = missing_on_server()
    said = "; ".join(f"{change.kind} {change.name} {change.what}" for change in missing)
    yield entry(
        "pools, limits and automations",
        not missing,
        said or "all there",
        "`prefstack up` makes what is missing",
        needed=False,
    )
    with api() as client:
        yield from _deployments(client)
        for pool in POOLS:
            yield from _pool(client, pool)
        yield from _shared_store(client, work_dir)


def database_answers(url: str) -> bool:
    """Whether the server at `url` can reach its database; it says so without a password."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/ready", timeout=15):
            return True
    except OSError:
        return False


def host_checks(work_dir: Path) -> Iterator[Entry]:
    """Disk and devices of this host."""
    place = work_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    yield entry(
        f"disk space for {work_dir}",
        free >= FREE_GB,
        f"{free:.0f} GB free",
        "`prefstack gc`, or another work_dir",
        needed=False,
    )
    try:
        found = devices()
    except PrefstackError as error:
        yield entry("GPUs", False, str(error), "look at `nvidia-smi`", needed=False)
        return
    for device in found:
        faults = ", ".join(device.faults)
        yield entry(
            str(device), not faults, faults or f"{device.total:,} MiB", "reset it or take it out of use", needed=False
        )
    if not found:
        yield entry("GPUs", True, "none: training runs on the CPU", "", needed=False)


def _deployments(client: "SyncPrefectClient") -> Iterator[Entry]:
    from prefect.exceptions import ObjectNotFound

    missing = []
    for name in DEPLOYMENTS:
        try:
            client.read_deployment_by_name(name)
        except ObjectNotFound:
            missing.append(name)
    found = f"missing: {', '.join(missing)}" if missing else ", ".join(DEPLOYMENTS)
    yield entry("deployments", not missing, found, "prefect deploy --all", needed=False)


def _pool(client: "SyncPrefectClient", name: str) -> Iterator[Entry]:
    from prefect.exceptions import ObjectNotFound

    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        return  # said already
    workers = [worker.name for worker in client.read_workers_for_work_pool(name) if worker.status == "ONLINE"]
    yield entry(
        f"workers of pool {name}", bool(workers), ", ".join(workers) or "none", f"prefect worker start --pool {name}",
        needed=False,
    )  # fmt: skip
    yield entry(
        f"pool {name} hands out runs", not pool.is_paused, "paused" if pool.is_paused else "yes",
        f"prefstack drain --resume --pool {name}", needed=False,
    )  # fmt: skip
    if name == "cpu" and pool.concurrency_limit is not None:
        yield entry(
            "slots of pool cpu", pool.concurrency_limit > 1, str(pool.concurrency_limit),
            "prefect work-pool set-concurrency-limit cpu 4: a pipeline that waits for its training holds one",
            needed=False,
        )  # fmt: skip


def _shared_store(client: "SyncPrefectClient", work_dir: Path) -> Iterator[Entry]:
    """Whether workers of several hosts can find each other's work; nothing where all of them are on this one."""
    from prefect.exceptions import ObjectNotFound

    hosts: set[str] = set()
    for pool in POOLS:
        with suppress(ObjectNotFound):
            workers = client.read_workers_for_work_pool(pool)
            # `prefstack up` names a worker POOL-HOST; of one that is called otherwise the host is not known.
            names = {worker.name for worker in workers if worker.status == "ONLINE"}
            hosts |= {name.removeprefix(f"{pool}-") for name in names if name.startswith(f"{pool}-")}
    others = sorted(hosts - {socket.gethostname()})
    if not others:
        return
    kind = file_system(work_dir)
    yield entry(
        f"{work_dir} is shared", kind.startswith(SHARED), f"{kind}; workers on {', '.join(others)} too",
        "mount one file system as the work_dir of all hosts: a retry elsewhere finds nothing on this disk and begins "
        "anew", needed=False,
    )  # fmt: skip


def file_system(path: Path) -> str:
    """The kind of file system that `path` lies on, as the mount table has it: ext4, nfs4, ..."""
    place = path.absolute()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[folder] for folder in (place, *place.parents) if folder in mounts), "unknown")
