"""Host memory of the watched process tree, and how busy the whole machine is.

Pages of the tree are added up as the kernel keeps them for each process: anonymous, of files (a mapped GGUF), shared. A page that two
processes of the tree map counts twice; the exact split (smaps_rollup) would stop the measured process while it is walked.
"""

import os
import time
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from hardware import machine
from hardware.base import MeterInfo, Reading
from hardware.machine import ROOT, BusyShare, KeptFile
from hardware.processes import ProcessTree, stat_fields

DETAIL_NS = 450_000_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Usage(Struct, frozen=True, kw_only=True):
    """Of one process, in bytes and seconds; CPU time and faults include its children that have ended. Fields as in `Reading`."""

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
        self._machine, self._load = KeptFile(tree.root / "proc/meminfo"), KeptFile(tree.root / "proc/loadavg")
        self._processes: dict[int, ProcessFiles] = {}
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
        usages, now_ns = self._usages(), time.monotonic_ns()
        self._share = busy = self._busy.latest()
        return (
            Reading(
                time_ns=now_ns,
                meter="memory",
                device="host",
                harness_cpu_seconds=time.process_time(),
                processes=len(usages) or None,
                host_cpu_percent=None if busy is None else 100.0 * busy,
                **_added(usages),
                **self._detail(now_ns),
            ),
        )

    def _usages(self) -> list[Usage]:
        """Of every member that is there."""
        members = self._tree.members()
        for pid in self._processes.keys() - set(members):
            self._processes.pop(pid).close()
        for pid in members:
            if pid not in self._processes:
                self._processes[pid] = ProcessFiles(pid, self._root)
        return [usage for process in self._processes.values() if (usage := process.usage())]

    def busy(self) -> float | None:
        """Share of all cores that was busy, as last read, so that the kernel is asked once for all meters."""
        return self._share

    def _detail(self, now_ns: int) -> dict[str, Any]:
        """What moves slowly or is a high-water mark, twice a second."""
        if now_ns - self._detail_ns < DETAIL_NS:
            return {}
        self._detail_ns = now_ns
        memory, load = self._machine.text(), self._load.text()
        total, available = _size(memory, "MemTotal:"), _size(memory, "MemAvailable:")
        return {
            "memory_total_bytes": total,
            "memory_used_bytes": None if total is None or available is None else total - available,
            "cgroup_peak_bytes": self._group_peak(),
            "load_average": float(load.split()[0]) if load else None,
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

    def close(self) -> None:
        self._busy.close()
        self._machine.close()
        self._load.close()
        for process in self._processes.values():
            process.close()


class ProcessFiles:
    """What the kernel tells of one process, read again and again."""

    def __init__(self, pid: int, root: Path = ROOT) -> None:
        folder = root / "proc" / str(pid)
        self._stat, self._status = KeptFile(folder / "stat"), KeptFile(folder / "status")

    def usage(self) -> Usage | None:
        """`None` for a process that has gone or is only waiting to be reaped."""
        fields, status = stat_fields(self._stat.text()), self._status.text()
        anon_bytes = _size(status, "RssAnon:")
        if fields is None or anon_bytes is None:
            return None
        return Usage(
            anon_bytes=anon_bytes,
            file_bytes=_size(status, "RssFile:") or 0,
            shared_bytes=_size(status, "RssShmem:") or 0,
            swap_bytes=_size(status, "VmSwap:") or 0,
            major_faults=int(fields[9]) + int(fields[10]),
            cpu_seconds=(int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / TICKS_PER_S,
        )

    def close(self) -> None:
        self._stat.close()
        self._status.close()


def _added(usages: list[Usage]) -> dict[str, Any]:
    """By field; nothing is known of no process."""
    sums = map(sum, zip(*map(structs.astuple, usages), strict=True))
    return dict(zip(Usage.__struct_fields__, sums, strict=False))


def _size(text: str, name: str) -> int | None:
    """Bytes of one line of /proc/PID/status or /proc/meminfo, `RssAnon:      1234 kB`; `None` where it is not told."""
    at = text.find(name)
    if at < 0:
        return None
    begin = at + len(name)
    return int(text[begin : text.index("kB", begin)]) * 1024
