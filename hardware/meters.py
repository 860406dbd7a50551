"""Which meters there are here: an explicit list, each interface in the file of its name."""

from pathlib import Path

from msgspec import Struct

from hardware import machine, nvml, rapl
from hardware.base import Meter, SensorReport, WatchedProcess
from hardware.declared import DeclaredMeter
from hardware.estimate import EstimateMeter, power_model
from hardware.machine import ROOT
from hardware.memory import MemoryMeter
from hardware.processes import ProcessTree


class Declared(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Watts that somebody vouches for."""

    power_w: float
    boundary: str
    source: str
    low_w: float | None = None
    high_w: float | None = None


class MeterOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is read beyond what the machine itself offers."""

    gpus: tuple[str, ...] = ()
    """Beginnings of the UUIDs of the NVIDIA GPUs to read; empty: all."""
    declared: Declared | None = None


def open_meters(watched: WatchedProcess, options: MeterOptions = MeterOptions(), root: Path = ROOT) -> tuple[Meter, ...]:
    """Memory always; the processors by counter or else by estimate; every accelerator that answers; the rest where named."""
    tree = ProcessTree(watched, root)
    meters: list[Meter] = [MemoryMeter(tree)]
    try:
        meters.append(nvml.NvmlMeter(tree, options.gpus))
    except nvml.NvmlError:
        pass  # `sensors` says why
    try:
        meters.append(rapl.RaplMeter(root))
    except rapl.RaplError:
        cpu = machine.describe_cpu(root)
        if model := power_model(cpu, machine.virtual_machine(cpu.flags, root) is not None):
            meters.append(EstimateMeter(model, root))
    if options.declared:
        d = options.declared
        meters.append(DeclaredMeter(d.power_w, d.boundary, d.source, d.low_w, d.high_w))
    return tuple(meters)


def sensors(root: Path = ROOT) -> tuple[SensorReport, ...]:
    """Every interface: usable here or not, and why."""
    tree = ProcessTree(WatchedProcess(), root)
    return (nvml.report(tree), rapl.report(root))
