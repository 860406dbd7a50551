"""Which meters there are here: an explicit list, each interface in the file of its name."""

import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from hardware import amd, ascend, declared, estimate, ipmi, machine, nvml, rapl, redfish, xpu
from hardware.base import HardwareError, Meter, MeterInfo, Reading, SensorReport, WatchedProcess
from hardware.declared import DeclaredMeter, DeclaredOptions
from hardware.ipmi import IpmiMeter
from hardware.machine import ROOT
from hardware.memory import MemoryMeter
from hardware.processes import ProcessTree
from hardware.redfish import RedfishMeter, RedfishOptions

ABSENT = (nvml.NvmlError, amd.AmdError, ascend.AscendError, xpu.XpuError, rapl.RaplError)
"""What an interface raises that is not there; `sensors` tells why."""


Measured = Literal["nvml", "amd", "ascend", "xpu", "rapl", "redfish", "ipmi"]


class MeterOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is read beyond what the machine itself offers: a suite's `[meters]`, or the file of `--meters`."""

    gpus: tuple[str, ...] = ()
    """Beginnings of the UUIDs of the NVIDIA GPUs to read; empty: all."""
    redfish: RedfishOptions | None = None
    ipmi: bool = False
    declared: DeclaredOptions | None = None
    calibrated: dict[Measured, date] = {}
    """Meters that were compared with a wall meter, and when."""


class CalibratedMeter:
    """A meter that somebody compared with a wall meter; its readings are what they were."""

    def __init__(self, meter: Meter, day: date) -> None:
        self._meter, self._day = meter, day

    def describe(self) -> MeterInfo:
        info = self._meter.describe()
        kept = [part for part in info.note.split("; ") if part and not part.startswith("uncalibrated")]
        return structs.replace(info, note="; ".join([*kept, f"calibrated {self._day} against a wall meter"]))

    def read(self) -> tuple[Reading, ...]:
        return self._meter.read()

    def close(self) -> None:
        self._meter.close()


def options_from(raw: Mapping[str, Any], where: str) -> MeterOptions:
    """Checked strictly; raises `HardwareError` with the place of the mistake. No address may hold a password: options are written down."""
    try:
        options = msgspec.convert(raw, MeterOptions)
    except msgspec.ValidationError as error:
        raise HardwareError(f"{where}: {error}") from error
    if options.redfish and "@" in options.redfish.url:
        raise HardwareError(
            f"{where}: `redfish.url` holds a name or password; put them into {options.redfish.credentials_env}"
        )
    return options


def load_options(path: Path) -> dict[str, Any]:
    """The file of `--meters` as a table. Raises `HardwareError`."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HardwareError(f"{path}: cannot be read ({error.strerror}); give the meters' options (TOML)") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HardwareError(f"{path}: not valid TOML: {error}") from error
    options_from(raw, str(path))
    return raw


def open_meters(watched: WatchedProcess, options: MeterOptions | None = None, root: Path = ROOT) -> tuple[Meter, ...]:
    """Memory always; every accelerator that answers; the processors by counter, else by estimate; a node's sensor where it is named.

    Raises `RedfishError` or `IpmiError` when a sensor that was asked for cannot be used.
    """
    options = options or MeterOptions()
    tree = ProcessTree(watched, root)
    memory = MemoryMeter(tree)
    found: list[Meter] = [memory]
    for open_one in _accelerators(tree, options, root):
        _add(found, open_one)
    if not _add(found, lambda: rapl.RaplMeter(root)):
        cpu = machine.describe_cpu(root)
        model = estimate.power_model(cpu, machine.virtual_machine(cpu.flags, root) is not None)
        if model is not None:
            found.append(estimate.EstimateMeter(model, memory.busy))
    if options.redfish:
        found.append(RedfishMeter(options.redfish))
    if options.ipmi:
        found.append(IpmiMeter())
    if options.declared:
        found.append(DeclaredMeter(options.declared))
    days: Mapping[str, date] = {str(name): day for name, day in options.calibrated.items()}
    return tuple(CalibratedMeter(m, days[name]) if (name := m.describe().meter) in days else m for m in found)


def _accelerators(tree: ProcessTree, options: MeterOptions, root: Path) -> tuple[Callable[[], Meter], ...]:
    """A meter that has a thread of its own gets a tree of its own."""
    return (
        lambda: nvml.NvmlMeter(tree, options.gpus),
        lambda: amd.AmdMeter(tree, amd.load_library()),
        lambda: ascend.AscendMeter(tree.copy()),
        lambda: xpu.XpuMeter(root),
    )


def _add(found: list[Meter], open_one: Callable[[], Meter]) -> bool:
    try:
        found.append(open_one())
    except ABSENT:
        return False
    return True


def sensors(options: MeterOptions | None = None, root: Path = ROOT) -> tuple[SensorReport, ...]:
    """Every interface: usable here or not, its class of evidence, and why or what would give better."""
    options = options or MeterOptions()
    tree = ProcessTree(WatchedProcess(), root)
    last = (declared.report(options.declared),) if options.declared else ()
    return (
        SensorReport(
            interface="memory",
            usable=True,
            evidence="-",
            boundary="none",
            devices=("host",),
            note="resident memory of the worker's process tree, from /proc",
        ),
        nvml.report(tree, options.gpus),
        amd.report(tree),
        ascend.report(tree),
        xpu.report(root),
        rapl.report(root),
        redfish.report(options.redfish),
        ipmi.report(root, options.ipmi),
        estimate.report(root),
        *last,
    )
