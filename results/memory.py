"""Memory of one step as separate numbers: what was reserved on the accelerators, what this load needed, what the host gave."""

from functools import reduce

import numpy as np
from msgspec import Struct

from results.energy import Where, covers
from results.records import EngineInfo
from results.series import Series, Window
from results.views import StepRecords


class Memory(Struct, frozen=True, kw_only=True):
    """Bytes, highest reading during the step."""

    vram_reserved: int | None
    vram_needed: int | None
    host: int | None
    host_anon: int | None
    host_file: int | None
    host_needed: int | None
    """Weights, cache used and compute buffers of an engine that works in host memory."""
    reason: str = ""


def memory_of(step: StepRecords, series: Series) -> Memory:
    """The highest readings within the step; what a device did not tell is `None`, never 0."""
    if step.span is None:
        return Memory(vram_reserved=None, vram_needed=None, host=None, host_anon=None, host_file=None, host_needed=None)
    where = step.where
    reserved, reason = _reserved(step, series, where)
    host = _host_peak(series, step.span, ("anon_bytes", "file_bytes", "shared_bytes"))
    needed = needed_bytes(step)
    return Memory(
        vram_reserved=reserved,
        vram_needed=needed if where == "gpu" else None,
        host=host,
        host_anon=_host_peak(series, step.span, ("anon_bytes",)),
        host_file=_host_peak(series, step.span, ("file_bytes",)),
        host_needed=needed if where == "cpu" else None,
        reason=reason,
    )


def _host_peak(series: Series, span: Window, fields: tuple[str, ...]) -> int | None:
    """Largest sum of the fields in one reading of the process tree; a reading that lacks one of them does not count."""
    peaks = []
    for key in series.with_field("anon_bytes"):
        columns = [series.column(*key, field).within(span.start_ns, span.end_ns) for field in fields]
        times_ns = reduce(np.intersect1d, [c.times_ns for c in columns])
        if len(times_ns):
            sums = np.sum([c.values[np.searchsorted(c.times_ns, times_ns)] for c in columns], axis=0)
            peaks.append(int(sums.max()))
    return max(peaks, default=None)


def _reserved(step: StepRecords, series: Series, where: Where | None) -> tuple[int | None, str]:
    """Highest memory of our processes, every device added; else how much the devices' use rose since before the worker."""
    if where != "gpu" or step.span is None:
        return None, ""
    ours = [
        series.column(m, d, "memory_bytes").within(step.span.start_ns, step.span.end_ns)
        for m, d in gpus(series, "memory_bytes")
    ]
    if ours and all(len(c.values) for c in ours):
        return int(sum(c.values.max() for c in ours)), ""
    return _device_rise(step, series, step.span)


def gpus(series: Series, field: str) -> list[tuple[str, str]]:
    """Accelerators that ever read the field."""
    return [(m, d) for m, d in series.with_field(field) if m in series.meters and "gpu" in covers(series.meters[m])]


def _device_rise(step: StepRecords, series: Series, span: Window) -> tuple[int | None, str]:
    rise = 0
    devices = gpus(series, "memory_used_bytes")
    for meter, device in devices:
        foreign = series.column(meter, device, "foreign_processes").values
        if len(foreign) and foreign.max() > 0:
            return None, f"memory of our processes is not told, and others use {device}"
        used = series.column(meter, device, "memory_used_bytes")
        during = used.within(span.start_ns, span.end_ns).values
        before = (
            used.within(step.idle_before.start_ns, step.idle_before.end_ns).values if step.idle_before else during[:0]
        )
        if not len(during) or not len(before):
            return None, f"memory of our processes is not told, and {device} was not read before the worker"
        rise += int(during.max() - before.min())
    return (
        (rise, "rise of the devices' use since before the worker") if devices else (None, "no device memory was read")
    )


def needed_bytes(step: StepRecords) -> int | None:
    """Weights, the cache that was used at its peak, and compute buffers; `None` where the engine leaves one of them untold."""
    engine = step.engine
    if engine is None:
        return None
    weights = engine.memory.get("weights", engine.weight_bytes)
    compute = max(
        (c for m in (engine.memory, *(s.memory for s in step.states)) if (c := _compute(m, engine)) is not None),
        default=None,
    )
    used = max((s.cache_tokens_used for s in step.states if s.cache_tokens_used is not None), default=None)
    if used is None or engine.cache_bytes_per_token is None or weights is None or compute is None:
        return None
    return int(weights + used * engine.cache_bytes_per_token + compute)


def _compute(told: dict[str, int], engine: EngineInfo) -> int | None:
    """Buffers of the computation, as told; else what an allocator held at its peak beyond weights and cache."""
    if "compute" in told or "peak_allocated" not in told:
        return told.get("compute")
    weights, cache = engine.memory.get("weights", engine.weight_bytes), engine.memory.get("cache")
    return None if weights is None or cache is None else max(0, told["peak_allocated"] - weights - cache)
