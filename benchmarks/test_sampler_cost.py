"""What the sampling costs: eight pretend GPUs and a process tree read ten times a second, in a process of its own.

For a minute: `SAMPLER_SECONDS=60 pytest -s benchmarks/test_sampler_cost.py`, on a quiet machine. The pretend driver answers at once, so
this is the cost of our own code; a real driver's calls come on top of it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = float(os.environ.get("SAMPLER_SECONDS", "10"))
LATEST_MS = 50.0
"""Half of the distance between two readings."""
PLAY = """
import json, os, sys, time
from hardware.base import WatchedProcess
from hardware.memory import MemoryMeter
from hardware.nvml import NvmlMeter
from hardware.processes import ProcessTree
from hardware.sampler import Sampler

watched = WatchedProcess()
watched.pid = os.getpid()
tree = ProcessTree(watched)
readings = []
meters = (NvmlMeter(tree), MemoryMeter(tree))
begun, used = time.monotonic(), time.process_time()
with Sampler(meters, readings.append):
    time.sleep(float(sys.argv[1]))
elapsed, used = time.monotonic() - begun, time.process_time() - used
late = sorted(r.late_ms for r in readings)
print(json.dumps({
    "devices": len({r.device for r in readings if r.meter == "nvml"}),
    "readings": len(readings),
    "share_of_one_core": used / elapsed,
    "late_ms_median": late[len(late) // 2],
    "late_ms_p99": late[int(0.99 * (len(late) - 1))],
    "late_ms_max": late[-1],
}))
"""


@pytest.fixture
def driver(tmp_path: Path) -> dict[str, str]:
    """Environment in which `libnvidia-ml.so.1` is the tests' stub with eight devices, a process on each."""
    source = ROOT / "tests" / "hardware" / "stub_nvml.c"
    command = [
        "cc",
        "-O1",
        "-shared",
        "-fPIC",
        "-Wl,-soname,libnvidia-ml.so.1",
        "-o",
        tmp_path / "libnvidia-ml.so.1",
        source,
    ]
    subprocess.run(command, check=True)
    lines = [
        "devices 8",
        *(f"power {i} 0 300000" for i in range(8)),
        *(f"process {i} 0 1e9 31337 1024" for i in range(8)),
    ]
    (tmp_path / "trace.txt").write_text("\n".join(lines) + "\n")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(tmp_path),
        "STUB_NVML_TRACE": str(tmp_path / "trace.txt"),
        "PYTHONPATH": str(ROOT),
    }


def test_eight_devices_at_ten_hertz_cost_at_most_two_percent_of_a_core(benchmark: Any, driver: dict[str, str]) -> None:
    def play() -> dict[str, float]:
        command = [sys.executable, "-c", PLAY, str(SECONDS)]
        done = subprocess.run(command, env=driver, capture_output=True, text=True, check=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    found = benchmark.pedantic(play, rounds=1, iterations=1)
    benchmark.extra_info.update(found)
    print(f"\n{found}")
    assert found["devices"] == 8
    assert found["readings"] >= 0.9 * 9 * 10 * SECONDS
    assert found["share_of_one_core"] <= 0.02
    assert found["late_ms_max"] <= LATEST_MS
