"""Host memory of the watched process tree, and how busy the whole machine is.

Pages of the tree are added up as the kernel keeps them for each process: anonymous, of files (a mapped GGUF), shared. A page that two
processes of the tree map counts twice; the exact split (smaps_rollup) would stop the measured process while it is walked.
"""

import os
import re
import time
from pathlib import Path
from typing import Any

from msgspec import Struct

from hardware import machine
from hardware.base import MeterInfo, Reading
from hardware.machine import ROOT, BusyShare
from hardware.processes import ProcessTree, stat_fields

DETAIL_NS = 450_000_000
SIZES = re.compile(r"Rss(Anon|File|Shmem):|VmSwap:")


class Usage(Struct, frozen=True, kw_only=True):
    """Of one process, in bytes and seconds; CPU time and faults include its children that have ended."""

    anon_bytes: int
    file_bytes: int
    shared_bytes: int
    swap_bytes: int
    major_faults: int
    cpu_seconds: float


class MemoryMeter:
    """Reads every member of the tree; while there is no worker only the machine."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree, self._root = tree, tree.root
        self._busy = BusyShare(tree.root)
        self._share: float | None = None
        self._detail_ns = 0
        self._group: tuple[int, Path | None] | None = None
        """Of which process, and its folder; None: not version 2."""

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter="memory",
            devices=("host",),
            evidence="-",
            boundary="none",
            sensor_api="/proc",
            note="resident pages of the process tree; a page that two of its processes share counts for both",
        )

    def read(self) -> tuple[Reading, ...]:
        usages = [u for p in self._tree.members() if (u := usage(p, self._root))]
        known, busy, now_ns = bool(usages), self._busy.latest(), time.monotonic_ns()
        self._share = busy
        return (
            Reading(
                time_ns=now_ns,
                meter="memory",
                device="host",
                anon_bytes=sum(u.anon_bytes for u in usages) if known else None,
                file_bytes=sum(u.file_bytes for u in usages) if known else None,
                shared_bytes=sum(u.shared_bytes for u in usages) if known else None,
                swap_bytes=sum(u.swap_bytes for u in usages) if known else None,
                major_faults=sum(u.major_faults for u in usages) if known else None,
                cpu_seconds=sum(u.cpu_seconds for u in usages) if known else None,
                harness_cpu_seconds=time.process_time(),
                processes=len(usages) if known else None,
                host_cpu_percent=None if busy is None else 100.0 * busy,
                **self._detail(now_ns),
            ),
        )

    def busy(self) -> float | None:
        """Share of all cores that was busy, as last read, so that the kernel is asked once for all meters."""
        return self._share

    def _detail(self, now_ns: int) -> dict[str, Any]:
        """What moves slowly or is a high-water mark, twice a second."""
        if now_ns - self._detail_ns < DETAIL_NS:
            return {}
        self._detail_ns = now_ns
        memory = machine.memory_info(self._root)
        total, available = memory.get("MemTotal"), memory.get("MemAvailable")
        return {
            "memory_total_bytes": total,
            "memory_used_bytes": None if total is None or available is None else total - available,
            "cgroup_peak_bytes": self._group_peak(),
            "load_average": _load_average(self._root),
        }

    def _group_peak(self) -> int | None:
        """High-water mark of the worker's control group (version 2) since it was made, page cache included; `None` where not kept."""
        pid = self._tree.pid
        if pid is None:
            return None
        if self._group is None or self._group[0] != pid:
            self._group = pid, machine.group_paths(pid, self._root).get("")
        folder = self._group[1]
        return machine.read_int(folder / "memory.peak") if folder else None

    def close(self) -> None: ...


def usage(pid: int, root: Path = ROOT) -> Usage | None:
    """`None` for a process that has gone or is only waiting to be reaped."""
    path = root / "proc" / str(pid)
    fields = stat_fields(root, pid)
    sizes = _sizes(path)
    if fields is None or "RssAnon" not in sizes:
        return None
    return Usage(
        anon_bytes=sizes["RssAnon"],
        file_bytes=sizes["RssFile"],
        shared_bytes=sizes["RssShmem"],
        swap_bytes=sizes.get("VmSwap", 0),
        major_faults=int(fields[9]) + int(fields[10]),
        cpu_seconds=sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK"),
    )


def _sizes(path: Path) -> dict[str, int]:
    found = (line.split() for line in (machine.read_text(path / "status") or "").splitlines() if SIZES.match(line))
    return {name.rstrip(":"): int(kib) * 1024 for name, kib, _ in found}


def _load_average(root: Path) -> float | None:
    text = machine.read_text(root / "proc/loadavg")
    return float(text.split()[0]) if text else None
