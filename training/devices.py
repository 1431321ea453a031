"""What devices can do at most, as their makers state it: the measure that a training's speed is held against."""

import re
from dataclasses import dataclass
from typing import Final

from training.config import Precision


@dataclass(frozen=True)
class Device:
    """A kind of GPU."""

    peak_bf16: float
    """Dense tensor-core operations a second; sparse figures are twice that and nobody reaches them here."""
    peak_fp32: float
    """Operations a second without tensor cores."""
    memory: int
    """Bytes, of the smallest variant."""

    def peak(self, precision: Precision) -> float:
        """Operations a second in `precision`."""
        return self.peak_bf16 if precision == "bf16" else self.peak_fp32


GIB: Final = 2**30
# By words of the name that the driver gives; the first that fits, so the more particular ones stand first.
DEVICES: Final = {
    "H100 PCIe": Device(756e12, 51e12, 80 * GIB),
    "H100 NVL": Device(835e12, 60e12, 94 * GIB),
    "H100": Device(989e12, 67e12, 80 * GIB),
    "H200 NVL": Device(835e12, 60e12, 141 * GIB),
    "H200": Device(989e12, 67e12, 141 * GIB),
    "B200": Device(2250e12, 80e12, 180 * GIB),
    "A100": Device(312e12, 19.5e12, 40 * GIB),
    "L40S": Device(362e12, 91.6e12, 48 * GIB),
    "A10": Device(125e12, 31.2e12, 24 * GIB),
    "RTX 4090": Device(165e12, 82.6e12, 24 * GIB),
}


# Slices of a device (MIG 1g.10gb), shares (A100-20C) and slower variants (Laptop, Max-Q, D), whose peaks are others.
_LESS: Final = re.compile(r"MIG|LAPTOP|MAX|D|\d+[ABCQ]")


def device_named(name: str) -> Device | None:
    """The device whose driver calls it `name`; None where its peak is not known here, as of any CPU.

    Whole words are compared: an RTX A1000 is no A100, a GB200 no B200.
    """
    words = _words(name)
    if any(map(_LESS.fullmatch, words)):
        return None
    return next((device for part, device in DEVICES.items() if _within(_words(part), words)), None)


def _words(name: str) -> list[str]:
    return re.findall(r"[A-Z0-9]+", name.upper())


def _within(part: list[str], words: list[str]) -> bool:
    """Whether `words` has those of `part`, behind one another or with others between them."""
    rest = iter(words)
    return all(word in rest for word in part)
