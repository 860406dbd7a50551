"""On a machine with an NVIDIA GPU: counter against integral, the draw at rest, and memory against the framework's own figure.

`pytest -m gpu tests/hardware`. What needs load or memory needs torch in this environment and is skipped without it.
"""

import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from hardware import Reading, Sampler, WatchedProcess, describe_host
from hardware.nvml import NvmlMeter
from hardware.processes import ProcessTree
from results.energy import counter_energy, integral_energy
from results.records import Tick
from results.series import Series

pytestmark = pytest.mark.gpu

WINDOW_S = 20.0
GIB = 1 << 30
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed here")

LOAD = """
import sys, time, torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
torch.cuda.synchronize()
print("ready", flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
"""
HOLD = """
import sys, torch
torch.zeros(1, device="cuda")
torch.cuda.synchronize()
print("context", flush=True)
sys.stdin.readline()
a = torch.zeros(2 << 30, dtype=torch.uint8, device="cuda")
torch.cuda.synchronize()
print(torch.cuda.memory_reserved(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def worker() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.communicate(timeout=60)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def sample(watched: WatchedProcess, seconds: float) -> tuple[list[Reading], NvmlMeter]:
    got: list[Reading] = []
    meter = NvmlMeter(ProcessTree(watched))
    with Sampler((meter,), got.append):
        threading.Event().wait(seconds)
    return got, meter


def compare(got: list[Reading]) -> dict[str, tuple[float, float]]:
    """Mean watts by counter and by integral of each device, over the readings but their first and last second."""
    series = Series(Tick(**{f: getattr(r, f) for f in r.__struct_fields__}) for r in got)
    start_ns, end_ns = got[0].time_ns + 10**9, got[-1].time_ns - 10**9
    seconds, found = (end_ns - start_ns) / 1e9, {}
    for device in series.devices("nvml"):
        counter = counter_energy(series.column("nvml", device, "energy_j"), start_ns, end_ns, 0.1)
        integral = integral_energy(series.column("nvml", device, "power_w"), start_ns, end_ns)
        assert counter.value_j is not None, counter.reason
        assert integral.value_j is not None, integral.reason
        found[device] = (counter.value_j / seconds, integral.value_j / seconds)
        print(f"\n{device}: counter {found[device][0]:.2f} W, integral {found[device][1]:.2f} W")
    return found


def test_at_rest_counter_and_integral_agree_and_the_draw_is_plausible() -> None:
    got, _ = sample(WatchedProcess(), WINDOW_S)
    limits = {r.device: r.power_limit_w for r in got if r.power_limit_w is not None}
    for device, (counter_w, integral_w) in compare(got).items():
        assert counter_w == pytest.approx(integral_w, rel=0.05, abs=1.0)
        assert 5.0 < counter_w < limits[device]
    print("latest reading", max((r.late_ms or 0.0) for r in got), "ms late")


@needs_torch
def test_under_load_counter_and_integral_agree(worker: Callable[..., subprocess.Popen[str]]) -> None:
    process = worker(LOAD, str(WINDOW_S + 5))
    assert said(process) == "ready"
    time.sleep(1.0)
    got, _ = sample(WatchedProcess(), WINDOW_S)
    counter_w, integral_w = max(compare(got).values())
    assert counter_w == pytest.approx(integral_w, rel=0.05)
    assert any(r.foreign_processes for r in got)


@needs_torch
def test_memory_of_our_process_agrees_with_torch(worker: Callable[..., subprocess.Popen[str]]) -> None:
    watched = WatchedProcess()
    tree = ProcessTree(watched)
    meter = NvmlMeter(tree)
    meter.read()
    process = worker(HOLD)
    assert said(process) == "context"
    watched.pid = process.pid

    def ours() -> int:
        time.sleep(0.6)  # details are read twice a second
        return sum(r.memory_bytes or 0 for r in meter.read())

    context = ours()
    tell(process)
    reserved = int(said(process))
    held = ours()
    tell(process)
    meter.close()
    print(f"\ncontext {context / GIB:.3f} GiB, torch reserved {reserved / GIB:.3f} GiB, ours {held / GIB:.3f} GiB")
    assert held - context == pytest.approx(reserved, rel=0.02, abs=64 << 20)
    assert 50 << 20 < context < 4 * GIB


def test_the_host_names_its_gpus() -> None:
    host = describe_host()
    assert host.gpus
    assert all(gpu.uuid and gpu.memory_bytes for gpu in host.gpus)
    assert host.drivers["nvidia"]
