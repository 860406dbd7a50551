"""The model of processor power: worked examples, its range, and what a virtual machine does to it."""

from pathlib import Path

import pytest

from hardware.base import Reading
from hardware.catalog import architecture, catalog, cpu_facts, gpu_facts
from hardware.constant import ConstantMeter
from hardware.declared import DeclaredMeter, DeclaredOptions
from hardware.estimate import EstimateMeter, PowerModel, power_model, report
from hardware.machine import BusyShare, Cpu

GIB = 1 << 30


def stat(root: Path, busy: int, idle: int) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n")


def test_rated_power_of_a_known_processor() -> None:
    model = power_model(Cpu(model="Intel(R) Xeon(R) Platinum 8480+", sockets=1, cores=56, threads=112), virtual=False)
    assert model is not None
    assert model.at(0.5) == pytest.approx((130.2, 217.0, 303.8))
    assert model.boundary == "cpu_package"
    assert "1 x 350 W rated (Intel ARK" in model.note


def test_two_sockets_draw_twice() -> None:
    model = power_model(Cpu(model="AMD EPYC 9654 96-Core Processor", sockets=2, cores=192, threads=384), virtual=False)
    assert model is not None
    assert model.full_w == 720.0


def test_a_virtual_machine_is_given_its_share_of_the_cores_and_told_so() -> None:
    model = power_model(Cpu(model="AMD EPYC 7763 64-Core Processor", sockets=1, cores=16, threads=32), virtual=True)
    assert model is not None
    assert model.full_w == 70.0
    assert "scaled to the 25% of the cores that it sees" in model.note


def test_a_hidden_name_falls_back_to_the_architecture() -> None:
    cpu = Cpu(model="AMD EPYC", family=25, model_number=17, stepping=1, cores=2, threads=2)
    model = power_model(cpu, virtual=True)
    assert architecture(cpu) == "EPYC 4th Gen"
    assert model is not None
    assert model.at(1.0) == pytest.approx((2.7384, 4.564, 6.3896))
    assert model.boundary == "cpu+board"


def test_an_unknown_processor_has_a_wide_range() -> None:
    model = power_model(Cpu(model="Mystery 9000", threads=10), virtual=False)
    assert model is not None
    assert model.at(0.0) == pytest.approx((2.736, 7.3, 51.52))
    assert model.at(1.0) == pytest.approx((10.14, 37.2, 125.44))


def test_a_machine_that_tells_nothing_gets_no_estimate() -> None:
    assert power_model(Cpu(), virtual=True) is None


MODEL = PowerModel(
    idle_w=20,
    idle_low_w=12,
    idle_high_w=28,
    full_w=100,
    full_low_w=60,
    full_high_w=140,
    boundary="cpu_package",
    note="n",
)


def test_power_follows_the_busy_share_and_is_unknown_before_the_first(tmp_path: Path) -> None:
    stat(tmp_path, 1000, 1000)
    meter = EstimateMeter(MODEL, BusyShare(tmp_path).latest)

    def seen(reading: Reading) -> tuple[float | None, ...]:
        return reading.power_low_w, reading.power_w, reading.power_high_w, reading.utilisation_percent

    assert seen(meter.read()[0]) == (None, None, None, None)
    stat(tmp_path, 1005, 1015)
    assert seen(meter.read()[0]) == (24.0, 40.0, 56.0, 25.0)
    stat(tmp_path, 1008, 1015)  # too few ticks to say anything new
    assert seen(meter.read()[0]) == (24.0, 40.0, 56.0, 25.0)
    stat(tmp_path, 1025, 1015)
    assert seen(meter.read()[0]) == (60.0, 100.0, 140.0, 100.0)
    assert meter.describe().evidence == "E2"


def test_the_report_says_what_would_be_better() -> None:
    found = report()
    assert found.evidence == "E2"
    assert "~" in found.note
    assert "better: a wall meter" in found.note


@pytest.mark.parametrize(
    ("name", "memory_gib", "product"),
    [
        ("NVIDIA H100 80GB HBM3", 79.6, "NVIDIA H100 SXM 80GB"),
        ("NVIDIA H100 PCIe", 79.6, "NVIDIA H100 PCIe 80GB"),
        ("NVIDIA H200", 140.4, "NVIDIA H200 SXM 141GB"),
        ("NVIDIA H20", 95.6, "NVIDIA H20 96GB"),
        ("NVIDIA H20-3e", 140.4, "NVIDIA H20 141GB"),
        ("NVIDIA A100-SXM4-80GB", 80.0, "NVIDIA A100 SXM4 80GB"),
        ("NVIDIA A100 80GB PCIe", 80.0, "NVIDIA A100 PCIe 80GB"),
        ("NVIDIA A100-SXM4-40GB", 40.0, "NVIDIA A100 SXM4 40GB"),
        ("NVIDIA A100-PCIE-40GB", 40.0, "NVIDIA A100 PCIe 40GB"),
        ("NVIDIA GeForce RTX 4090", 24.0, "NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 3090", 24.0, "NVIDIA GeForce RTX 3090"),
        ("NVIDIA L40S", 45.0, "NVIDIA L40S"),
        ("NVIDIA L20", 45.0, "NVIDIA L20"),
        ("NVIDIA A40", 45.0, "NVIDIA A40"),
        ("Ascend 910B3", 64.0, "Huawei Ascend 910B 64GB"),
        ("AMD Instinct MI300X", 192.0, "AMD Instinct MI300X"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16.0, None),
        ("NVIDIA GeForce RTX 3090 Ti", 24.0, None),
        ("NVIDIA L4", 22.5, None),
        ("Ascend 910B4", 32.0, None),
        ("NVIDIA H200 NVL", 140.4, None),
    ],
)
def test_products_are_told_apart(name: str, memory_gib: float, product: str | None) -> None:
    found = gpu_facts(name, int(memory_gib * GIB))
    assert (found.name if found else None) == product


def test_every_fact_has_a_source_and_a_date() -> None:
    entries = (*catalog().gpus, *catalog().cpus, catalog().coefficients)
    assert all(e.source and len(e.date) == 10 for e in entries)


def test_a_processor_is_found_by_its_whole_name() -> None:
    rated = {
        "Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz": 205,
        "AMD EPYC 9654 96-Core Processor": 360,
        "AMD EPYC 9654P 96-Core Processor": 360,
        "Intel(R) Xeon(R) Platinum 8558P": 350,
    }
    assert {name: facts.tdp_w for name in rated if (facts := cpu_facts(name))} == rated
    assert cpu_facts("AMD EPYC") is None
    assert cpu_facts(None) is None


def test_declared_power_is_an_assumption() -> None:
    meter = DeclaredMeter(
        DeclaredOptions(power_w=6500, boundary="node_ac", source="datasheet", low_w=5000, high_w=8000)
    )
    (reading,) = meter.read()
    assert (reading.power_low_w, reading.power_w, reading.power_high_w) == (5000, 6500, 8000)
    assert (meter.describe().evidence, meter.describe().boundary) == ("E3", "node_ac")


def test_the_pretend_device_says_that_it_is_one() -> None:
    assert "pretend" in ConstantMeter().describe().note
