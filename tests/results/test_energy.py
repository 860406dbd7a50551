"""Energy of a window of time."""

from typing import Any

import numpy as np
import pytest
from made_records import CPU_METER, GPU_METER, GUESS, PROCESS, S, ticks
from msgspec import structs

from results.energy import (
    Energy,
    Part,
    counter_energy,
    covers,
    cross_check,
    integral_energy,
    like,
    longest_still_s,
    mean_power,
    where_of,
    window_energy,
)
from results.records import MeterInfo, Telemetry
from results.series import Column, Series


def column(points: list[tuple[float, float]]) -> Column:
    """Points as (seconds, value), counted from a machine that has been up for eleven days."""
    boot = 10**15
    return Column(
        np.array([boot + round(t * S) for t, _ in points], dtype=np.int64),
        np.array([v for _, v in points], dtype=float),
    )


def window(start_s: float, end_s: float) -> tuple[int, int]:
    return 10**15 + round(start_s * S), 10**15 + round(end_s * S)


def test_counter_difference_is_interpolated_at_both_edges() -> None:
    counter = column([(0, 100), (1, 200), (2, 300), (3, 500)])
    assert counter_energy(counter, *window(0.5, 2.5)) == Part(value_j=pytest.approx(250.0))


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([(0, 500), (1, 600), (2, 10), (3, 20)], "counter went back: reset during the window"),
        ([(0, 500), (1, 500), (2, 500), (3, 500), (4, 500)], "counter stood still for 4.0 s"),
        ([(0, 500), (1, 600), (2, 600), (3, 600), (4, 600), (5, 600), (6, 700)], "counter stood still for 5.0 s"),
        ([(0, 500), (1, 600), (5, 900)], "counter: not read for 4.0 s"),
        ([(1, 500), (2, 600), (3, 700)], "counter: readings do not bracket the window"),
        ([], "counter: never read"),
    ],
)
def test_a_counter_that_cannot_be_trusted_gives_nothing_and_the_reason(
    points: list[tuple[float, float]], reason: str
) -> None:
    end = points[-1][0] - 0.5 if points else 1.0
    assert counter_energy(column(points), *window(0.5, end)) == Part(value_j=None, reason=reason)


def test_a_slow_counter_may_stand_still_between_its_updates() -> None:
    slow = column([(t, 100.0 * (t // 5)) for t in range(61)])
    assert counter_energy(slow, *window(5, 55), period_s=5).value_j == pytest.approx(1000.0)
    assert counter_energy(slow, *window(5, 55)).value_j is None


def test_longest_standstill() -> None:
    assert longest_still_s(column([(0, 1), (1, 2), (2, 2), (3, 2), (4, 3)])) == 3.0
    assert longest_still_s(column([(0, 1)])) == 0.0


def test_power_is_integrated_with_interpolation_at_both_edges() -> None:
    # from 0.5 s (15 W) over 1 s (20 W) to 2 s (20 W) and 2.5 s (25 W)
    power = column([(0, 10), (1, 20), (2, 20), (3, 30)])
    assert integral_energy(power, *window(0.5, 2.5)) == Part(value_j=pytest.approx(8.75 + 20 + 11.25))


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([(0.6, 10), (1, 20), (3, 20)], "power: readings do not bracket the window"),
        ([(0, 10), (1, 20), (2, 20)], "power: readings do not bracket the window"),
        ([(0, 10), (4, 20)], "power: not read for 4.0 s"),
    ],
)
def test_power_that_does_not_cover_the_window_gives_nothing(points: list[tuple[float, float]], reason: str) -> None:
    assert integral_energy(column(points), *window(0.5, 2.5)) == Part(value_j=None, reason=reason)


def energy(records: list[Telemetry], where: Any = None, start_s: float = 1, end_s: float = 9) -> Energy:
    return window_energy(Series(records), round(start_s * S), round(end_s * S), where)


def test_counter_comes_before_sampled_power() -> None:
    found = energy(ticks(GPU_METER, 0, 10, energy_j=lambda t: 1000 + 300 * t, power_w=310.0), "gpu")
    assert found == Energy(
        value_j=pytest.approx(2400.0),
        low_j=pytest.approx(2280.0),
        high_j=pytest.approx(2520.0),
        seconds=8.0,
        method="counter",
        evidence="M3",
        boundary="gpu",
        meters=("nvml",),
        devices_expected=1,
        devices_seen=1,
    )
    assert found.mean_power_w == pytest.approx(300.0)
    assert not found.estimated


def test_sampled_power_of_a_counter_meter_is_class_m4_and_says_why() -> None:
    found = energy(ticks(GPU_METER, 0, 10, energy_j=lambda t: 5000 - 300 * t, power_w=300.0), "gpu")
    assert (found.value_j, found.evidence, found.method) == (pytest.approx(2400.0), "M4", "integral")
    assert found.notes == ("nvml GPU-0: counter went back: reset during the window",)


EIGHT = structs.replace(GPU_METER, devices=tuple(f"GPU-{i}" for i in range(8)))


def test_devices_are_added() -> None:
    found = energy(ticks(EIGHT, 0, 10, energy_j=lambda t: 300 * t), "gpu")
    assert (found.value_j, found.devices_seen) == (pytest.approx(8 * 2400.0), 8)


def test_energy_is_unknown_when_one_device_was_not_read() -> None:
    lost = {"GPU-3": {"energy_j": None, "error": "GPU is lost"}}
    found = energy(ticks(EIGHT, 0, 10, energy_j=lambda t: 300 * t, device_values=lost), "gpu")
    assert (found.value_j, found.devices_seen, found.devices_expected) == (None, 7, 8)
    assert found.reason == "nvml: no energy of GPU-3 (power: never read)"


def test_a_device_that_vanishes_half_way_makes_it_unknown() -> None:
    dying = {"GPU-3": {"energy_j": lambda t: 300 * t if t < 5 else None}}
    assert energy(ticks(EIGHT, 0, 10, energy_j=lambda t: 300 * t, device_values=dying), "gpu").value_j is None


def test_a_poll_that_reads_zero_watts_is_a_poll_that_failed() -> None:
    records = ticks(GPU_METER, 0, 10, power_w=lambda t: 0.0 if round(t * 10) % 7 == 3 else 300.0)
    assert energy(records, "gpu").value_j == pytest.approx(2400.0)


def test_gpu_and_cpu_are_added_when_both_are_measured() -> None:
    found = energy(
        [*ticks(GPU_METER, 0, 10, energy_j=lambda t: 300 * t), *ticks(CPU_METER, 0, 10, power_w=50.0)], "gpu"
    )
    assert (found.value_j, found.boundary, found.evidence) == (pytest.approx(2800.0), "gpu+cpu", "M4")
    assert (found.meters, found.method) == (("nvml", "rapl"), "mixed")


def test_a_module_that_includes_the_cpu_is_not_added_to_it() -> None:
    module = structs.replace(GPU_METER, scope="MODULE")
    found = energy([*ticks(module, 0, 10, energy_j=lambda t: 300 * t), *ticks(CPU_METER, 0, 10, power_w=50.0)], "gpu")
    assert (found.value_j, found.boundary) == (pytest.approx(2400.0), "gpu")


NODE = MeterInfo(
    meter="redfish", devices=("chassis",), evidence="M2", boundary="node_ac", sensor_api="Redfish", period_s=1
)


def test_a_node_sensor_stands_alone() -> None:
    found = energy([*ticks(GPU_METER, 0, 10, energy_j=lambda t: 300 * t), *ticks(NODE, 0, 10, power_w=700.0)], "gpu")
    assert (found.value_j, found.boundary, found.evidence) == (pytest.approx(5600.0), "node_ac", "M2")


def test_an_estimate_is_taken_only_where_nothing_was_measured() -> None:
    guess = ticks(GUESS, 0, 10, power_w=20.0, power_low_w=5.0, power_high_w=30.0)
    measured = energy([*guess, *ticks(CPU_METER, 0, 10, energy_j=lambda t: 50 * t)], "cpu")
    assert measured.evidence == "M3"
    found = energy(guess, "cpu")
    assert (found.value_j, found.low_j, found.high_j) == pytest.approx((160.0, 40.0, 240.0))
    assert found.estimated


def test_an_estimate_without_a_range_has_that_of_its_class() -> None:
    found = energy(ticks(GUESS, 0, 10, power_w=20.0), "cpu")
    assert (found.low_j, found.high_j) == pytest.approx((96.0, 224.0))


def test_the_meter_must_cover_what_does_the_work() -> None:
    gpu = ticks(GPU_METER, 0, 10, energy_j=lambda t: 60 * t)
    assert energy(gpu, "cpu").reason == "no power meter covers it"
    assert energy(gpu, "remote").reason == "the server is remote and none of its meters was given"
    assert energy([*gpu, *ticks(NODE, 0, 10, power_w=700.0)], "remote").boundary == "node_ac"
    assert energy(ticks(PROCESS, 0, 10, anon_bytes=1)).value_j is None


def test_a_better_meter_that_failed_is_named() -> None:
    lost = ticks(CPU_METER, 0, 4, energy_j=lambda t: 50 * t)
    found = energy([*lost, *ticks(GUESS, 0, 10, power_w=20.0)], "cpu")
    assert found.evidence == "E2"
    assert found.notes == ("rapl: no energy of package-0 (power: never read)",)


def test_of_two_makers_cards_the_one_that_failed_is_named() -> None:
    other = structs.replace(GPU_METER, meter="xpu", devices=("gpu9",))
    lost = ticks(GPU_METER, 0, 4, energy_j=lambda t: 300 * t)
    found = energy([*lost, *ticks(other, 0, 10, energy_j=lambda t: 20 * t)], "gpu")
    assert (found.meters, found.notes) == (("xpu",), ("nvml: no energy of GPU-0 (power: never read)",))


def test_energy_of_a_part_is_not_told_from_worse_evidence_than_the_whole() -> None:
    whole = energy(ticks(GPU_METER, 0, 10, energy_j=lambda t: 300 * t), "gpu")
    worse = structs.replace(whole, evidence="M4")
    assert like(whole, whole) is whole
    assert like(worse, whole) is whole
    assert (like(whole, worse).value_j, like(whole, worse).reason) == (None, "nvml (M4) instead of nvml (M3)")
    assert like(structs.replace(whole, meters=("xpu",)), whole).value_j is None


def test_counter_and_integral_are_compared() -> None:
    records = ticks(GPU_METER, 0, 10, energy_j=lambda t: 300 * t, power_w=330.0)
    assert cross_check(Series(records), S, 9 * S, ("nvml",)) == pytest.approx(0.1)
    only_counter = ticks(GPU_METER, 0, 10, energy_j=lambda t: 300 * t)
    assert cross_check(Series(only_counter), S, 9 * S, ("nvml",)) is None


def test_power_at_rest_is_of_the_same_meters() -> None:
    series = Series([*ticks(GPU_METER, 0, 10, power_w=60.0), *ticks(CPU_METER, 0, 10, power_w=30.0)])
    load = window_energy(series, 5 * S, 9 * S, "gpu")
    assert mean_power(series, S, 3 * S, load) == pytest.approx(90.0)


@pytest.mark.parametrize(
    ("device", "where"),
    [
        ("cpu", "cpu"),
        ("cuda:0 NVIDIA H100 80GB HBM3", "gpu"),
        ("cuda:0 + cpu", "gpu"),
        ("npu:0 Ascend910B", "gpu"),
        ("remote", "remote"),
        ("quantum", None),
        (None, None),
    ],
)
def test_where_the_work_is_done(device: str | None, where: str | None) -> None:
    assert where_of(device) == where


def test_what_boundaries_cover() -> None:
    assert covers(NODE) == {"cpu", "gpu"}
    assert covers(structs.replace(CPU_METER, boundary="cpu_package+dram")) == {"cpu"}
    assert covers(PROCESS) == frozenset()


def test_readings_in_any_order_and_of_a_resumed_cell_are_put_in_order() -> None:
    first, second = ticks(GPU_METER, 0, 4, power_w=100.0), ticks(GPU_METER, 5, 10, power_w=100.0)
    assert energy([*second, *first], "gpu").value_j == pytest.approx(800.0)
