"""The seam of measuring: a meter reads a device, a reading is what it saw."""

from typing import Protocol

from msgspec import Struct


class HardwareError(Exception):
    """Something asked of the hardware cannot be had here; one sentence: what, where, what to do. The user's to mend, not ours."""


class MeterInfo(Struct, frozen=True, kw_only=True):
    """Where a meter's numbers come from; the classes of evidence stand in docs/metrics.md."""

    meter: str
    devices: tuple[str, ...]
    evidence: str
    """M1 wall analyser, M2 node sensor, M3 component counters, M4 component sampled power, E1-E3 estimates; `-` for memory."""
    boundary: str
    """What the watts include: gpu, cpu_package, cpu_package+dram, node_dc, node_ac, none."""
    sensor_api: str
    period_s: float | None = None
    """How often the sensor itself updates, where known."""
    scope: str | None = None
    note: str = ""


class Reading(Struct, frozen=True, kw_only=True):
    """One device at one instant. `None` is "not read", never zero. Fields as in `results.records.Tick`."""

    time_ns: int
    meter: str
    device: str
    power_w: float | None = None
    power_low_w: float | None = None
    power_high_w: float | None = None
    energy_j: float | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    anon_bytes: int | None = None
    file_bytes: int | None = None
    shared_bytes: int | None = None
    swap_bytes: int | None = None
    major_faults: int | None = None
    cgroup_peak_bytes: int | None = None
    processes: int | None = None
    cpu_seconds: float | None = None
    harness_cpu_seconds: float | None = None
    host_cpu_percent: float | None = None
    load_average: float | None = None
    temperature_c: float | None = None
    memory_temperature_c: float | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    utilisation_percent: float | None = None
    throttle: int | None = None
    power_limit_w: float | None = None
    ecc_uncorrected: int | None = None
    foreign_processes: int | None = None
    late_ms: float | None = None
    error: str | None = None


class SensorReport(Struct, frozen=True, kw_only=True):
    """One interface as `host` shows it. `note` says what it reads, or why it cannot be used and what would give better."""

    interface: str
    usable: bool
    evidence: str
    boundary: str
    devices: tuple[str, ...] = ()
    note: str = ""


class Meter(Protocol):
    """Reads one kind of device. `read` never raises for a device that vanished: it returns a reading with `error`."""

    def describe(self) -> MeterInfo: ...
    def read(self) -> tuple[Reading, ...]: ...
    def close(self) -> None: ...


class WatchedProcess:
    """The process tree whose memory counts as ours. The parent sets `pid` when the worker has started."""

    def __init__(self) -> None:
        self.pid: int | None = None
