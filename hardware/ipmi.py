"""The whole node's power from its management controller over IPMI: `ipmitool dcmi power reading`, read-only, optional, once a second.

Most controllers refresh no faster than once a second and average as they like, so the class is M2 until it has been compared with a
wall meter. A controller whose power reading is deactivated repeats an old value, which is not taken.
"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from msgspec import Struct

from hardware.base import HardwareError, MeterInfo, Reading, SensorReport
from hardware.machine import ROOT

PERIOD_S = 1.0
TIMEOUT_S = 5.0


class IpmiError(HardwareError):
    """The controller cannot be asked; one sentence."""


class PowerReading(Struct, frozen=True, kw_only=True):
    """As the controller tells it; `period_s` is that of its own statistics."""

    power_w: float | None
    period_s: float | None
    active: bool


def parse(text: str) -> PowerReading:
    watts = re.search(r"Instantaneous power reading\s*:\s*(\d+)\s*Watts", text)
    period = re.search(r"Sampling period\s*:\s*(\d+)\s*(Seconds|Milliseconds)", text)
    state = re.search(r"Power reading state is\s*:\s*(\w+)", text)
    scale = 0.001 if period and period[2] == "Milliseconds" else 1.0
    return PowerReading(
        power_w=float(watts[1]) if watts and int(watts[1]) > 0 else None,
        period_s=int(period[1]) * scale if period else None,
        active=bool(state and state[1] == "activated"),
    )


def run_ipmitool() -> str:
    """Raises `IpmiError`."""
    program = shutil.which("ipmitool")
    if program is None:
        raise IpmiError("ipmitool is not installed")
    try:
        done = subprocess.run(
            [program, "dcmi", "power", "reading"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise IpmiError(f"ipmitool does not answer: {type(error).__name__}") from error
    if done.returncode != 0:
        raise IpmiError(f"ipmitool failed: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout


class IpmiMeter:
    """This node. Raises `IpmiError` when its controller tells no power."""

    def __init__(self, boundary: str = "node_ac") -> None:
        self._boundary = boundary
        self._first = parse(run_ipmitool())
        if self._first.power_w is None or not self._first.active:
            raise IpmiError("the controller's power reading is deactivated or empty")

    def describe(self) -> MeterInfo:
        period = f"; its statistics cover {self._first.period_s:g} s" if self._first.period_s else ""
        return MeterInfo(
            meter="ipmi",
            devices=("node",),
            evidence="M2",
            boundary=self._boundary,
            sensor_api="ipmitool dcmi power reading",
            period_s=PERIOD_S,
            note=f"uncalibrated against a wall meter{period}",
        )

    def read(self) -> tuple[Reading, ...]:
        try:
            found = parse(run_ipmitool())
        except IpmiError as error:
            return (Reading(time_ns=time.monotonic_ns(), meter="ipmi", device="node", error=str(error)),)
        now_ns = time.monotonic_ns()
        if found.power_w is None or not found.active:
            return (Reading(time_ns=now_ns, meter="ipmi", device="node", error="the power reading is deactivated"),)
        return (Reading(time_ns=now_ns, meter="ipmi", device="node", power_w=found.power_w),)

    def close(self) -> None: ...


def report(root: Path = ROOT, asked: bool = False) -> SensorReport:
    """Whether it could be asked; the controller itself is left alone unless the options want it."""
    missing = _missing(root)
    if asked and not missing:
        try:
            IpmiMeter()
        except IpmiError as error:
            missing = str(error)
    note = missing or (
        "" if asked else "not asked; write `ipmi = true` in the meters' options to measure the whole node"
    )
    return SensorReport(
        interface="ipmi",
        usable=asked and not missing,
        evidence="M2",
        boundary="node_ac",
        devices=("node",) if asked and not missing else (),
        note=note,
    )


def _missing(root: Path) -> str:
    """What stands in the way; empty where nothing does."""
    devices = [root / p for p in ("dev/ipmi0", "dev/ipmi/0", "dev/ipmidev/0") if (root / p).exists()]
    if shutil.which("ipmitool") is None:
        return "no ipmitool"
    if not devices:
        return "no /dev/ipmi0 (a virtual machine, or no driver)"
    if not os.access(devices[0], os.R_OK | os.W_OK):
        return f"{devices[0]} may not be opened: it takes root, or a group that your administrator gives it to"
    return ""
