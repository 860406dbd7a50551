"""Memory of a process tree, from a pretend /proc."""

import os
import subprocess
from pathlib import Path

import pytest

from hardware.base import WatchedProcess
from hardware.memory import MemoryMeter
from hardware.processes import ProcessTree, find_tree, sees_all_processes

TICK = os.sysconf("SC_CLK_TCK")
KIB = 1024


def process(
    root: Path,
    pid: int,
    parent: int,
    session: int,
    anon: int,
    file: int,
    faults: int = 0,
    ticks: int = 0,
    name: str = "python",
) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    # After the name: state ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime
    (folder / "stat").write_text(
        f"{pid} ({name}) S {parent} {pid} {session} 0 -1 0 7 7 {faults} 1 {ticks} {ticks} 3 4 20 0 1 0"
    )
    (folder / "status").write_text(
        f"Name:\t{name}\nRssAnon:\t{anon} kB\nRssFile:\t{file} kB\nRssShmem:\t4 kB\nVmSwap:\t2 kB\nNSpid:\t{pid}\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    process(tmp_path, 100, parent=1, session=100, anon=1000, file=500, faults=5, ticks=10)
    process(tmp_path, 101, parent=100, session=100, anon=200, file=300)
    process(tmp_path, 102, parent=101, session=102, anon=30, file=0)
    process(tmp_path, 103, parent=1, session=100, anon=7, file=0, name="odd) name (S 1")
    process(tmp_path, 200, parent=1, session=200, anon=9999, file=9999)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1000 kB\nMemAvailable:    400 kB\nHugePages_Total:   0\n")
    (tmp_path / "proc/loadavg").write_text("0.75 0.5 0.25 1/100 4242\n")
    (tmp_path / "proc/stat").write_text("cpu  100 0 0 100 0 0 0 0 0 0\n")
    return tmp_path


def test_the_tree_is_children_grandchildren_and_the_session(root: Path) -> None:
    assert find_tree(100, root) == (100, 101, 102, 103)


def test_the_tree_is_added_up(root: Path) -> None:
    watched = WatchedProcess()
    meter = MemoryMeter(ProcessTree(watched, root))
    watched.pid = 100
    (root / "proc/stat").write_text("cpu  105 0 0 115 0 0 0 0 0 0\n")
    (r,) = meter.read()
    assert (r.anon_bytes, r.file_bytes, r.shared_bytes) == (1237 * KIB, 800 * KIB, 16 * KIB)
    assert (r.swap_bytes, r.major_faults, r.processes) == (8 * KIB, 9, 4)
    assert r.cpu_seconds == pytest.approx((20 + 4 * 7) / TICK)
    assert (r.memory_total_bytes, r.memory_used_bytes) == (1000 * KIB, 600 * KIB)
    assert (r.host_cpu_percent, r.load_average, r.cgroup_peak_bytes) == (25.0, 0.75, None)


def test_without_a_worker_only_the_machine_is_read(root: Path) -> None:
    (r,) = MemoryMeter(ProcessTree(WatchedProcess(), root)).read()
    assert (r.anon_bytes, r.file_bytes, r.processes, r.cpu_seconds, r.swap_bytes) == (None,) * 5
    assert r.memory_used_bytes == 600 * KIB


def test_a_worker_that_has_gone_is_unknown_and_not_zero(root: Path) -> None:
    watched = WatchedProcess()
    watched.pid = 4000
    (r,) = MemoryMeter(ProcessTree(watched, root)).read()
    assert (r.anon_bytes, r.processes, r.error) == (None, None, None)


def test_a_child_that_ends_between_two_scans_is_left_out(root: Path) -> None:
    watched = WatchedProcess()
    watched.pid = 100
    meter = MemoryMeter(ProcessTree(watched, root))
    meter.read()
    for name in ("stat", "status"):
        (root / "proc/102" / name).write_text("")
    (r,) = meter.read()
    assert (r.processes, r.anon_bytes) == (3, 1207 * KIB)


def test_a_real_process_is_read_until_it_ends_and_its_files_are_closed() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        watched = WatchedProcess()
        watched.pid = child.pid
        meter = MemoryMeter(ProcessTree(watched))
        alive = meter.read()[0]
        child.kill()
        child.wait()
        gone = meter.read()[0]
    meter.close()
    assert (alive.processes, gone.processes, gone.anon_bytes, gone.error) == (1, None, None, None)
    assert alive.anon_bytes
    assert not [f for f in Path("/proc/self/fd").iterdir() if f"/proc/{child.pid}/" in os.path.realpath(f)]


def test_members_that_left_the_tree_leave_no_open_file(root: Path) -> None:
    watched = WatchedProcess()
    watched.pid = 100
    meter = MemoryMeter(ProcessTree(watched, root))
    meter.read()
    watched.pid = None
    meter.read()
    still_open = [os.path.realpath(f) for f in Path("/proc/self/fd").iterdir()]
    assert not [path for path in still_open if path.startswith(f"{root}/proc/10")]


def test_peak_of_the_control_group(root: Path) -> None:
    (root / "proc/100/cgroup").write_text("0::/job\n")
    folder = root / "sys/fs/cgroup/job"
    folder.mkdir(parents=True)
    (folder / "memory.peak").write_text("123456\n")
    watched = WatchedProcess()
    watched.pid = 100
    first = MemoryMeter(ProcessTree(watched, root)).read()[0]
    watched.pid = 200
    second = MemoryMeter(ProcessTree(watched, root)).read()[0]
    assert (first.cgroup_peak_bytes, second.cgroup_peak_bytes) == (123456, None)


def test_what_moves_slowly_is_read_twice_a_second_and_the_rest_every_time(root: Path) -> None:
    watched = WatchedProcess()
    watched.pid = 100
    meter = MemoryMeter(ProcessTree(watched, root))
    first, second = meter.read()[0], meter.read()[0]
    assert (first.load_average, first.memory_total_bytes) == (0.75, 1000 * KIB)
    assert (second.load_average, second.memory_total_bytes) == (None, None)
    assert (second.anon_bytes, second.processes) == (first.anon_bytes, 4)


def test_a_container_hides_other_processes(tmp_path: Path) -> None:
    assert not sees_all_processes(tmp_path)
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026532999]")
    assert not sees_all_processes(tmp_path)
