"""Processor power where nothing measures it: a model of rated power and utilisation. Class E2, shown with its range, never ranked.

P = idle + u * (full - idle), u being the busy share of all cores (the form of Cloud Carbon Footprint). Models of this kind were found
up to 40 % off against external meters (arXiv 2509.22092): that is the range. Where the processor hides its name, as in a virtual
machine, `idle` and `full` are published watts of one hardware thread of its architecture, or of many architectures with their extremes.

Example: 350 W rated, idle share 0.24, u = 0.5: 84 + 0.5 * 266 = 217 W, range 130.2 to 303.8 W.
"""

import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from hardware import machine
from hardware.base import MeterInfo, Reading, SensorReport
from hardware.catalog import architecture, catalog, cpu_facts
from hardware.machine import ROOT, Cpu

MODEL_ERROR = 0.40
IDLE_SHARE = 0.24
"""Of full power: the median of idle / full over the architectures in catalog.toml."""
HOW = (
    "better: a wall meter or the machine's management controller (redfish, ipmi) for the whole node, RAPL counters on bare metal, "
    "or an accelerator with an energy counter"
)


class PowerModel(Struct, frozen=True, kw_only=True):
    """Watts of what this system sees of its processors, at rest and fully busy, each with its range."""

    idle_w: float
    idle_low_w: float
    idle_high_w: float
    full_w: float
    full_low_w: float
    full_high_w: float
    boundary: str
    note: str

    def at(self, busy: float) -> tuple[float, float, float]:
        """(low, likely, high) watts at a busy share of 0 to 1."""
        likely = self.idle_w + busy * (self.full_w - self.idle_w)
        low = self.idle_low_w + busy * (self.full_low_w - self.idle_low_w)
        high = self.idle_high_w + busy * (self.full_high_w - self.idle_high_w)
        return low, likely, high


def power_model(cpu: Cpu, virtual: bool) -> PowerModel | None:
    """By rated power, else by architecture, else by the extremes of all; `None` when not even the threads can be counted."""
    facts = cpu_facts(cpu.model)
    if facts is not None:
        sockets = cpu.sockets or 1
        full_w, note = facts.tdp_w * sockets, f"{sockets} x {facts.tdp_w:g} W rated ({facts.source})"
        if virtual:
            seen = min(1.0, (cpu.cores or cpu.threads or facts.cores) / (facts.cores * sockets))
            full_w, note = (
                full_w * seen,
                f"{note}; a virtual machine: scaled to the {seen:.0%} of the cores that it sees",
            )
        return _ranged(IDLE_SHARE * full_w, full_w, "cpu_package", note)
    return _by_threads(cpu) if cpu.threads else None


def _by_threads(cpu: Cpu) -> PowerModel:
    """SPECpower's watts are of whole servers at the wall, so the boundary is the processors' share of board, memory and supply too."""
    threads, published = cpu.threads or 0, catalog().coefficients
    source = f"{published.source}, read {published.date}"
    name = architecture(cpu)
    if name is not None:
        idle_w, full_w = published.architectures[name]
        note = f"rated power unknown: {threads} threads of {name} at {idle_w:g} to {full_w:g} W each ({source})"
        return _ranged(threads * idle_w, threads * full_w, "cpu+board", note)
    each, low, high = published.any, threads * (1 - MODEL_ERROR), threads * (1 + MODEL_ERROR)
    return PowerModel(
        idle_w=threads * each.idle_w,
        idle_low_w=low * each.idle_low_w,
        idle_high_w=high * each.idle_high_w,
        full_w=threads * each.full_w,
        full_low_w=low * each.full_low_w,
        full_high_w=high * each.full_high_w,
        boundary="cpu+board",
        note=f"rated power and architecture unknown: {threads} threads at {each.idle_w:g} to {each.full_w:g} W each ({source})",
    )


def _ranged(idle_w: float, full_w: float, boundary: str, note: str) -> PowerModel:
    return PowerModel(
        idle_w=idle_w,
        idle_low_w=idle_w * (1 - MODEL_ERROR),
        idle_high_w=idle_w * (1 + MODEL_ERROR),
        full_w=full_w,
        full_low_w=full_w * (1 - MODEL_ERROR),
        full_high_w=full_w * (1 + MODEL_ERROR),
        boundary=boundary,
        note=note,
    )


class EstimateMeter:
    """All processors that this system sees, whoever uses them. `busy` tells the share of them that was, `None` until it is known."""

    def __init__(self, model: PowerModel, busy: Callable[[], float | None]) -> None:
        self._model, self._busy = model, busy

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter="estimate",
            devices=("cpu",),
            evidence="E2",
            boundary=self._model.boundary,
            sensor_api="published watts and /proc/stat",
            note=f"estimated from utilisation, not measured; {self._model.note}",
        )

    def read(self) -> tuple[Reading, ...]:
        """Power at the latest busy share; `None` until there is one."""
        busy, now_ns = self._busy(), time.monotonic_ns()
        if busy is None:
            return (Reading(time_ns=now_ns, meter="estimate", device="cpu"),)
        low, likely, high = self._model.at(busy)
        return (
            Reading(
                time_ns=now_ns,
                meter="estimate",
                device="cpu",
                power_w=likely,
                power_low_w=low,
                power_high_w=high,
                utilisation_percent=100.0 * busy,
            ),
        )

    def close(self) -> None: ...


def report(root: Path = ROOT) -> SensorReport:
    """Of this system's processors; usable nearly everywhere and the worst evidence there is."""
    cpu = machine.describe_cpu(root)
    model = power_model(cpu, machine.virtual_machine(cpu.flags, root) is not None)
    if model is None:
        return SensorReport(
            interface="estimate",
            usable=False,
            evidence="E2",
            boundary="cpu",
            note="the number of processors is not told",
        )
    low, high = model.idle_low_w, model.full_high_w
    return SensorReport(
        interface="estimate",
        usable=True,
        evidence="E2",
        boundary=model.boundary,
        devices=("cpu",),
        note=f"~{model.idle_w:.1f} to {model.full_w:.1f} W (range {low:.1f} to {high:.1f}); {model.note}; {HOW}",
    )
