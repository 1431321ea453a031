"""How long a run has held training devices, attempt by attempt, and what that costs at the recipe's price.

    runs/NAME/device_time.json   [{"stage", "device", "devices", "seconds", "ended"}, ...], one entry an attempt

Counted is the time for which the host's slot was held, work that was lost included: that is what is paid for. A stage
that was reused has held nothing. An attempt that was killed counts up to its last note, NOTE_EVERY seconds before.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tasks.folders import write_text

NOTE_EVERY: Final = 30.0  # seconds
FILE: Final = "device_time.json"
HOUR: Final = 3600.0  # seconds


@contextmanager
def counted(stage: str, device: str, devices: int, run_folder: Path) -> Iterator[None]:
    """Count the time inside for `stage`, on `devices` of the kind `device`; how it ended is the entry's last word."""
    entries = device_time(run_folder)
    entry: dict[str, Any] = {"stage": stage, "device": device, "devices": devices, "seconds": 0.0, "ended": "no"}
    entries.append(entry)
    start = time.monotonic()
    stop = threading.Event()

    def note() -> None:
        entry["seconds"] = round(time.monotonic() - start, 1)
        with suppress(OSError):  # a full disk is for the stage itself to find
            write_text(run_folder / FILE, json.dumps(entries, indent=1) + "\n")

    def note_now_and_then() -> None:
        while not stop.wait(NOTE_EVERY):
            note()

    note()
    thread = threading.Thread(target=note_now_and_then, daemon=True, name=f"device time of {stage}")
    thread.start()
    try:
        yield
        entry["ended"] = "done"
    except Exception:
        entry["ended"] = "failed"
        raise
    except BaseException:
        entry["ended"] = "interrupted"
        raise
    finally:
        stop.set()
        thread.join()
        note()


def device_time(run_folder: Path) -> list[dict[str, Any]]:
    """The entries of a run so far; none where it has held no device."""
    try:
        found = json.loads((run_folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def cost_table(entries: Sequence[dict[str, Any]], price: float | None) -> list[dict[str, Any]]:
    """A record an attempt and one of their sums; with a `price` of a device's hour, what each cost."""
    if not entries:
        return []
    rows = [
        _row(entry["stage"], entry["ended"], f"{entry['devices']} × {entry['device']}", entry["seconds"],
             entry["seconds"] * entry["devices"], price)
        for entry in entries
    ]  # fmt: skip
    seconds = sum(entry["seconds"] for entry in entries)
    used = sum(entry["seconds"] * entry["devices"] for entry in entries)
    return [*rows, _row("all", "", "", seconds, used, price)]


def _row(
    stage: str, ended: str, devices: str, seconds: float, device_seconds: float, price: float | None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "stage": stage, "ended": ended, "devices": devices, "seconds": round(seconds, 1),
        "device-seconds": round(device_seconds, 1),
    }  # fmt: skip
    return row if price is None else row | {"cost": round(device_seconds / HOUR * price, 4)}
