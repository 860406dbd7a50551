"""The pace of reading, what happens to a meter that fails, and that the end is orderly."""

import itertools
import threading
import time

import pytest

from hardware.base import Meter, MeterInfo, Reading
from hardware.constant import ConstantMeter
from hardware.sampler import Sampler


class Probe:
    """A meter that does as told: raises, or waits for an event, on every reading."""

    def __init__(self, name: str, period_s: float | None = None, fails: bool = False) -> None:
        self._name, self._period_s, self._fails = name, period_s, fails
        self.block: threading.Event | None = None
        self.waiting = threading.Event()
        self.threads: set[int] = set()
        self.closed = 0

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter=self._name,
            devices=("a", "b"),
            evidence="-",
            boundary="none",
            sensor_api="none",
            period_s=self._period_s,
        )

    def read(self) -> tuple[Reading, ...]:
        self.threads.add(threading.get_ident())
        if self._fails:
            raise OSError("unplugged")
        if self.block:
            self.waiting.set()
            self.block.wait(10)
        return tuple(Reading(time_ns=time.monotonic_ns(), meter=self._name, device=d, power_w=1.0) for d in ("a", "b"))

    def close(self) -> None:
        self.closed += 1


def sample(*meters: Meter, until: int = 1, period_s: float = 0.01) -> list[Reading]:
    """Readings of a sampler that runs until so many have come from the last meter."""
    got: list[Reading] = []
    enough = threading.Event()
    name = meters[-1].describe().meter

    def sink(reading: Reading) -> None:
        got.append(reading)
        if sum(r.meter == name for r in got) >= until:
            enough.set()

    with Sampler(tuple(meters), sink, period_s):
        assert enough.wait(10)
    return got


def test_readings_bracket_the_block() -> None:
    got: list[Reading] = []
    with Sampler((ConstantMeter(),), got.append, period_s=60.0):
        inside_ns = time.monotonic_ns()
    assert len(got) == 2
    assert got[0].time_ns <= inside_ns <= got[1].time_ns


def test_constant_power_and_its_counter_agree() -> None:
    got = sample(ConstantMeter(power_w=250.0), until=4)
    first, last = got[0], got[-1]
    assert last.energy_j is not None
    assert first.energy_j is not None
    assert (last.energy_j - first.energy_j) == pytest.approx(250.0 * (last.time_ns - first.time_ns) / 1e9)


def test_the_schedule_does_not_drift_and_lateness_is_recorded() -> None:
    got = sample(ConstantMeter(), until=12)[1:-1]
    planned = [r.time_ns - round((r.late_ms or 0) * 1e6) for r in got]
    steps = {round((b - a) / 1e6) for a, b in itertools.pairwise(planned)}
    assert all(step % 10 == 0 and step > 0 for step in steps)
    assert all(r.late_ms is not None and r.late_ms >= 0 for r in got)


def test_a_meter_that_raises_becomes_error_readings_and_the_others_go_on() -> None:
    got = sample(Probe("broken", fails=True), Probe("good"), until=6)
    broken = [(r.device, r.power_w, r.error) for r in got if r.meter == "broken"]
    assert set(broken) == {("a", None, "OSError: unplugged"), ("b", None, "OSError: unplugged")}
    assert {r.power_w for r in got if r.meter == "good"} == {1.0}


def test_a_slow_sensor_has_a_thread_of_its_own_and_delays_nobody() -> None:
    slow, quick = Probe("slow", period_s=0.25), Probe("quick")
    release, enough = threading.Event(), threading.Event()
    got: list[Reading] = []

    def sink(reading: Reading) -> None:
        got.append(reading)
        if slow.waiting.is_set() and sum(r.meter == "quick" for r in got) >= 100:
            enough.set()

    with Sampler((slow, quick), sink, period_s=0.01):
        slow.block = release  # its next reading hangs until it is released
        assert enough.wait(10)
        release.set()
    assert slow.threads.isdisjoint(quick.threads)
    assert [r.device for r in got if r.meter == "slow"] == ["a", "b", "a", "b"]


def test_a_full_disk_ends_the_sampling_and_is_raised_at_the_end() -> None:
    def sink(_: Reading) -> None:
        raise OSError(28, "No space left on device")

    meter = Probe("good")
    with pytest.raises(OSError, match="No space left"), Sampler((meter,), sink):
        pass
    assert meter.closed == 1


def test_an_error_inside_the_block_is_not_replaced_by_the_samplers() -> None:
    def sink(_: Reading) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(KeyboardInterrupt), Sampler((ConstantMeter(),), sink):
        raise KeyboardInterrupt


def test_stopping_twice_closes_once_and_leaves_no_thread() -> None:
    meter, before = Probe("good"), threading.active_count()
    sampler = Sampler((meter,), lambda _: None)
    sampler.__enter__()
    sampler.stop()
    sampler.stop()
    assert meter.closed == 1
    assert threading.active_count() == before


def test_no_meters_is_no_error() -> None:
    with Sampler((), lambda _: None):
        pass
