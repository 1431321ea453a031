"""What the doctor asks of a server: that workers of several hosts can find each other's work."""

import socket
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flows.doctor_server import file_system, server_checks
from flows.operations import prepare_server
from flows.prefect_api import api
from tests.flows.conftest import Server


def shared(server: Server, work_dir: Path) -> list[tuple[bool, str]]:
    checks = server_checks(server.url, work_dir)
    return [(check["holds"], check["found"]) for check in checks if check["check"].endswith("is shared")]


def test_a_store_on_this_hosts_disk_is_no_store_for_the_workers_of_another(
    here: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_server()

    def on(kind: str) -> None:
        mounts = [
            SimpleNamespace(mountpoint="/", fstype="ext4"),
            SimpleNamespace(mountpoint=str(tmp_path), fstype=kind),
        ]
        monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)

    def works(worker: str) -> None:
        with api() as client:
            client.request("POST", "/work_pools/gpu/workers/heartbeat", json={"name": worker}).raise_for_status()

    on("ext4")
    works(f"gpu-{socket.gethostname()}")
    works("ProcessWorker 1234")
    assert shared(here, tmp_path / "runs") == []
    works("gpu-elsewhere")
    assert shared(here, tmp_path / "runs") == [(False, "ext4; workers on elsewhere too")]
    for kind in ("nfs4", "fuse.sshfs", "lustre"):
        on(kind)
        assert shared(here, tmp_path / "runs") == [(True, f"{kind}; workers on elsewhere too")]


def test_the_innermost_mount_says_what_a_folder_lies_on(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = {"/": "ext4", "/data": "nfs4", "/data/scratch": "xfs"}
    monkeypatch.setattr(
        psutil, "disk_partitions", lambda all: [SimpleNamespace(mountpoint=p, fstype=k) for p, k in mounts.items()]
    )
    assert file_system(Path("/data/runs/not-there-yet")) == "nfs4"
    assert file_system(Path("/data/scratch/runs")) == "xfs"
    assert file_system(Path("/database")) == "ext4"
