"""The process tree that counts as ours: the worker, its descendants, and whoever else is in its session."""

import contextlib
import os
import time
from pathlib import Path

from hardware.base import WatchedProcess
from hardware.machine import ROOT, read_text

RESCAN_NS = 1_000_000_000
"""New processes are looked for once a second; the members found are remembered meanwhile."""
FORGET_NS = 30_000_000_000
"""A process that is not ours does not become ours, so it is looked at once, until its id may have been given to another."""
FIRST_NAMESPACE = "pid:[4026531836]"
"""Inode of the kernel's first process-id namespace (include/linux/proc_ns.h)."""


class ProcessTree:
    """Members of the tree below `watched.pid`, none while there is no worker. For the meters of one thread."""

    def __init__(self, watched: WatchedProcess, root: Path = ROOT) -> None:
        self._watched, self.root = watched, root
        self._members: tuple[int, ...] = ()
        self._strangers: set[int] = set()
        self._of: int | None = None
        self._scanned_ns = self._forgot_ns = 0

    def copy(self) -> "ProcessTree":
        """Of the same process, for another thread."""
        return ProcessTree(self._watched, self.root)

    @property
    def pid(self) -> int | None:
        return self._watched.pid

    def members(self, fresh: bool = False) -> tuple[int, ...]:
        """At most a second old; `fresh` looks again."""
        pid, now_ns = self._watched.pid, time.monotonic_ns()
        if pid is None:
            self._members, self._of = (), None
            return ()
        if pid != self._of or now_ns - self._forgot_ns >= FORGET_NS:
            self._strangers, self._forgot_ns, fresh = set(), now_ns, True
        if fresh or now_ns - self._scanned_ns >= RESCAN_NS:
            self._members, self._of, self._scanned_ns = find_tree(pid, self.root, self._strangers), pid, now_ns
        return self._members

    def known_pids(self, fresh: bool = False) -> frozenset[int]:
        """The members' ids in every namespace that we can see; a worker in a container has several."""
        known: set[int] = set()
        for pid in self.members(fresh):
            known |= {pid, *_namespace_pids(self.root / "proc" / str(pid))}
        return frozenset(known)


def find_tree(pid: int, root: Path = ROOT, strangers: set[int] | None = None) -> tuple[int, ...]:
    """The tree's members in order. `strangers` are passed over, and those found are added to it. Without a /proc only `pid` is known."""
    strangers = set() if strangers is None else strangers
    candidates: set[int] = set()
    with contextlib.suppress(OSError):
        candidates = {int(name) for name in os.listdir(root / "proc") if name.isdigit()} - strangers
    parents: dict[int, int] = {}
    members = {pid}
    for candidate in candidates:
        if fields := stat_fields(read_text(root / f"proc/{candidate}/stat") or ""):
            parents[candidate] = int(fields[1])
            if int(fields[3]) == pid:
                members.add(candidate)
    while new := {child for child, parent in parents.items() if parent in members} - members:
        members |= new
    strangers |= candidates - members
    return tuple(sorted(members))


def stat_fields(stat: str) -> list[str] | None:
    """/proc/PID/stat from the state on: [0] state, [1] parent, [3] session, [9], [10] major faults, [11] to [14] CPU time.

    `None` for a process that has gone, whose text is empty.
    """
    fields = stat[stat.rfind(")") + 2 :].split()
    return fields if len(fields) > 14 else None


def _namespace_pids(path: Path) -> list[int]:
    for line in (read_text(path / "status") or "").splitlines():
        if line.startswith("NSpid:"):
            return [int(v) for v in line.split()[1:]]
    return []


def sees_all_processes(root: Path = ROOT) -> bool:
    """False inside a container with process ids of its own: a driver then names processes by ids that mean nothing here."""
    try:
        return str((root / "proc/self/ns/pid").readlink()) == FIRST_NAMESPACE
    except OSError:
        return False
