"""pytest-benchmark's JSON: one benchmark for each step, its rounds the end-to-end times of the requests, in seconds.

`pytest-benchmark compare` groups by name across files, so that two runs of one suite stand side by side.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from results.load import LoadedCell
from results.manifest import Manifest
from results.records import Answered, Ranked
from results.rows import Row
from results.validity.base import StepView

VERSION = "5.0.0"
"""Of pytest-benchmark, whose layout this is."""


def benchmarks_json(manifest: Manifest, cells: Iterable[LoadedCell]) -> bytes:
    """The file; steps without a request that succeeded are left out, as pytest-benchmark leaves out those with errors."""
    found = [
        _benchmark(cell, view, row, seconds)
        for cell in cells
        for view, row in zip(cell.views, cell.rows, strict=True)
        if (seconds := durations(view))
    ]
    whole = {
        "machine_info": _machine(manifest),
        "commit_info": {
            "id": manifest.source_commit or "unversioned",
            "time": None,
            "author_time": None,
            "dirty": False,
            "project": "bedside",
            "branch": "(unknown)",
        },
        "benchmarks": found,
        "datetime": manifest.created_utc,
        "version": VERSION,
    }
    return (json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def durations(view: StepView) -> list[float]:
    """Seconds from the planned time to the last token of every request that succeeded; of a ranking from start to result."""
    if view.measured is None:
        return []
    return [_seconds(r) for r in view.step.records if r.error is None]


def _seconds(record: Answered | Ranked) -> float:
    match record:
        case Answered():
            return ((record.last_ns or record.end_ns) - record.sched_ns) / 1e9
        case Ranked():
            return (record.end_ns - record.start_ns) / 1e9


def _benchmark(cell: LoadedCell, view: StepView, row: Row, seconds: Sequence[float]) -> dict[str, Any]:
    name = f"{row.step}[{row.deployment}]"
    told = ("run", "model", "quantisation", "engine", "engine_version", "device", "accuracy", "accuracy_lo", "accuracy_hi",
            "output_tokens_per_s", "energy_per_sample_j", "power_class", "valid")  # fmt: skip
    return {
        "group": view.step.facts.task,
        "name": name,
        "fullname": f"{cell.manifest.suite.get('name', 'suite')}::{name}",
        "params": {"deployment": row.deployment, "load": row.load},
        "param": row.deployment,
        "extra_info": {n: getattr(row, n) for n in told},
        "options": {"disable_gc": False, "timer": "monotonic_ns", "min_rounds": len(seconds), "warmup": True},
        "stats": stats(seconds),
    }


def stats(seconds: Sequence[float]) -> dict[str, Any]:
    """The fields of pytest-benchmark; quartiles by linear interpolation. `data` holds every time."""
    data = sorted(seconds)
    q1, median, q3 = (float(q) for q in np.quantile(data, [0.25, 0.5, 0.75]))
    mean, deviation = statistics.fmean(data), statistics.stdev(data) if len(data) > 1 else 0.0
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    far = sum(not mean - deviation <= v <= mean + deviation for v in data)
    out = sum(not low <= v <= high for v in data)
    total = sum(data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": out,
        "stddev_outliers": far,
        "outliers": f"{far};{out}",
        "ld15iqr": min(v for v in data if v >= low),
        "hd15iqr": max(v for v in data if v <= high),
        "ops": len(data) / total if total else 0,
        "total": total,
        "data": list(seconds),
        "iterations": 1,
    }


def _machine(manifest: Manifest) -> dict[str, Any]:
    """Under the names that pytest-benchmark uses."""
    host, cpu = manifest.host, manifest.host.get("cpu") or {}
    return {
        "node": host.get("name"),
        "machine": host.get("architecture"),
        "release": host.get("kernel"),
        "system": host.get("system"),
        "python_version": host.get("python"),
        "cpu": {"brand_raw": cpu.get("model"), "count": cpu.get("threads")},
        "gpus": [g.get("name") for g in host.get("gpus") or ()],
    }
