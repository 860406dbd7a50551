"""What the meters read over a cell, thinned to a few hundred points for a chart."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from results.energy import CLASSES, covers
from results.records import MeterInfo
from results.series import Column, Series, Window
from results.stats import Floats
from results.views import CellRecords

POINTS = 400
"""Most points of one line: about one for each pixel of its chart."""


class Line(Struct, frozen=True, kw_only=True):
    """One line of a chart. `values` has `None` where nothing was read; `low` and `high` are the range of an estimate."""

    name: str
    times_s: tuple[float, ...]
    values: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    estimated: bool = False


class Mark(Struct, frozen=True, kw_only=True):
    """A stretch of time under a chart."""

    name: str
    kind: Literal["step", "warmup", "idle", "load"]
    start_s: float
    end_s: float


class Timeline(Struct, frozen=True, kw_only=True):
    """Power in watts and memory in bytes over a cell, in seconds since its first reading."""

    seconds: float
    power: tuple[Line, ...]
    memory: tuple[Line, ...]
    marks: tuple[Mark, ...]


def timeline_of(cell: CellRecords) -> Timeline | None:
    """`None` where no telemetry was kept."""
    span = cell.series.span_ns()
    if span is None or span[1] <= span[0]:
        return None
    edges = np.linspace(span[0], span[1], POINTS + 1).astype(np.int64)
    return Timeline(
        seconds=(span[1] - span[0]) / 1e9,
        power=_power(cell.series, edges),
        memory=_memory(cell.series, edges),
        marks=_marks(cell, span[0]),
    )


def _power(series: Series, edges: np.ndarray) -> tuple[Line, ...]:
    lines = []
    for info in series.meters.values():
        if info.evidence not in CLASSES:
            continue
        drawn = _sum([_watts(series, info, device, edges) for device in info.devices])
        if drawn is None or np.all(np.isnan(drawn)):
            continue
        estimated = info.evidence.startswith("E")
        low, high = (
            _sum([_means(series.column(info.meter, d, f), edges) for d in info.devices]) if estimated else None
            for f in ("power_low_w", "power_high_w")
        )
        lines.append(_line(f"{info.meter} ({info.evidence}, {info.boundary})", edges, drawn, low, high, estimated))
    return tuple(lines)


def _watts(series: Series, info: MeterInfo, device: str, edges: np.ndarray) -> Floats:
    """Mean watts between each two edges: sampled power where there is some, else the slope of the counter."""
    power = series.column(info.meter, device, "power_w")
    if len(power.times_ns):
        return _means(power, edges)
    counter = series.column(info.meter, device, "energy_j")
    found = np.full(len(edges) - 1, np.nan)
    if len(counter.times_ns) > 1:
        origin = edges[0]
        at = np.interp(
            (edges - origin).astype(float),
            (counter.times_ns - origin).astype(float),
            counter.values,
            left=np.nan,
            right=np.nan,
        )
        found = np.diff(at) / (np.diff(edges) / 1e9)
        found[found < 0] = np.nan  # a counter that was reset
    return found


def _memory(series: Series, edges: np.ndarray) -> tuple[Line, ...]:
    lines = []
    for meter, device in series.with_field("anon_bytes"):
        for field, name in (("anon_bytes", "anonymous"), ("file_bytes", "file-backed")):
            values = _highest(series.column(meter, device, field), edges)
            if not np.all(np.isnan(values)):
                lines.append(_line(name, edges, values))
    boards = [
        _highest(series.column(m, d, "memory_bytes"), edges)
        for m, d in series.with_field("memory_bytes")
        if m in series.meters and "gpu" in covers(series.meters[m])
    ]
    total = _sum(boards)
    if total is not None:
        lines.append(_line("accelerators", edges, total))
    return tuple(lines)


def _sum(parts: Sequence[Floats]) -> Floats | None:
    """A sum with an unknown part is unknown."""
    return np.sum(np.stack(parts), axis=0) if parts else None


def _means(column: Column, edges: np.ndarray) -> Floats:
    """Mean of the readings between each two edges; NaN between edges with none."""
    place = np.searchsorted(edges, column.times_ns, side="right") - 1
    place = np.clip(place, 0, len(edges) - 2)
    counts = np.bincount(place, minlength=len(edges) - 1)
    sums = np.bincount(place, weights=column.values, minlength=len(edges) - 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _highest(column: Column, edges: np.ndarray) -> Floats:
    """Largest reading between each two edges, so that a short peak is not averaged away."""
    found = np.full(len(edges) - 1, -np.inf)
    place = np.clip(np.searchsorted(edges, column.times_ns, side="right") - 1, 0, len(edges) - 2)
    np.maximum.at(found, place, column.values)
    return np.where(np.isfinite(found), found, np.nan)


def _line(
    name: str,
    edges: np.ndarray,
    values: Floats,
    low: Floats | None = None,
    high: Floats | None = None,
    estimated: bool = False,
) -> Line:
    """Only stretches in which something was read, and of the others one, so that the line is broken there."""
    middles = (edges[:-1] - edges[0] + np.diff(edges) / 2) / 1e9
    known = ~np.isnan(values)
    # A meter slower than the chart leaves empty stretches between its readings; only long ones are a break.
    gap = _longest_regular_gap(known)
    keep, run = [], 0
    for i, there in enumerate(known):
        run = 0 if there else run + 1
        if there or run == gap + 1:
            keep.append(i)
    return Line(
        name=name,
        times_s=tuple(round(float(middles[i]), 2) for i in keep),
        values=tuple(_plain(values[i]) for i in keep),
        low=tuple(_plain(low[i]) for i in keep) if low is not None else (),
        high=tuple(_plain(high[i]) for i in keep) if high is not None else (),
        estimated=estimated,
    )


def _longest_regular_gap(known: np.ndarray) -> int:
    """Empty stretches that are usual between two readings: three times the median distance."""
    places = np.flatnonzero(known)
    return int(3 * np.median(np.diff(places))) if len(places) > 1 else len(known)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.5g}")


def _marks(cell: CellRecords, origin_ns: int) -> tuple[Mark, ...]:
    found: list[Mark] = []

    def mark(name: str, kind: Literal["step", "warmup", "idle", "load"], window: Window | None) -> None:
        if window is not None and window.end_ns > origin_ns:
            start_s = max(0.0, (window.start_ns - origin_ns) / 1e9)
            candidate = Mark(name=name, kind=kind, start_s=start_s, end_s=(window.end_ns - origin_ns) / 1e9)
            if candidate not in found:
                found.append(candidate)

    for step in cell.steps:
        mark(step.facts.name, "warmup" if step.facts.warmup else "step", step.span)
        mark("before", "idle", step.idle_before)
        mark("loaded", "idle", step.idle_loaded)
        mark("after", "idle", step.idle_after)
    for loaded in cell.loads:
        mark("load", "load", Window(loaded.start_ns, loaded.end_ns))
    return tuple(sorted(found, key=lambda m: m.start_s))
