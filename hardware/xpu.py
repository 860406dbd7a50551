"""Intel GPUs through the kernel's hardware monitor (xe and i915): energy counters of card and package, limit, temperatures.

Counters are microjoules. `energy1` is the card, `energy2` the package; older parts have only the package, which leaves out memory and
board. Memory in use is not told here. Source: Linux Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon.
"""

import time
from pathlib import Path

from msgspec import Struct

from hardware.base import HardwareError, MeterInfo, Reading, SensorReport
from hardware.host import Gpu
from hardware.machine import ROOT, read_int, read_text


class XpuError(HardwareError):
    """There is no such device, or it may not be read; one sentence."""


class Sensor(Struct, frozen=True, kw_only=True):
    """One card's folder and which of its counters is used."""

    device: str
    path: Path
    counter: str
    whole_card: bool
    pci: str


def find_sensors(root: Path = ROOT) -> list[Sensor]:
    found: list[Sensor] = []
    for path in sorted((root / "sys/class/hwmon").glob("hwmon*"), key=lambda p: (len(p.name), p.name)):
        driver = read_text(path / "name")
        if driver not in ("xe", "i915"):
            continue
        card = driver == "i915" or (path / "energy1_input").exists()
        found.append(
            Sensor(
                device=f"gpu{len(found)}",
                path=path,
                counter="energy1_input" if card else "energy2_input",
                whole_card=card,
                pci=(path / "device").resolve().name,
            )
        )
    return found


class XpuMeter:
    """All Intel GPUs that have an energy counter. Raises `XpuError`."""

    def __init__(self, root: Path = ROOT) -> None:
        self._sensors = find_sensors(root)
        if not self._sensors:
            raise XpuError("no Intel GPU with a hardware monitor (drivers xe, i915)")
        for sensor in self._sensors:
            if read_int(sensor.path / sensor.counter) is None:
                raise XpuError(f"{sensor.path / sensor.counter} cannot be read")

    def describe(self) -> MeterInfo:
        whole = all(sensor.whole_card for sensor in self._sensors)
        return MeterInfo(
            meter="xpu",
            devices=tuple(sensor.device for sensor in self._sensors),
            evidence="M3",
            boundary="gpu",
            sensor_api="hwmon",
            note="energy of the card" if whole else "energy of the package only: memory and board are left out",
        )

    def read(self) -> tuple[Reading, ...]:
        return tuple(self._read(sensor) for sensor in self._sensors)

    def _read(self, sensor: Sensor) -> Reading:
        microjoules = read_int(sensor.path / sensor.counter)
        now_ns = time.monotonic_ns()
        if microjoules is None:
            return Reading(time_ns=now_ns, meter="xpu", device=sensor.device, error=f"{sensor.counter} cannot be read")
        return Reading(
            time_ns=now_ns,
            meter="xpu",
            device=sensor.device,
            energy_j=microjoules / 1e6,
            power_limit_w=_scaled(sensor.path / "power1_max", 1e6),
            temperature_c=_scaled(sensor.path / "temp2_input", 1e3),
            memory_temperature_c=_scaled(sensor.path / "temp3_input", 1e3),
        )

    def close(self) -> None: ...


def _scaled(path: Path, divisor: float) -> float | None:
    value = read_int(path)
    return None if value is None else value / divisor


def inventory(root: Path = ROOT) -> tuple[list[Gpu], dict[str, str]]:
    """Intel GPUs for the description of the host."""
    gpus = [
        Gpu(
            name=f"Intel GPU at {sensor.pci}",
            vendor="intel",
            index=index,
            power_limit_w=_scaled(sensor.path / "power1_max", 1e6),
            settings={"pci": sensor.pci},
        )
        for index, sensor in enumerate(find_sensors(root))
    ]
    return gpus, {}


def report(root: Path = ROOT) -> SensorReport:
    try:
        info = XpuMeter(root).describe()
    except XpuError as error:
        return SensorReport(interface="xpu", usable=False, evidence="M3", boundary="gpu", note=str(error))
    return SensorReport(
        interface="xpu",
        usable=True,
        evidence=info.evidence,
        boundary=info.boundary,
        devices=info.devices,
        note=info.note,
    )
