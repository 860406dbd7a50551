"""Read every meter at a steady pace until the block ends. Runs in the measuring process, never in the measured one."""

import threading
import time
from collections.abc import Callable
from typing import Self

from msgspec import structs

from hardware.base import Meter, MeterInfo, Reading

PERIOD_S = 0.1
SLOW_S = 0.2
"""A sensor whose own period is longer gets a thread of its own, so that its slow answers delay no other meter."""


class Sampler:
    """Calls `sink` with each reading, one at a time, from its own threads. Owns the meters and closes them at the end.

    The schedule is absolute: a pass that comes late does not move the next ones, and passes that were missed are left out.
    All meters are read once before the block begins and the quick ones once more when it ends, so that readings bracket
    whatever is done inside. An error of `sink` (a full disk) ends the sampling and is raised by `stop`.
    """

    def __init__(self, meters: tuple[Meter, ...], sink: Callable[[Reading], None], period_s: float = PERIOD_S) -> None:
        self._meters, self._sink = meters, sink
        self._stop = threading.Event()
        self._sink_lock = threading.Lock()
        self._failure: BaseException | None = None
        described = [(meter, meter.describe()) for meter in meters]
        slow = [(m, i) for m, i in described if (i.period_s or 0.0) > SLOW_S]
        quick = [(m, i) for m, i in described if (i.period_s or 0.0) <= SLOW_S]
        self._schedules = [_Schedule(quick, period_s, last_pass=True)] if quick else []
        self._schedules += [_Schedule([(m, i)], max(period_s, i.period_s or 0.0), last_pass=False) for m, i in slow]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for schedule in self._schedules:
            thread = threading.Thread(target=self._run, args=(schedule,), name="sampler", daemon=True)
            self._threads.append(thread)
            thread.start()
        for schedule in self._schedules:
            schedule.begun.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._finish()
        if kind is None:
            self._raise_failure()

    def stop(self) -> None:
        """End the sampling and close the meters; raises what `sink` raised. Calling it again does nothing."""
        self._finish()
        self._raise_failure()

    def _finish(self) -> None:
        self._stop.set()
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()
        meters, self._meters = self._meters, ()
        for meter in meters:
            meter.close()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self, schedule: "_Schedule") -> None:
        period_ns = int(schedule.period_s * 1e9)
        planned_ns = time.monotonic_ns()
        try:
            self._pass(schedule, planned_ns)
            schedule.begun.set()
            while not self._stop.is_set():
                planned_ns += period_ns * max(1, -((planned_ns - time.monotonic_ns()) // period_ns))
                if self._stop.wait(max(0, planned_ns - time.monotonic_ns()) / 1e9):
                    break
                self._pass(schedule, planned_ns)
            if schedule.last_pass:
                self._pass(schedule, time.monotonic_ns())
        except BaseException as failure:  # noqa: BLE001 - kept for the thread that waits for this one
            self._failure = self._failure or failure
            self._stop.set()
        finally:
            schedule.begun.set()

    def _pass(self, schedule: "_Schedule", planned_ns: int) -> None:
        for meter, info in schedule.meters:
            for reading in read_or_error(meter, info):
                late_ms = (reading.time_ns - planned_ns) / 1e6
                with self._sink_lock:
                    self._sink(structs.replace(reading, late_ms=late_ms))


class _Schedule:
    """Meters that are read together, and whether they have been read once."""

    def __init__(self, meters: list[tuple[Meter, MeterInfo]], period_s: float, last_pass: bool) -> None:
        self.meters, self.period_s, self.last_pass = meters, period_s, last_pass
        self.begun = threading.Event()


def read_or_error(meter: Meter, info: MeterInfo) -> tuple[Reading, ...]:
    """What the meter reads; if it raises, one reading with `error` for each of its devices."""
    try:
        return meter.read()
    except Exception as error:  # noqa: BLE001 - one meter's fault is recorded and must not cost the others their readings
        now_ns = time.monotonic_ns()
        message = f"{type(error).__name__}: {error}"
        return tuple(Reading(time_ns=now_ns, meter=info.meter, device=d, error=message) for d in info.devices)
