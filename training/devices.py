"""What devices can do at most, as their makers state it: the measure that a training's speed is held against."""

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
# By a part of the name that the driver gives; the first that fits, so the more particular ones stand first.
DEVICES: Final = {
    "H100 PCIe": Device(756e12, 51e12, 80 * GIB),
    "H100 NVL": Device(835e12, 60e12, 94 * GIB),
    "H100": Device(989e12, 67e12, 80 * GIB),
    "H200": Device(989e12, 67e12, 141 * GIB),
    "B200": Device(2250e12, 80e12, 180 * GIB),
    "A100": Device(312e12, 19.5e12, 40 * GIB),
    "L40S": Device(362e12, 91.6e12, 48 * GIB),
    "A10": Device(125e12, 31.2e12, 24 * GIB),
    "RTX 4090": Device(165e12, 82.6e12, 24 * GIB),
}


def device_named(name: str) -> Device | None:
    """The device whose driver calls it `name`; None where its peak is not known here, as of any CPU."""
    return next((device for part, device in DEVICES.items() if part in name), None)
