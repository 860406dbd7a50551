"""NVIDIA meter against a pretend driver that the real nvidia-ml-py loads: energy of eight H100s, and everything that can go wrong."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hardware.base import MeterInfo, Reading, SensorReport
from hardware.host import Gpu
from results.energy import counter_energy, integral_energy
from results.records import Tick
from results.series import Series

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EPOCH_NS = 10**12
WORKER = 4242

Trace = list[tuple[float, float]]
"""Time in ms, power in mW; straight lines between."""


class Played(msgspec.Struct):
    info: MeterInfo
    readings: list[Reading]
    gpus: list[Gpu]
    drivers: dict[str, str]
    report: SensorReport

    def of(self, device: str) -> list[Reading]:
        return [r for r in self.readings if r.device == device]

    def series(self) -> Series:
        return Series(Tick(**msgspec.structs.asdict(r)) for r in self.readings)


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub as `libnvidia-ml.so.1`, compiled once."""
    folder = tmp_path_factory.mktemp("nvml")
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([*command, "-o", folder / "libnvidia-ml.so.1", HERE / "stub_nvml.c"], check=True)
    return folder


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with the worker and its child, of the machine's own process namespace."""
    return make_proc(tmp_path / "root", "pid:[4026531836]")


def make_proc(root: Path, namespace: str) -> Path:
    for pid, parent in ((WORKER, 1), (WORKER + 1, WORKER)):
        folder = root / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "stat").write_text(f"{pid} (python) S {parent} {pid} {WORKER} " + "0 " * 40)
        (folder / "status").write_text(f"Name:\tpython\nNSpid:\t{pid}\t{pid - 4000}\n")
    (root / "proc/self/ns").mkdir(parents=True)
    (root / "proc/self/ns/pid").symlink_to(namespace)
    return root


@pytest.fixture
def play(stub_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    def start(
        trace: list[str],
        root: Path,
        seconds: float = 20,
        step_ms: float = 100,
        worker_from: float | None = 5,
        *uuids: str,
    ) -> Any:
        path = tmp_path / "trace.txt"
        path.write_text("\n".join(trace) + "\n")
        worker = ["0", "0"] if worker_from is None else [str(WORKER), str(worker_from)]
        done = subprocess.run(
            [sys.executable, HERE / "play_trace.py", str(seconds), str(step_ms), *worker, str(root), *uuids],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(stub_folder),
                "STUB_NVML_TRACE": str(path),
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def read(*args: Any, **more: Any) -> Played:
        return msgspec.json.decode(start(*args, **more), type=Played)

    read.raw = start  # type: ignore[attr-defined]
    return read


def curve(device: int, points: Trace) -> list[str]:
    return [f"power {device} {t} {mw}" for t, mw in points]


def flat(device: int, milliwatts: float = 300_000) -> list[str]:
    return curve(device, [(0, milliwatts), (100_000, milliwatts)])


def true_energy_j(points: Trace, start_ms: float, end_ms: float) -> float:
    """Exact integral of the straight pieces."""

    def at(t: float) -> float:
        for (t0, p0), (t1, p1) in itertools.pairwise(points):
            if t0 <= t <= t1:
                return p0 + (p1 - p0) * (t - t0) / (t1 - t0)
        raise ValueError(t)

    inner = [(t, p) for t, p in points if start_ms < t < end_ms]
    pieces = [(start_ms, at(start_ms)), *inner, (end_ms, at(end_ms))]
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(pieces)) / 1e6


def inference(device: int) -> Trace:
    """Idle at 70 to 90 W, then bursts of prefill at up to 650 W over a decode level, with ramps of 20 to 200 ms."""
    idle, decode, prefill = 70_000 + 3_000 * device, 380_000 + 10_000 * device, 650_000 - 5_000 * device
    points: Trace = [(0, idle), (5_000, idle)]
    t = 5_000.0
    while t < 66_000:
        points += [
            (t + 20, prefill),
            (t + 300 + 40 * device, prefill),
            (t + 500 + 40 * device, decode),
            (t + 2_900, decode),
        ]
        t += 3_000
        points.append((t, decode - 60_000))
    return [*points, (t + 200, idle), (t + 20_000, idle)]


def ns(ms: float) -> int:
    return EPOCH_NS + int(ms * 1e6)


def test_energy_of_eight_gpus_by_counter_and_by_integral(play: Callable[..., Played], proc: Path) -> None:
    traces = [inference(i) for i in range(8)]
    played = play(
        ["devices 8", *(line for i, points in enumerate(traces) for line in curve(i, points))], proc, seconds=80
    )
    series, start, end = played.series(), 5_530.0, 65_570.0
    true = sum(true_energy_j(points, start, end) for points in traces)
    counted = sampled = 0.0
    for device in played.info.devices:
        counter = counter_energy(series.column("nvml", device, "energy_j"), ns(start), ns(end), played.info.period_s)
        integral = integral_energy(series.column("nvml", device, "power_w"), ns(start), ns(end))
        assert counter.value_j is not None, counter.reason
        assert integral.value_j is not None, integral.reason
        counted += counter.value_j
        sampled += integral.value_j
    assert played.info.devices == tuple(f"gpu{i}" for i in range(8))
    assert (played.info.evidence, played.info.boundary, played.info.scope) == ("M3", "gpu", "GPU")
    assert counted == pytest.approx(true, rel=0.005)
    assert sampled == pytest.approx(true, rel=0.01)


def test_a_lost_device_gives_errors_and_the_others_go_on(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 2", *flat(0), *flat(1), "lost 1 4000 100000"], proc, seconds=8)
    after = [r for r in played.of("gpu1") if r.time_ns > ns(4100)]
    assert {(r.error, r.power_w, r.energy_j) for r in after} == {("GPU is lost", None, None)}
    assert all(r.error is None and r.power_w == 300.0 for r in played.of("gpu0"))


def test_a_device_lost_from_the_start_is_still_expected(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 2", *flat(0), *flat(1), "lost 1 0 100000"], proc, seconds=1)
    assert played.info.devices == ("gpu0", "gpu1")
    assert {r.error for r in played.of("gpu1")} == {"GPU is lost"}
    assert [gpu.name for gpu in played.gpus] == ["NVIDIA H100 80GB HBM3", "not answering: GPU is lost"]


def test_a_device_of_which_nothing_is_told_is_an_error(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 1", *flat(0), "nocounter 0", "nomemory 0", "zero 0 0 100000"], proc, seconds=1)
    assert {r.error for r in played.readings} == {"the driver tells nothing of it"}


def test_a_reset_and_a_frozen_counter_show_in_the_readings(play: Callable[..., Played], proc: Path) -> None:
    trace = ["devices 2", *flat(0), *flat(1), "reset 0 10000", "frozen 1 10000 16000"]
    series = play(trace, proc).series()
    reset = counter_energy(series.column("nvml", "gpu0", "energy_j"), ns(5000), ns(18000), 0.1)
    frozen = counter_energy(series.column("nvml", "gpu1", "energy_j"), ns(5000), ns(18000), 0.1)
    assert (reset.value_j, reset.reason) == (None, "counter went back: reset during the window")
    assert frozen.value_j is None
    assert "stood still" in frozen.reason
    for device in ("gpu0", "gpu1"):
        sampled = integral_energy(series.column("nvml", device, "power_w"), ns(5000), ns(18000))
        assert sampled.value_j == pytest.approx(300 * 13, rel=0.01)


def test_a_poll_that_reads_zero_is_no_reading(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 1", *flat(0), "zero 0 5000 5250"], proc, seconds=10)
    powers = [r.power_w for r in played.of("gpu0")]
    assert set(powers) == {300.0, None}
    assert powers.count(None) == 3
    sampled = integral_energy(played.series().column("nvml", "gpu0", "power_w"), ns(2000), ns(9000))
    assert sampled.value_j == pytest.approx(300 * 7, rel=0.001)


def test_throttling_is_recorded_as_the_driver_tells_it(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 1", *flat(0), "throttle 0 5000 6000 64"], proc, seconds=10)
    throttled = [r.time_ns for r in played.of("gpu0") if r.throttle == 0x40]
    assert len(throttled) == 10
    assert ns(5000) <= throttled[0] < throttled[-1] < ns(6000)


def test_our_memory_and_foreign_processes(play: Callable[..., Played], proc: Path) -> None:
    ours, child, stranger = 40 << 30, 8 << 30, 1 << 30
    trace = [
        "devices 1",
        *flat(0),
        f"process 0 6000 100000 {WORKER} {ours}",
        f"process 0 7000 100000 {WORKER + 1} {child}",
        f"process 0 9000 12000 31337 {stranger}",
    ]
    played = play(trace, proc, seconds=15)
    detail = {(r.time_ns - EPOCH_NS) // 10**8 * 100: r for r in played.readings if r.temperature_c is not None}
    seen = {ms: (r.memory_bytes, r.foreign_processes) for ms, r in detail.items()}
    assert seen[4000] == (None, 0)
    assert seen[8000] == (ours + child, 0)
    assert seen[10000] == (ours + child, 1)
    assert seen[14000] == (ours + child, 0)


def test_in_a_container_our_memory_is_the_devices_growth(play: Callable[..., Played], tmp_path: Path) -> None:
    root = make_proc(tmp_path / "inside", "pid:[4026532999]")
    trace = [
        "devices 2",
        *flat(0),
        *flat(1),
        f"process 0 6000 100000 777 {40 << 30}",
        f"process 1 0 100000 888 {1 << 30}",
    ]
    played = play(trace, root, seconds=10)
    last = {r.device: r for r in played.readings if r.temperature_c is not None}
    assert (last["gpu0"].memory_bytes, last["gpu0"].foreign_processes) == (40 << 30, None)
    assert (last["gpu1"].memory_bytes, last["gpu1"].foreign_processes) == (None, 1)
    assert "hidden by a container" in played.info.note


@pytest.mark.parametrize(
    "listed", [f"silent 0 6000 100000 {WORKER} {40 << 30}", f"unlisted 0 6000 100000 0 {40 << 30}"]
)
def test_in_a_container_that_tells_no_memory_or_nobody_it_is_not_zero(
    play: Callable[..., Played], tmp_path: Path, listed: str
) -> None:
    root = make_proc(tmp_path / "inside", "pid:[4026532999]")
    played = play(["devices 1", *flat(0), listed], root, seconds=10)
    details = [r for r in played.readings if r.temperature_c is not None]
    assert details[-1].memory_bytes == 40 << 30
    assert {r.foreign_processes for r in details} == {None}


def test_a_driver_that_knows_only_the_older_name_tells_throttling_too(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 1", *flat(0), "oldreasons 0", "throttle 0 500 900 8"], proc, seconds=1)
    assert {r.throttle for r in played.readings} == {0, 8}


@pytest.mark.parametrize(("kind", "why"), [("mig", "MIG is on"), ("vgpu", "a vGPU guest")])
def test_a_slice_is_given_no_power_of_the_board(play: Callable[..., Played], proc: Path, kind: str, why: str) -> None:
    played = play(["devices 2", *flat(0), *flat(1), f"{kind} 1"], proc, seconds=1)
    assert {(r.power_w, r.energy_j) for r in played.of("gpu1")} == {(None, None)}
    assert all(r.power_w == 300.0 and r.energy_j is not None for r in played.of("gpu0"))
    assert f"gpu1: {why}" in played.info.note


def test_module_scope_is_told(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 1", *flat(0), "module 0"], proc, seconds=1)
    assert played.info.scope == "MODULE"
    assert {r.power_w for r in played.readings} == {300.0}


def test_without_a_counter_the_class_is_sampled_power(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 1", *flat(0), "nocounter 0", "oldpower 0", "nomemory 0"], proc, seconds=1)
    assert (played.info.evidence, played.info.sensor_api) == ("M4", "nvml power")
    assert "as the driver averages it" in played.info.note
    assert {(r.power_w, r.energy_j, r.memory_used_bytes, r.memory_total_bytes) for r in played.readings} == {
        (300.0, None, None, None)
    }


def test_details_are_read_twice_a_second_and_the_rest_every_time(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 1", *flat(0)], proc, seconds=5)
    full = [r for r in played.readings if r.temperature_c is not None]
    assert len(played.readings) == 51
    assert len(full) == 11
    first = full[0]
    assert (first.temperature_c, first.memory_temperature_c, first.clock_mhz, first.memory_clock_mhz) == (
        55,
        61,
        1980,
        2619,
    )
    assert (first.utilisation_percent, first.power_limit_w, first.ecc_uncorrected) == (97, 700.0, 0)
    assert (first.memory_used_bytes, first.memory_total_bytes) == (500 << 20, 81559 << 20)


def test_gpus_are_chosen_by_uuid(play: Callable[..., Any], proc: Path) -> None:
    trace = ["devices 3", *flat(0), *flat(1), *flat(2)]
    raw = play.raw(trace, proc, 1, 100, None, "GPU-stub-0001")  # type: ignore[attr-defined]
    assert msgspec.json.decode(raw, type=Played).info.devices == ("gpu1",)
    assert msgspec.json.decode(play.raw(trace, proc, 1, 100, None, "GPU-none")) == {  # type: ignore[attr-defined]
        "error": "no GPU with UUID GPU-none"
    }


def test_the_inventory_names_what_a_result_depends_on(play: Callable[..., Played], proc: Path) -> None:
    played = play(["devices 1", *flat(0), "mig 0"], proc, seconds=1)
    assert played.drivers == {"nvidia": "570.00", "cuda": "12.8"}
    assert played.gpus == [
        Gpu(
            name="NVIDIA H100 80GB HBM3",
            uuid="GPU-stub-0000",
            memory_bytes=81559 << 20,
            memory_free_bytes=81059 << 20,
            power_limit_w=700.0,
            power_limit_default_w=700.0,
            settings={
                "vbios": "96.00.89.00.01",
                "ecc": "on",
                "mig": "on",
                "mig_layout": "GPU-stub-0000,GPU-stub-0001",
                "persistence": "on",
                "virtualisation": "0",
                "applications_clock_mhz": "1830",
                "pcie_generation_max": "5",
                "pcie_width": "16",
            },
        )
    ]
    assert played.report.usable
