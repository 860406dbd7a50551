"""Processor energy counters of the kernel's power capping framework (Intel RAPL; AMD since Linux 5.8).

Each top-level `package-*` zone counts once, and its `dram` part where there is one. `core` and `uncore` are parts of a package and `psys`
contains packages, so none of them is added; `intel-rapl-mmio` shows the same packages a second time. The counter wraps at
`max_energy_range_uj` and is unrolled here, so that `energy_j` only grows. A counter that went back without having been near its end was
reset (a machine that slept): that is passed on as it is, and the window is not trusted. Source: Linux
Documentation/power/powercap/powercap.rst.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from hardware.base import HardwareError, MeterInfo, Reading, SensorReport
from hardware.machine import ROOT, read_int, read_text

HOW = (
    "the counters are for root since CVE-2020-8694: run the harness in a group that a udev rule of your administrator lets read them, or "
    "let a small privileged reader pass them on; do not open them to everybody"
)

MOST_W = 5_000.0
"""No package draws as much: a counter that would have had to, to come round, did not come round."""


class RaplError(HardwareError):
    """The counters are not there or may not be read; one sentence."""


class Zone(Struct, frozen=True, kw_only=True):
    """`device` is unique on the host: `package-0`, `package-0/dram`."""

    device: str
    path: Path
    range_uj: int


def find_zones(root: Path = ROOT) -> list[Zone]:
    """Packages and their memory, each once, in order. Readability is not tested."""
    zones: dict[str, Zone] = {}
    base = root / "sys/class/powercap"
    for path in sorted(base.glob("*:*"), key=lambda p: (p.name.startswith("intel-rapl-mmio"), p.name)):
        if not re.fullmatch(r"[a-z-]+:\d+", path.name) or not (name := read_text(path / "name")):
            continue
        if not name.startswith("package-") or name in zones:
            continue
        zones[name] = Zone(device=name, path=path, range_uj=read_int(path / "max_energy_range_uj") or 0)
        for part in sorted(path.glob(f"{path.name}:*")):
            if read_text(part / "name") == "dram":
                limit = read_int(part / "max_energy_range_uj") or 0
                zones[f"{name}/dram"] = Zone(device=f"{name}/dram", path=part, range_uj=limit)
    return list(zones.values())


class RaplMeter:
    """All packages of the host. Raises `RaplError` when there are none or one of them may not be read."""

    def __init__(self, root: Path = ROOT, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._zones, self._clock = find_zones(root), clock
        if not self._zones:
            raise RaplError("no RAPL counters under /sys/class/powercap (a virtual machine never has them)")
        self._turns = {zone.device: 0 for zone in self._zones}
        self._last: dict[str, tuple[int, int]] = {}
        """Counter and time of the reading before."""
        for zone in self._zones:
            try:
                (zone.path / "energy_uj").read_text()
            except PermissionError as error:
                raise RaplError(f"{zone.path / 'energy_uj'} may not be read; {HOW}") from error
            except OSError as error:
                raise RaplError(f"{zone.path / 'energy_uj'}: {error.strerror}") from error

    def describe(self) -> MeterInfo:
        dram = any(zone.device.endswith("/dram") for zone in self._zones)
        return MeterInfo(
            meter="rapl",
            devices=tuple(zone.device for zone in self._zones),
            evidence="M3",
            boundary="cpu_package+dram" if dram else "cpu_package",
            sensor_api="powercap",
            period_s=0.001,
            note="processor packages" + (" and memory" if dram else ", no memory") + "; no board, fans or power supply",
        )

    def read(self) -> tuple[Reading, ...]:
        return tuple(self._read(zone) for zone in self._zones)

    def _read(self, zone: Zone) -> Reading:
        try:
            now_uj = int((zone.path / "energy_uj").read_text())
        except (OSError, ValueError) as error:
            return Reading(time_ns=self._clock(), meter="rapl", device=zone.device, error=str(error))
        now_ns = self._clock()
        before_uj, before_ns = self._last.get(zone.device, (0, now_ns))
        most_uj = MOST_W * (now_ns - before_ns) / 1e3 + MOST_W * 1e6
        if now_uj < before_uj and now_uj + zone.range_uj - before_uj <= most_uj:
            self._turns[zone.device] += 1
        self._last[zone.device] = (now_uj, now_ns)
        total_uj = now_uj + self._turns[zone.device] * zone.range_uj
        return Reading(time_ns=now_ns, meter="rapl", device=zone.device, energy_j=total_uj / 1e6)

    def close(self) -> None: ...


def report(root: Path = ROOT) -> SensorReport:
    try:
        info = RaplMeter(root).describe()
    except RaplError as error:
        return SensorReport(interface="rapl", usable=False, evidence="M3", boundary="cpu_package", note=str(error))
    return SensorReport(
        interface="rapl",
        usable=True,
        evidence=info.evidence,
        boundary=info.boundary,
        devices=info.devices,
        note=info.note,
    )
