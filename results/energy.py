"""Energy of a window of time, from counters where they can be trusted, else from sampled power; unknown parts make it unknown.

Classes of evidence, best first: M1 wall analyser, M2 node sensor, M3 component counters, M4 component sampled power, E1 fitted model,
E2 model of utilisation and rated power, E3 declared. One boundary is chosen and named; boundaries that overlap are never added.
"""

from typing import Literal

import numpy as np
from msgspec import Struct, structs

from results.records import MeterInfo
from results.series import Column, Series

CLASSES = ("M1", "M2", "M3", "M4", "E1", "E2", "E3")
CLASS_ERROR = {"M1": 0.01, "M2": 0.10, "M3": 0.05, "M4": 0.08, "E1": 0.20, "E2": 0.40, "E3": 0.40}
"""Relative error to assume where the meter gives no range of its own: M1 is MLPerf's limit, M2 an uncalibrated BMC, E2 the error found
against external meters (arXiv 2509.22092); the others are engineering values."""
MAX_GAP_S = 3.0

Where = Literal["cpu", "gpu", "remote"]


class Part(Struct, frozen=True, kw_only=True):
    """Energy of one device by one method; `None` with the reason."""

    value_j: float | None
    reason: str = ""


class DeviceEnergy(Struct, frozen=True, kw_only=True):
    """One device over one window, by both methods, and the range of an estimate."""

    device: str
    counter: Part
    integral: Part
    low_j: float | None = None
    high_j: float | None = None

    @property
    def best(self) -> Part:
        return self.counter if self.counter.value_j is not None else self.integral


class Energy(Struct, frozen=True, kw_only=True):
    """Energy of a window over one boundary. `value_j` is `None` with a `reason` when a part of it is unknown."""

    value_j: float | None
    low_j: float | None = None
    high_j: float | None = None
    seconds: float
    method: Literal["counter", "integral", "mixed", ""] = ""
    evidence: str | None = None
    boundary: str | None = None
    meters: tuple[str, ...] = ()
    devices_expected: int = 0
    devices_seen: int = 0
    reason: str = ""
    failed_counters: tuple[str, ...] = ()
    """Sentences on devices whose counter could not be used, so that sampled power was."""
    failed_meters: tuple[str, ...] = ()
    """Sentences on meters of as good a class that have no energy."""

    @property
    def notes(self) -> tuple[str, ...]:
        return self.failed_counters + self.failed_meters

    @property
    def mean_power_w(self) -> float | None:
        return self.value_j / self.seconds if self.value_j is not None and self.seconds > 0 else None

    @property
    def estimated(self) -> bool:
        return self.evidence is not None and self.evidence.startswith("E")


def counter_energy(column: Column, start_ns: int, end_ns: int, period_s: float | None = None) -> Part:
    """Difference of a cumulative counter, interpolated at both edges between the readings around them.

    A counter that went back (reset), stood still, or was not read for over 3 s around the window gives `None`.
    """
    around = _around(column, start_ns, end_ns)
    if isinstance(around, str):
        return Part(value_j=None, reason=f"counter: {around}")
    steps = np.diff(around.values)
    if np.any(steps < 0):
        return Part(value_j=None, reason="counter went back: reset during the window")
    still = longest_still_s(around)
    if still > max(MAX_GAP_S, 5 * (period_s or 0.0)) or around.values[-1] == around.values[0]:
        return Part(value_j=None, reason=f"counter stood still for {still:.1f} s")
    start, end = around.at(start_ns), around.at(end_ns)
    assert start is not None
    assert end is not None
    return Part(value_j=end - start)


def longest_still_s(column: Column) -> float:
    """Longest stretch over which successive readings of a counter are equal, seconds."""
    if len(column.times_ns) < 2:
        return 0.0
    edges = np.concatenate(([0], np.flatnonzero(np.diff(column.values)) + 1, [len(column.times_ns) - 1]))
    return float(np.max(np.diff(column.times_ns[edges]))) / 1e9


def integral_energy(column: Column, start_ns: int, end_ns: int) -> Part:
    """Trapezoid of sampled power with interpolation at both edges; samples must bracket the window, no gap over 3 s."""
    around = _around(column, start_ns, end_ns)
    if isinstance(around, str):
        return Part(value_j=None, reason=f"power: {around}")
    inside = (around.times_ns > start_ns) & (around.times_ns < end_ns)
    seconds = np.concatenate(([0.0], (around.times_ns[inside] - start_ns) / 1e9, [(end_ns - start_ns) / 1e9]))
    start, end = around.at(start_ns), around.at(end_ns)
    assert start is not None
    assert end is not None
    watts = np.concatenate(([start], around.values[inside], [end]))
    return Part(value_j=float(np.trapezoid(watts, seconds)))


def _around(column: Column, start_ns: int, end_ns: int) -> Column | str:
    """The readings in the window and the nearest one on either side, or why they will not do."""
    times = column.times_ns
    if not len(times):
        return "never read"
    if end_ns <= start_ns:
        return "the window has no length"
    a = int(np.searchsorted(times, start_ns, side="right")) - 1
    b = int(np.searchsorted(times, end_ns, side="left"))
    if a < 0 or b >= len(times):
        return "readings do not bracket the window"
    gap = float(np.max(np.diff(times[a : b + 1]))) / 1e9
    if gap > MAX_GAP_S:
        return f"not read for {gap:.1f} s"
    return Column(times[a : b + 1], column.values[a : b + 1])


def device_energy(series: Series, info: MeterInfo, device: str, start_ns: int, end_ns: int) -> DeviceEnergy:
    """One device over one window. A measured power of 0 W is a reading that failed, not a device that draws nothing."""
    power = series.column(info.meter, device, "power_w")
    if not info.evidence.startswith("E"):
        drawn = power.values > 0
        power = Column(power.times_ns[drawn], power.values[drawn])
    low = integral_energy(series.column(info.meter, device, "power_low_w"), start_ns, end_ns)
    high = integral_energy(series.column(info.meter, device, "power_high_w"), start_ns, end_ns)
    return DeviceEnergy(
        device=device,
        counter=counter_energy(series.column(info.meter, device, "energy_j"), start_ns, end_ns, info.period_s),
        integral=integral_energy(power, start_ns, end_ns),
        low_j=low.value_j,
        high_j=high.value_j,
    )


def meter_energy(series: Series, info: MeterInfo, start_ns: int, end_ns: int) -> Energy:
    """All devices of one meter added up; unknown when one of them is. Sampled power of a counter meter is class M4."""
    parts = [device_energy(series, info, device, start_ns, end_ns) for device in info.devices]
    seen = sum(p.best.value_j is not None for p in parts)
    shared = Energy(
        value_j=None,
        seconds=(end_ns - start_ns) / 1e9,
        evidence=info.evidence,
        boundary=info.boundary,
        meters=(info.meter,),
        devices_expected=len(info.devices),
        devices_seen=seen,
    )
    if seen < len(parts) or not parts:
        missing = [f"{p.device} ({p.best.reason})" for p in parts if p.best.value_j is None]
        return structs.replace(shared, reason=f"{info.meter}: no energy of {', '.join(missing) or 'any device'}")
    counted = sum(p.counter.value_j is not None for p in parts)
    method: Literal["counter", "integral", "mixed"]
    method = "counter" if counted == len(parts) else "mixed" if counted else "integral"
    broken = tuple(f"{info.meter} {p.device}: {p.counter.reason}" for p in parts if counter_failed(p))
    value = sum(p.best.value_j or 0.0 for p in parts)
    evidence = "M4" if info.evidence == "M3" and method != "counter" else info.evidence
    low, high = _limits(parts, value, evidence)
    return structs.replace(
        shared, value_j=value, low_j=low, high_j=high, method=method, evidence=evidence, failed_counters=broken
    )


def counter_failed(part: DeviceEnergy) -> bool:
    """There is a counter, and it cannot be used in this window."""
    return part.counter.value_j is None and "never read" not in part.counter.reason


def _limits(parts: list[DeviceEnergy], value: float, evidence: str) -> tuple[float, float]:
    """The meter's own range where every device has one, else the error of the class."""
    if all(p.low_j is not None and p.high_j is not None for p in parts):
        return sum(p.low_j or 0.0 for p in parts), sum(p.high_j or 0.0 for p in parts)
    error = CLASS_ERROR.get(evidence, 0.4)
    return value * (1 - error), value * (1 + error)


def covers(info: MeterInfo) -> frozenset[str]:
    """Which parts of the machine a meter's boundary includes: `cpu`, `gpu`, or both for a node or a combined module."""
    boundary = info.boundary.lower()
    if boundary.startswith("node") or info.scope == "MODULE":
        return frozenset({"cpu", "gpu"})
    return frozenset(part for part in ("cpu", "gpu") if part in boundary)


def where_of(device: str | None) -> Where | None:
    """Which part of the machine does the work, from the engine's `device` text; `None` when it does not say."""
    text = (device or "").lower()
    if not text:
        return None
    if text.startswith(("remote", "http")):
        return "remote"
    if any(word in text for word in ("cuda", "gpu", "rocm", "hip", "npu", "xpu", "metal", "vulkan")):
        return "gpu"
    return "cpu" if "cpu" in text else None


def window_energy(series: Series, start_ns: int, end_ns: int, where: Where | None = None) -> Energy:
    """Energy between two instants by the best evidence that covers the part that does the work.

    A node sensor wins; else GPU and CPU are added when both are measured (M3 or M4), the class being the worse of the two; else the
    best single meter. A meter of as good a class that failed is named: of two makers' cards the other one's watts are not this model's.
    The meters of this host say nothing of a remote server, unless they are a node's.
    """
    meters = [m for m in series.meters.values() if m.evidence in CLASSES and _suits(m, where)]
    if not meters:
        reason = (
            "the server is remote and none of its meters was given" if where == "remote" else "no power meter covers it"
        )
        return Energy(value_j=None, seconds=(end_ns - start_ns) / 1e9, reason=reason)
    found = [meter_energy(series, m, start_ns, end_ns) for m in meters]
    candidates = [*_pairs(series, start_ns, end_ns, where), *sorted(found, key=_rank)]
    known = sorted((c for c in candidates if c.value_j is not None), key=_rank)
    if not known:
        return structs.replace(sorted(found, key=_rank)[0], reason="; ".join(dict.fromkeys(f.reason for f in found)))
    best = known[0]
    failed = tuple(f.reason for f in found if f.value_j is None and _class(f) <= _class(best))
    return structs.replace(best, failed_meters=failed)


def like(whole: Energy, part: Energy) -> Energy:
    """The energy of a part of the step; unknown where it would stand under a label that is the whole's and too good for it."""
    if part.value_j is None or (part.meters == whole.meters and (part.evidence or "") <= (whole.evidence or "")):
        return part
    reason = (
        f"{'+'.join(part.meters)} ({part.evidence}) instead of {'+'.join(whole.meters) or 'nothing'} ({whole.evidence})"
    )
    return structs.replace(part, value_j=None, low_j=None, high_j=None, reason=reason)


def _suits(info: MeterInfo, where: Where | None) -> bool:
    match where:
        case None:
            return bool(covers(info))
        case "remote":
            return info.boundary.startswith("node") and info.evidence in ("M1", "M2", "E3")
        case _:
            return where in covers(info)


def _pairs(series: Series, start_ns: int, end_ns: int, where: Where | None) -> list[Energy]:
    """GPU plus CPU, where both are measured by meters whose boundaries do not overlap."""
    if where == "remote":
        return []
    measured = [
        meter_energy(series, m, start_ns, end_ns)
        for m in series.meters.values()
        if m.evidence in ("M3", "M4") and len(covers(m)) == 1
    ]
    by_part = {
        part: sorted((e for e in measured if e.value_j is not None and part in (e.boundary or "").lower()), key=_rank)
        for part in ("gpu", "cpu")
    }
    if not by_part["gpu"] or not by_part["cpu"]:
        return []
    gpu, cpu = by_part["gpu"][0], by_part["cpu"][0]
    if gpu.value_j is None or cpu.value_j is None:
        return []
    return [
        Energy(
            value_j=gpu.value_j + cpu.value_j,
            low_j=(gpu.low_j or 0.0) + (cpu.low_j or 0.0),
            high_j=(gpu.high_j or 0.0) + (cpu.high_j or 0.0),
            seconds=gpu.seconds,
            method=gpu.method if gpu.method == cpu.method else "mixed",
            evidence=max(gpu.evidence or "E3", cpu.evidence or "E3"),
            boundary="gpu+cpu",
            meters=gpu.meters + cpu.meters,
            devices_expected=gpu.devices_expected + cpu.devices_expected,
            devices_seen=gpu.devices_seen + cpu.devices_seen,
            failed_counters=gpu.failed_counters + cpu.failed_counters,
        )
    ]


def _rank(energy: Energy) -> tuple[int, int]:
    """Node sensors, then GPU and CPU together, then by class."""
    if energy.evidence in ("M1", "M2"):
        return 0, _class(energy)
    return (1 if energy.boundary == "gpu+cpu" else 2), _class(energy)


def _class(energy: Energy) -> int:
    return CLASSES.index(energy.evidence) if energy.evidence in CLASSES else len(CLASSES)


def cross_check(series: Series, start_ns: int, end_ns: int, meters: tuple[str, ...]) -> float | None:
    """Largest |counter - integral| / counter over the devices that have both; `None` where none has."""
    differences = []
    for name in meters:
        info = series.meters[name]
        for device in info.devices:
            part = device_energy(series, info, device, start_ns, end_ns)
            if part.counter.value_j and part.integral.value_j is not None:
                differences.append(abs(part.counter.value_j - part.integral.value_j) / part.counter.value_j)
    return max(differences, default=None)


def mean_power(series: Series, start_ns: int, end_ns: int, like: Energy) -> float | None:
    """Mean watts of a window by the meters of `like`, so that idle and load are of one boundary; `None` when one is unknown."""
    parts = [meter_energy(series, series.meters[name], start_ns, end_ns).mean_power_w for name in like.meters]
    known = [p for p in parts if p is not None]
    return sum(known) if known and len(known) == len(parts) else None
