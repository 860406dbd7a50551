"""Processor counters on a pretend sysfs: what is counted once, what is left out, the wrap, and who may read."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardware.rapl import RaplError, RaplMeter, report


def zone(root: Path, path: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850) -> Path:
    folder = root / "sys/class/powercap" / path
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def two_sockets(root: Path) -> Path:
    """Two packages with core, uncore and dram, psys over both, and the packages again through MMIO, as on a Xeon."""
    base = root / "sys/class/powercap"
    for socket in (0, 1):
        parent = f"intel-rapl:{socket}"
        zone(root, parent, f"package-{socket}", 1_000_000 * (socket + 1))
        for part, name in enumerate(("core", "uncore", "dram")):
            zone(root, f"{parent}/{parent}:{part}", name, 500_000 + part)
            (base / f"{parent}:{part}").symlink_to(base / parent / f"{parent}:{part}")
        zone(root, f"intel-rapl-mmio:{socket}", f"package-{socket}", 7_000_000)
    zone(root, "intel-rapl:2", "psys", 99_000_000)
    return root


def test_packages_and_memory_count_once(tmp_path: Path) -> None:
    meter = RaplMeter(two_sockets(tmp_path))
    info = meter.describe()
    assert [(r.device, r.energy_j) for r in meter.read()] == [
        ("package-0", 1.0),
        ("package-0/dram", 0.500002),
        ("package-1", 2.0),
        ("package-1/dram", 0.500002),
    ]
    assert (info.evidence, info.boundary) == ("M3", "cpu_package+dram")


def test_dies_of_one_socket_are_all_counted(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0-die-0", 1_000_000)
    zone(tmp_path, "intel-rapl:1", "package-0-die-1", 3_000_000)
    meter = RaplMeter(tmp_path)
    assert [(r.device, r.energy_j) for r in meter.read()] == [("package-0-die-0", 1.0), ("package-0-die-1", 3.0)]
    assert meter.describe().boundary == "cpu_package"


def test_only_mmio_is_better_than_nothing(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 7_000_000)
    assert [r.energy_j for r in RaplMeter(tmp_path).read()] == [7.0]


def test_the_counter_is_unrolled_over_its_wraps(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 65_000_000, range_uj=65_532_610)
    meter, seen = RaplMeter(tmp_path), []
    for energy_uj in (65_000_000, 65_500_000, 100_000, 60_000_000, 1_000_000):
        (folder / "energy_uj").write_text(f"{energy_uj}\n")
        seen.append(meter.read()[0].energy_j)
    assert seen == [65.0, 65.5, 65.63261, 125.53261, 132.06522]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 60_000_000), min_size=1, max_size=30), st.integers(0, 65_532_609))
def test_any_steps_add_up_over_the_wraps(steps_uj: list[int], start_uj: int) -> None:
    """A reading each 0.1 s of up to 600 W, from anywhere in the counter's range."""
    with tempfile.TemporaryDirectory() as folder:
        path = zone(Path(folder), "intel-rapl:0", "package-0", start_uj, range_uj=65_532_610)
        times = itertools.count(0, 100_000_000)
        meter = RaplMeter(Path(folder), clock=lambda: next(times))
        seen, now_uj = [meter.read()[0].energy_j], start_uj
        for step_uj in steps_uj:
            now_uj = (now_uj + step_uj) % 65_532_610
            (path / "energy_uj").write_text(f"{now_uj}\n")
            seen.append(meter.read()[0].energy_j)
    moved = [b - a for a, b in itertools.pairwise(e for e in seen if e is not None)]
    assert moved == pytest.approx([s / 1e6 for s in steps_uj], abs=1e-6)


def test_a_counter_that_was_reset_is_not_taken_for_one_that_came_round(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 40_000_000_000)
    times = itertools.count(0, 100_000_000)
    meter, seen = RaplMeter(tmp_path, clock=lambda: next(times)), []
    for energy_uj in (40_000_000_000, 40_020_000_000, 0, 20_000_000):
        (folder / "energy_uj").write_text(f"{energy_uj}\n")
        seen.append(meter.read()[0].energy_j)
    assert seen == [40_000.0, 40_020.0, 0.0, 20.0]


def test_a_counter_that_vanishes_is_an_error_reading(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    meter = RaplMeter(tmp_path)
    (folder / "energy_uj").unlink()
    (reading,) = meter.read()
    assert (reading.device, reading.energy_j) == ("package-0", None)
    assert "No such file" in (reading.error or "")


@contextlib.contextmanager
def ordinary_user(folder: Path) -> Iterator[None]:
    """Root reads everything, so root becomes user 65534 for a moment; `folder` is made reachable for it."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.parents[:2], *(p for p in folder.rglob("*") if p.is_dir())):
        path.chmod(path.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable_counters_are_explained_and_nobody_is_told_to_open_them(tmp_path: Path) -> None:
    (zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000) / "energy_uj").chmod(0o400 if os.geteuid() == 0 else 0o000)
    with ordinary_user(tmp_path):
        with pytest.raises(RaplError, match="energy_uj may not be read"):
            RaplMeter(tmp_path)
        found = report(tmp_path)
    assert not found.usable
    assert "group" in found.note
    assert "chmod" not in found.note


def test_a_machine_without_counters_is_told_so(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert (found.usable, found.note) == (
        False,
        "no RAPL counters under /sys/class/powercap (a virtual machine never has them)",
    )
