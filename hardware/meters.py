"""Which meters there are here: an explicit list, each interface in the file of its name."""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from hardware import amd, ascend, estimate, ipmi, machine, nvml, rapl, redfish, xpu
from hardware.base import Meter, SensorReport, WatchedProcess
from hardware.declared import DeclaredMeter, DeclaredOptions
from hardware.ipmi import IpmiMeter
from hardware.machine import ROOT
from hardware.memory import MemoryMeter
from hardware.processes import ProcessTree
from hardware.redfish import RedfishMeter, RedfishOptions

ABSENT = (nvml.NvmlError, amd.AmdError, ascend.AscendError, xpu.XpuError, rapl.RaplError)
"""What an interface raises that is not there; `sensors` tells why."""


class MeterOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is read beyond what the machine itself offers."""

    gpus: tuple[str, ...] = ()
    """Beginnings of the UUIDs of the NVIDIA GPUs to read; empty: all."""
    redfish: RedfishOptions | None = None
    ipmi: bool = False
    declared: DeclaredOptions | None = None


def open_meters(watched: WatchedProcess, options: MeterOptions | None = None, root: Path = ROOT) -> tuple[Meter, ...]:
    """Memory always; every accelerator that answers; the processors by counter, else by estimate; a node's sensor where it is named.

    Raises `RedfishError` or `IpmiError` when a sensor that was asked for cannot be used.
    """
    options = options or MeterOptions()
    tree = ProcessTree(watched, root)
    found: list[Meter] = [MemoryMeter(tree)]
    for open_one in _accelerators(tree, options, root):
        _add(found, open_one)
    if not _add(found, lambda: rapl.RaplMeter(root)):
        cpu = machine.describe_cpu(root)
        model = estimate.power_model(cpu, machine.virtual_machine(cpu.flags, root) is not None)
        if model is not None:
            found.append(estimate.EstimateMeter(model, root))
    if options.redfish:
        found.append(RedfishMeter(options.redfish))
    if options.ipmi:
        found.append(IpmiMeter())
    if options.declared:
        found.append(DeclaredMeter(options.declared))
    return tuple(found)


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
    return (
        SensorReport(
            interface="memory",
            usable=True,
            evidence="-",
            boundary="none",
            devices=("host",),
            note="resident memory of the worker's process tree, from /proc",
        ),
        nvml.report(tree),
        amd.report(tree),
        ascend.report(tree),
        xpu.report(root),
        rapl.report(root),
        redfish.report(options.redfish),
        ipmi.report(root),
        estimate.report(root),
    )
