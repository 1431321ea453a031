"""Before a device is used: is it there, well, and nobody else's? A free slot does not prove a free device.

Asks `nvidia-smi`; a host without it has nothing to ask and passes.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tasks.errors import StageFailed, TransientStageFailure

FREE_WITHIN: Final = 20.0  # seconds that the memory of a process that was just killed may take to come back
BUSY_MIB: Final = 1024  # a device without processes holds some 500 MiB for the driver at most
HOT_CELSIUS: Final = 95

_ALWAYS: Final = ("index", "uuid", "name", "memory.total", "memory.used", "temperature.gpu")
# Not every driver and device knows these; the word is what to say where the answer is not zero or "No".
_FAULTS: Final = {
    "ecc.errors.uncorrected.volatile.total": "uncorrected memory errors since the driver was loaded",
    "remapped_rows.failure": "a memory row that could not be remapped",
    "remapped_rows.pending": "memory rows that wait for a reset to be remapped",
    "retired_pages.pending": "memory pages that wait for a reset to be retired",
}


@dataclass(frozen=True)
class Device:
    """One GPU as nvidia-smi tells of it. Memory in MiB."""

    index: int
    uuid: str
    name: str
    total: int
    used: int
    celsius: int | None
    faults: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name}, {self.uuid})"


def preflight(free_within: float = FREE_WITHIN) -> list[Device]:
    """The devices that may be used; an empty list where there is no nvidia-smi.

    Raises StageFailed naming a device that is sick, TransientStageFailure naming one that is busy or lost.
    """
    end = time.monotonic() + free_within
    while True:
        found = visible(devices(), os.environ.get("CUDA_VISIBLE_DEVICES"))
        sick = [f"{device}: {', '.join(device.faults)}" for device in found if device.faults]
        if sick:
            raise StageFailed(f"preflight: {'; '.join(sick)}. Take the device out of use or reset it")
        busy = [f"{device} is in use: {_holders(device)}" for device in found if _busy(device)]
        if not busy:
            return found
        if time.monotonic() >= end:
            raise TransientStageFailure(f"preflight: {'; '.join(busy)}. End what holds it, or wait, and run again")
        time.sleep(1.0)


def devices() -> list[Device]:
    """Every GPU of this host; empty without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    processes: dict[str, list[str]] = {}
    for uuid, pid, name, used in _query("compute-apps", ("gpu_uuid", "pid", "process_name", "used_memory")):
        if pid.isdecimal() and int(pid) != os.getpid():
            processes.setdefault(uuid, []).append(f"process {pid} ({name}, {used} MiB)")
    rows = _query("gpu", _ALWAYS)
    faults = _faults(len(rows))
    return [
        Device(
            index=int(index), uuid=uuid, name=name, total=_number(total) or 0, used=_number(used) or 0,
            celsius=_number(celsius), processes=tuple(processes.get(uuid, ())),
            faults=faults[position] + _too_hot(_number(celsius)),
        )
        for position, (index, uuid, name, total, used, celsius) in enumerate(rows)
    ]  # fmt: skip


def visible(found: Sequence[Device], wanted: str | None) -> list[Device]:
    """The devices that CUDA_VISIBLE_DEVICES leaves: numbers or (starts of) UUIDs; all where it is not set."""
    if wanted is None:
        return list(found)
    chosen: list[Device] = []
    for name in (part.strip() for part in wanted.split(",")):
        match = [device for device in found if name and (name == str(device.index) or device.uuid.startswith(name))]
        if not match:
            break  # CUDA ignores what follows an invalid name
        chosen.append(match[0])
    return chosen


def _busy(device: Device) -> bool:
    # Inside a container the processes of others are not listed, and their memory is.
    return bool(device.processes) or device.used > BUSY_MIB


def _holders(device: Device) -> str:
    return (
        ", ".join(device.processes) or f"{device.used:,} of {device.total:,} MiB are taken by a process not seen here"
    )


def _too_hot(celsius: int | None) -> tuple[str, ...]:
    return (f"{celsius} °C",) if celsius is not None and celsius >= HOT_CELSIUS else ()


def _faults(count: int) -> list[tuple[str, ...]]:
    found: list[list[str]] = [[] for _ in range(count)]
    for field, meaning in _FAULTS.items():
        try:
            rows = _query("gpu", (field,))
        except StageFailed:
            continue  # this driver does not know the field
        for said, row in zip(found, rows, strict=False):
            if row[0] == "Yes":
                said.append(meaning)
            elif _number(row[0]):
                said.append(f"{row[0]} {meaning}")
    return [tuple(said) for said in found]


def _query(of: str, fields: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of `nvidia-smi --query-OF`. A driver that does not answer has lost a device, or is none."""
    command = ["nvidia-smi", f"--query-{of}={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=_english())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TransientStageFailure(f"preflight: nvidia-smi does not answer: {error}") from error
    said = " ".join((done.stdout + done.stderr).split())[:300]
    if done.returncode:
        raise StageFailed(f"preflight: nvidia-smi ended with status {done.returncode}: {said}")
    rows = [tuple(part.strip() for part in line.split(",")) for line in done.stdout.splitlines() if line.strip()]
    if any(len(row) != len(fields) for row in rows):
        raise StageFailed(f"preflight: nvidia-smi answered what cannot be read: {said}")
    return rows


def _english() -> Mapping[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
