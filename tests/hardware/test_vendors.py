"""AMD, Ascend and Intel meters on recorded outputs (sources beside the data) and a copied sysfs."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardware import amd, ascend, xpu
from hardware.base import Reading, WatchedProcess
from hardware.host import Gpu
from hardware.processes import ProcessTree

DATA = Path(__file__).parent / "data"
GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture
def tree(tmp_path: Path) -> ProcessTree:
    """Process 4242 is ours; ids mean the same to drivers and to us."""
    folder = tmp_path / "proc/4242"
    folder.mkdir(parents=True)
    (folder / "stat").write_text("4242 (python) S 1 4242 4242 " + "0 " * 40)
    (folder / "status").write_text("NSpid:\t4242\n")
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    watched = WatchedProcess()
    watched.pid = 4242
    return ProcessTree(watched, tmp_path)


class AmdSmi:
    """Plays the amdsmi library from a record. The counter runs at `watts` since it was made; None: it stands still."""

    class AmdSmiException(Exception): ...

    AmdSmiTemperatureType = SimpleNamespace(HOTSPOT="hotspot", VRAM="memory")
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT="current")
    __version__ = "26.0.2"

    def __init__(self, devices: list[dict[str, Any]], watts: float | None, processes: list[dict[str, Any]]) -> None:
        self._devices, self._watts, self._processes = devices, watts, processes
        self._start_s = time.monotonic()
        self.closed = 0

    def amdsmi_get_processor_handles(self) -> list[int]:
        return list(range(len(self._devices)))

    def amdsmi_get_gpu_asic_info(self, handle: int) -> dict[str, Any]:
        return {"market_name": self._devices[handle]["market_name"]}

    def amdsmi_get_gpu_device_uuid(self, handle: int) -> str:
        return str(self._devices[handle]["uuid"])

    def amdsmi_get_gpu_device_bdf(self, handle: int) -> str:
        return str(self._devices[handle]["bdf"])

    def amdsmi_get_power_info(self, handle: int) -> dict[str, Any]:
        return dict(self._devices[handle]["power"])

    def amdsmi_get_energy_count(self, handle: int) -> dict[str, Any]:
        device = self._devices[handle]
        start, resolution = device["energy_accumulator"], device["counter_resolution"]
        since = (
            0.0
            if self._watts is None or not start
            else (time.monotonic() - self._start_s) * self._watts * 1e6 / resolution
        )
        return {"energy_accumulator": start + int(since), "counter_resolution": resolution, "timestamp": 0}

    def amdsmi_get_gpu_vram_usage(self, handle: int) -> dict[str, Any]:
        return dict(self._devices[handle]["vram"])

    def amdsmi_get_gpu_activity(self, handle: int) -> dict[str, Any]:
        return dict(self._devices[handle]["activity"])

    def amdsmi_get_temp_metric(self, handle: int, place: str, metric: str) -> Any:
        assert metric == "current"
        return self._devices[handle][place]

    def amdsmi_get_gpu_process_list(self, handle: int) -> list[dict[str, Any]]:
        if not self._processes:
            raise self.AmdSmiException("not supported")
        return self._processes if handle == 0 else []

    def amdsmi_shut_down(self) -> None:
        self.closed += 1


def recorded(name: str) -> list[dict[str, Any]]:
    devices: list[dict[str, Any]] = json.loads((DATA / "amdsmi.json").read_text())[name]
    return devices


def test_mi300x_counts_energy_and_tells_whose_memory_it_is(tree: ProcessTree) -> None:
    processes = [
        {"pid": 4242, "name": "python", "memory_usage": {"vram_mem": 170 * GIB}},
        {"pid": 31337, "name": "other", "memory_usage": {"vram_mem": GIB}},
        {"pid": 9, "name": "bystander", "memory_usage": {"vram_mem": 0}},
    ]
    meter = amd.AmdMeter(tree, AmdSmi(recorded("mi300x"), 287.0, processes), self_test_s=0.02)
    info, (reading,) = meter.describe(), meter.read()
    assert (info.evidence, info.sensor_api, info.devices) == ("M3", "amdsmi energy", ("gpu0",))
    assert reading.energy_j == pytest.approx(41797534008632 * 15.3 / 1e6, rel=1e-4)
    assert (reading.power_w, reading.temperature_c, reading.memory_temperature_c) == (287.0, 67.0, 49.0)
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (175169 * MIB, 196592 * MIB)
    assert (reading.memory_bytes, reading.foreign_processes, reading.utilisation_percent) == (170 * GIB, 1, 47.0)


def test_the_two_dies_of_an_mi250_are_one_package(tree: ProcessTree) -> None:
    meter = amd.AmdMeter(tree, AmdSmi(recorded("mi250"), 94.0, []), self_test_s=0.02)
    (reading,) = meter.read()
    assert meter.describe().devices == ("gpu0+1",)
    assert reading.power_w == 94.0
    assert (reading.temperature_c, reading.memory_temperature_c) == (42.0, 40.0)
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (300 * MIB, 131040 * MIB)
    assert (reading.memory_bytes, reading.foreign_processes) == (None, None)


@pytest.mark.parametrize("watts", [None, 28.7, 2870.0])
def test_a_counter_that_disagrees_with_the_power_is_not_used(tree: ProcessTree, watts: float | None) -> None:
    meter = amd.AmdMeter(tree, AmdSmi(recorded("mi300x"), watts, []), self_test_s=0.02)
    (reading,) = meter.read()
    assert meter.describe().evidence == "M4"
    assert (reading.energy_j, reading.power_w) == (None, 287.0)


@pytest.mark.parametrize("value", ["N/A", None, True, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF])
def test_what_amdsmi_does_not_tell_is_none(value: Any) -> None:
    assert amd.number(value) is None


def test_closing_twice_shuts_the_library_down_once(tree: ProcessTree) -> None:
    library = AmdSmi(recorded("mi300x"), None, [])
    meter = amd.AmdMeter(tree, library, self_test_s=0.0)
    meter.close()
    meter.close()
    assert library.closed == 1


def test_amd_gpus_are_listed() -> None:
    assert amd.list_gpus(AmdSmi(recorded("mi300x"), None, [])) == [
        Gpu(
            name="AMD Instinct MI300X",
            vendor="amd",
            uuid="06ff74a1-0000-1000-806c-000000000000",
            memory_bytes=196592 * MIB,
            memory_free_bytes=21423 * MIB,
            settings={"pci": "0000:05:00.0"},
        )
    ]


@pytest.fixture
def npu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program `npu-smi` that prints a recorded output; other text makes it fail with that text."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def say(name: str) -> None:
        recording = DATA / name
        text = (
            f'#!/bin/sh\n[ "$*" = info ] && cat {recording}\n'
            if recording.exists()
            else f"#!/bin/sh\necho {name} >&2; exit 1\n"
        )
        (folder / "npu-smi").write_text(text)
        (folder / "npu-smi").chmod(0o755)

    return say


def values(readings: tuple[Reading, ...]) -> list[tuple[Any, ...]]:
    return [
        (r.device, r.power_w, r.temperature_c, r.memory_used_bytes, r.memory_total_bytes, r.error) for r in readings
    ]


def test_ascend_cards_with_our_process_and_a_strangers(tree: ProcessTree, npu_smi: Callable[[str], None]) -> None:
    npu_smi("npu_smi_910b3.txt")
    meter = ascend.AscendMeter(tree)
    readings = meter.read()
    assert values(readings) == [
        ("npu0", 101.8, 43.0, 3318 * MIB, 64 * GIB, None),
        ("npu1", 92.0, 39.0, 3314 * MIB, 64 * GIB, None),
        ("npu2", 102.0, 40.0, 3314 * MIB, 64 * GIB, None),
    ]
    assert [(r.memory_bytes, r.foreign_processes) for r in readings] == [(3000 * MIB, 0), (0, 1), (0, 0)]
    info = meter.describe()
    assert (info.evidence, info.boundary, info.period_s) == ("M4", "gpu", 1.0)


def test_ascend_chip_without_a_power_of_its_own(tree: ProcessTree, npu_smi: Callable[[str], None]) -> None:
    npu_smi("npu_smi_910c.txt")
    assert values(ascend.AscendMeter(tree).read()) == [
        ("npu2", 163.1, 40.0, 2909 * MIB, 64 * GIB, None),
        ("npu2.1", None, 41.0, 2882 * MIB, 64 * GIB, None),
    ]


def test_ascend_driver_that_stops_answering(tree: ProcessTree, npu_smi: Callable[[str], None]) -> None:
    npu_smi("npu_smi_910prob_busy.txt")
    meter = ascend.AscendMeter(tree)
    npu_smi("dcmi module initialize failed")
    assert values(meter.read()) == [("npu0", None, None, None, None, "npu-smi failed: dcmi module initialize failed")]


def test_ascend_cards_are_listed(npu_smi: Callable[[str], None]) -> None:
    npu_smi("npu_smi_910b3.txt")
    gpus, drivers = ascend.inventory()
    assert drivers == {"npu-smi": "24.1.rc1.b030"}
    assert [gpu.name for gpu in gpus] == ["Ascend 910B3"] * 3
    assert (gpus[0].memory_bytes, gpus[0].memory_free_bytes) == (64 * GIB, 64 * GIB - 3318 * MIB)


def test_no_npu_smi_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ascend.AscendError, match="npu-smi was not found"):
        ascend.run_npu_smi()


def hwmon(root: Path, index: int, **files: int | str) -> Path:
    folder = root / f"sys/class/hwmon/hwmon{index}"
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def test_intel_card_counter_limit_and_temperatures(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, name="coretemp", temp1_input=40000)
    folder = hwmon(
        tmp_path,
        1,
        name="xe",
        energy1_input=5_000_000_000,
        energy2_input=3_000_000_000,
        power1_max=275_000_000,
        temp2_input=52000,
        temp3_input=60000,
    )
    meter = xpu.XpuMeter(tmp_path)
    (reading,) = meter.read()
    assert meter.describe().note == "energy of the card"
    assert (reading.device, reading.energy_j, reading.power_limit_w) == ("gpu0", 5000.0, 275.0)
    assert (reading.temperature_c, reading.memory_temperature_c, reading.power_w) == (52.0, 60.0, None)
    (folder / "energy1_input").unlink()
    assert meter.read()[0].error == "energy1_input cannot be read"


def test_older_intel_part_counts_only_its_package(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, name="xe", energy2_input=1_000_000)
    meter = xpu.XpuMeter(tmp_path)
    assert meter.read()[0].energy_j == 1.0
    assert "package only" in meter.describe().note


def test_no_intel_gpu_is_said(tmp_path: Path) -> None:
    assert xpu.report(tmp_path).note == "no Intel GPU with a hardware monitor (drivers xe, i915)"
