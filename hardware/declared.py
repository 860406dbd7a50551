"""Power that somebody declared: a datasheet's or a user's constant. Class E3, an assumption and never a result."""

import time

from msgspec import Struct

from hardware.base import MeterInfo, Reading, SensorReport


class DeclaredOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Watts that somebody vouches for, with their range where it is known."""

    power_w: float
    boundary: str
    """What the watts include: `gpu`, `cpu_package`, `node_dc`, `node_ac`."""
    source: str
    low_w: float | None = None
    high_w: float | None = None


class DeclaredMeter:
    """The same watts always."""

    def __init__(self, options: DeclaredOptions) -> None:
        self._options = options

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter="declared",
            devices=("declared",),
            evidence="E3",
            boundary=self._options.boundary,
            sensor_api="declared",
            note=f"declared, not measured: {self._options.source}",
        )

    def read(self) -> tuple[Reading, ...]:
        return (
            Reading(
                time_ns=time.monotonic_ns(),
                meter="declared",
                device="declared",
                power_w=self._options.power_w,
                power_low_w=self._options.low_w,
                power_high_w=self._options.high_w,
            ),
        )

    def close(self) -> None: ...


def report(options: DeclaredOptions) -> SensorReport:
    return SensorReport(
        interface="declared",
        usable=True,
        evidence="E3",
        boundary=options.boundary,
        devices=("declared",),
        note=DeclaredMeter(options).describe().note,
    )
