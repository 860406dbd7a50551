"""Processor power where nothing measures it: rated power and utilisation. Class E2, shown with its range and never ranked.

P = idle + u * (full - idle), u being the busy share of all cores (the form of Cloud Carbon Footprint). Such models were found up to
40 % off against external meters (arXiv 2509.22092), which is the range given where the rated power is known. A virtual machine hides
its processor's name: then the range is that of the published coefficients of many server processors, widened by the same 40 %.

Example: rated 350 W, idle share 0.21, u = 0.5: 73.5 + 0.5 * 276.5 = 211.75 W, range 127.05 to 296.45 W.
"""

import time
from pathlib import Path

from msgspec import Struct

from hardware import machine
from hardware.base import MeterInfo, Reading
from hardware.catalog import Coefficients, catalog, cpu_facts
from hardware.machine import ROOT, Cpu

MODEL_ERROR = 0.40
IDLE_SHARE = 0.21
"""Of full power; the ratio of Cloud Carbon Footprint's average coefficients, 0.74 W to 3.5 W (see catalog.toml)."""


class PowerModel(Struct, frozen=True, kw_only=True):
    """Watts of what this system sees of its processors, at rest and fully busy, each with its range."""

    idle_w: float
    idle_low_w: float
    idle_high_w: float
    full_w: float
    full_low_w: float
    full_high_w: float
    note: str

    def at(self, busy: float) -> tuple[float, float, float]:
        """(low, likely, high) watts at a busy share of 0 to 1."""
        likely = self.idle_w + busy * (self.full_w - self.idle_w)
        low = self.idle_low_w + busy * (self.full_low_w - self.idle_low_w)
        high = self.idle_high_w + busy * (self.full_high_w - self.idle_high_w)
        return low, likely, high


def power_model(cpu: Cpu, virtual: bool) -> PowerModel | None:
    """From the processor's rated power, else from coefficients for each thread; `None` when not even their number is known."""
    facts = cpu_facts(cpu.model)
    if facts is not None:
        return _rated(facts.tdp_w, facts.cores, cpu, virtual, f"{facts.source}, {facts.date}")
    return _by_threads(cpu.threads, catalog().per_thread) if cpu.threads else None


def _rated(tdp_w: float, socket_cores: int, cpu: Cpu, virtual: bool, source: str) -> PowerModel:
    sockets = cpu.sockets or 1
    full, note = tdp_w * sockets, f"{sockets} x {tdp_w:g} W rated ({source})"
    if virtual:
        seen = min(1.0, (cpu.cores or cpu.threads or socket_cores) / (socket_cores * sockets))
        full *= seen
        note += f"; a virtual machine: scaled to the {seen:.0%} of the cores that it sees"
    idle = IDLE_SHARE * full
    return PowerModel(
        idle_w=idle,
        idle_low_w=idle * (1 - MODEL_ERROR),
        idle_high_w=idle * (1 + MODEL_ERROR),
        full_w=full,
        full_low_w=full * (1 - MODEL_ERROR),
        full_high_w=full * (1 + MODEL_ERROR),
        note=note,
    )


def _by_threads(threads: int, each: Coefficients) -> PowerModel:
    low, high = threads * (1 - MODEL_ERROR), threads * (1 + MODEL_ERROR)
    return PowerModel(
        idle_w=threads * each.idle_w,
        idle_low_w=low * each.idle_low_w,
        idle_high_w=high * each.idle_high_w,
        full_w=threads * each.full_w,
        full_low_w=low * each.full_low_w,
        full_high_w=high * each.full_high_w,
        note=f"rated power unknown: {threads} threads at {each.idle_w:g} to {each.full_w:g} W each ({each.source}, {each.date})",
    )


class EstimateMeter:
    """The whole machine's processors, whoever uses them."""

    def __init__(self, model: PowerModel, root: Path = ROOT) -> None:
        self._model, self._root = model, root
        self._times = machine.cpu_times(root)

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter="estimate",
            devices=("cpu",),
            evidence="E2",
            boundary="cpu_package",
            sensor_api="rated power and /proc/stat",
            note=f"estimated from utilisation, not measured; {self._model.note}",
        )

    def read(self) -> tuple[Reading, ...]:
        """Mean over the time since the last reading; no power when the clock has not moved."""
        before, now = self._times, machine.cpu_times(self._root)
        now_ns = time.monotonic_ns()
        if before is None or now is None:
            return (Reading(time_ns=now_ns, meter="estimate", device="cpu", error="/proc/stat cannot be read"),)
        if now[1] <= before[1]:
            return (Reading(time_ns=now_ns, meter="estimate", device="cpu"),)
        self._times = now
        busy = (now[0] - before[0]) / (now[1] - before[1])
        low, likely, high = self._model.at(min(1.0, max(0.0, busy)))
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
