"""On a machine with an NVIDIA GPU: counter against integral, the draw at rest, throttling, memory against torch's own figure, and a 7B
model of random weights measured by the whole program.

    BEDSIDE_EVIDENCE=FOLDER python -m pytest -m gpu tests/hardware/test_gpu.py

About ten minutes. torch must be in this environment for what needs load or memory, transformers and accelerate for the model; without
them those tests are skipped. The figures and the run are kept in BEDSIDE_EVIDENCE, from which benchmarks/collect_evidence.py makes a folder
of docs/evidence. Nothing but this GPU's one process may compute on it.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hardware import Reading, Sampler, WatchedProcess, describe_host
from hardware.nvml import NvmlMeter
from hardware.processes import ProcessTree
from results.energy import counter_energy, integral_energy
from results.load import LoadedCell, load
from results.records import EngineState, Tick
from results.series import Series
from results.store import RunDir
from results.validity import judge_step
from results.validity.power import HW_POWER_BRAKE, HW_SLOWDOWN, HW_THERMAL

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
REST_S, LOAD_S = 30.0, 60.0
GIB = 1 << 30


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed here: {', '.join(missing)}")


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
SUITE = """
name = "gpu-evidence"
profile = "nightly"
idle_s = 20.0

[tasks.speed]
samples_per_item = 12
load = [{ concurrency = 8 }]

[[deployments]]
name = "r1-distill-qwen-7b-bf16"
backend = "transformers"
model = "synthetic:r1-distill-qwen-7b"
settings = { device = "cuda:0", dtype = "bfloat16", slots = 8, context = 2048 }
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where figures and the run are kept."""
    path = Path(os.environ.get("BEDSIDE_EVIDENCE") or tmp_path_factory.mktemp("evidence"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def note(folder: Path) -> Callable[[str, float, str], None]:
    """Write down a figure: what, how much, unit."""

    def write(what: str, value: float, unit: str) -> None:
        print(f"\n{what}: {value:.6g} {unit}")
        with (folder / "figures.jsonl").open("a") as file:
            file.write(json.dumps({"what": what, "value": value, "unit": unit}) + "\n")

    return write


Note = Callable[[str, float, str], None]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.communicate(timeout=60)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def sample(seconds: float) -> list[Reading]:
    got: list[Reading] = []
    with Sampler((NvmlMeter(ProcessTree(WatchedProcess())),), got.append):
        threading.Event().wait(seconds)
    return got


def watts(got: list[Reading]) -> dict[str, tuple[float, float]]:
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
    return found


def known(got: list[Reading], device: str, field: str) -> list[float]:
    return [v for r in got if r.device == device and (v := getattr(r, field)) is not None]


def test_the_host_names_its_gpus() -> None:
    host = describe_host()
    assert host.gpus
    assert all(gpu.uuid and gpu.memory_bytes for gpu in host.gpus)
    assert host.drivers["nvidia"]


def test_at_rest_counter_and_integral_agree_and_the_draw_is_plausible(note: Note) -> None:
    got = sample(REST_S)
    for device, (counter_w, integral_w) in watts(got).items():
        note(f"{device} at rest, by counter", counter_w, "W")
        note(f"{device} at rest, by integral", integral_w, "W")
        assert counter_w == pytest.approx(integral_w, rel=0.05, abs=1.0)
        assert 5.0 < counter_w < max(known(got, device, "power_limit_w"), default=1500.0)
    note("readings late, median", statistics.median(r.late_ms or 0.0 for r in got), "ms")
    note("readings late, most", max(r.late_ms or 0.0 for r in got), "ms")


@needs("torch")
def test_under_load_counter_and_integral_agree_and_nothing_slows_the_clocks(start: Start, note: Note) -> None:
    process = start(LOAD, str(LOAD_S + 4))
    assert said(process) == "ready"
    time.sleep(1.0)
    got = sample(LOAD_S + 2)
    found = watts(got)
    device = max(found, key=lambda name: found[name])
    counter_w, integral_w = found[device]
    masks = [int(m) for m in known(got, device, "throttle")]
    note(f"{device} under load for {LOAD_S:g} s, by counter", counter_w, "W")
    note(f"{device} under load for {LOAD_S:g} s, by integral", integral_w, "W")
    note(f"{device} counter against integral", 100 * (integral_w / counter_w - 1), "%")
    note(f"{device} hottest", max(known(got, device, "temperature_c")), "C")
    note(f"{device} clocks held down by the power cap", 100 * sum(bool(m & 0x4) for m in masks) / len(masks), "%")
    assert counter_w == pytest.approx(integral_w, rel=0.05)
    assert not any(m & (HW_SLOWDOWN | HW_THERMAL | HW_POWER_BRAKE) for m in masks)
    strangers = known(got, device, "foreign_processes")  # none where a container hides them
    assert not strangers or max(strangers) >= 1


@needs("torch")
def test_memory_of_our_process_agrees_with_torch(start: Start, note: Note) -> None:
    """By the rise of the boards' use always, by the driver's list of processes where it tells."""
    watched = WatchedProcess()
    meter = NvmlMeter(ProcessTree(watched))
    meter.read()
    process = start(HOLD)

    def now() -> tuple[int, int | None]:
        time.sleep(0.6)  # details are read twice a second
        readings = meter.read()
        told = [r.memory_bytes for r in readings]
        return sum(r.memory_used_bytes or 0 for r in readings), None if None in told else sum(b or 0 for b in told)

    assert said(process) == "context"
    watched.pid = process.pid
    used, ours = now()
    tell(process)
    reserved = int(said(process))
    used_after, ours_after = now()
    tell(process)
    meter.close()
    note("torch reserved", reserved / GIB, "GiB")
    note("rise of the boards' use", (used_after - used) / GIB, "GiB")
    assert used_after - used == pytest.approx(reserved, rel=0.02, abs=64 << 20)
    if ours is None or ours_after is None:
        return
    note("our processes before the tensor", ours / GIB, "GiB")
    note("our processes with the tensor", ours_after / GIB, "GiB")
    assert ours > 0
    assert ours_after - ours == pytest.approx(reserved, rel=0.02, abs=64 << 20)


@pytest.fixture(scope="session")
def measured(folder: Path) -> LoadedCell:
    """The 7B model of random weights, run as a user runs a suite."""
    (folder / "gpu-evidence.toml").write_text(SUITE)
    command = [sys.executable, str(ROOT / "run_bench.py"), "run", str(folder / "gpu-evidence.toml")]
    done = subprocess.run([*command, "--out", str(folder / "runs")], cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    run = RunDir(sorted((folder / "runs").glob("*_gpu-evidence"))[-1])
    (cell,) = load(run, run.manifest())
    return cell


@needs("torch", "transformers", "accelerate")
def test_a_run_of_a_7b_model_has_energy_of_a_minute_and_more(measured: LoadedCell, note: Note) -> None:
    (row,) = measured.rows
    rules = {f.rule: f for f in judge_step(measured.views[0])}
    note("run: steady state", row.steady_seconds or 0.0, "s")
    note("run: output tokens per second, steady", row.steady_output_tokens_per_s or 0.0, "1/s")
    note("run: energy per output token, steady", row.steady_energy_per_output_token_j or 0.0, "J")
    note("run: mean power", row.mean_power_w or 0.0, "W")
    note("run: at rest before", row.idle_power_w or 0.0, "W")
    note("run: loaded and at rest", row.idle_loaded_power_w or 0.0, "W")
    print("reasons:", row.reasons, row.energy_reasons, row.warnings)
    assert (row.outcome, row.power_class) == ("ok", "M3")
    assert (row.device or "").startswith("cuda:0")
    assert row.steady_seconds is not None
    assert row.steady_seconds >= 60
    assert row.steady_energy_per_output_token_j is not None
    assert 0 < row.steady_energy_per_output_token_j < 100
    assert {name: rules[name].verdict for name in ("D1", "D2", "D3", "D4", "D5", "D6", "D11", "C11")} == dict.fromkeys(
        ("D1", "D2", "D3", "D4", "D5", "D6", "D11", "C11"), "pass"
    )


@needs("torch", "transformers", "accelerate")
def test_the_runs_memory_is_torchs_and_the_context(measured: LoadedCell, note: Note) -> None:
    (row,), step = measured.rows, measured.views[0].step
    peak = max(s.memory["peak_reserved"] for s in step.states if isinstance(s, EngineState) and s.memory)
    assert row.vram_reserved_bytes is not None
    note("run: our processes at the peak", row.vram_reserved_bytes / GIB, "GiB")
    note("run: torch's peak of reserved memory", peak / GIB, "GiB")
    note("run: needed at this load", (row.vram_needed_bytes or 0) / GIB, "GiB")
    note("run: foreseen", (row.predicted_memory_bytes or 0) / GIB, "GiB")
    assert 0 <= row.vram_reserved_bytes - peak < 3 * GIB
    assert row.vram_needed_bytes is not None
    assert row.weight_bytes is not None
    assert row.weight_bytes < row.vram_needed_bytes <= row.vram_reserved_bytes
