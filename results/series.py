"""Telemetry of one cell as time series: one column for each meter, device and field, made once and kept."""

from collections.abc import Iterable
from operator import attrgetter

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from results.records import MeterInfo, Telemetry, Tick

Times = NDArray[np.int64]
Values = NDArray[np.float64]


class Window(Struct, frozen=True):
    """Two instants of the host's monotonic clock."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


def between(start_ns: int, end_ns: int) -> Window | None:
    """`None` where nothing lies between."""
    return Window(start_ns, end_ns) if end_ns > start_ns else None


class Column(Struct, frozen=True):
    """Readings that exist, in order of time; a reading that failed is not there."""

    times_ns: Times
    values: Values

    def within(self, start_ns: int, end_ns: int) -> "Column":
        """Readings taken in [start, end]."""
        a, b = np.searchsorted(self.times_ns, [start_ns, end_ns + 1])
        return Column(self.times_ns[a:b], self.values[a:b])

    def at(self, time_ns: int) -> float | None:
        """Interpolated between the two readings around; `None` outside all readings."""
        if not len(self.times_ns) or not self.times_ns[0] <= time_ns <= self.times_ns[-1]:
            return None
        # Offsets, because nanoseconds since boot do not fit a float exactly.
        return float(
            np.interp(float(time_ns - self.times_ns[0]), (self.times_ns - self.times_ns[0]).astype(float), self.values)
        )


NOTHING = Column(np.empty(0, dtype=np.int64), np.empty(0))
_time = attrgetter("time_ns")


class Series:
    """All telemetry of a cell, asked by meter, device and field name of `Tick`."""

    def __init__(self, records: Iterable[Telemetry]) -> None:
        self.meters: dict[str, MeterInfo] = {}
        self._ticks: dict[tuple[str, str], list[Tick]] = {}
        self._times: dict[tuple[str, str], Times] = {}
        self._columns: dict[tuple[str, str, str], Column] = {}
        for record in records:
            if isinstance(record, MeterInfo):
                self.meters[record.meter] = record  # a resumed cell writes it again; the last one counts
            else:
                self._ticks.setdefault((record.meter, record.device), []).append(record)
        for ticks in self._ticks.values():
            ticks.sort(key=_time)

    def devices(self, meter: str) -> tuple[str, ...]:
        """Devices that were read at least once, in order of appearance."""
        return tuple(device for name, device in self._ticks if name == meter)

    def column(self, meter: str, device: str, field: str) -> Column:
        key = (meter, device, field)
        if key not in self._columns:
            self._columns[key] = self._read(meter, device, field)
        return self._columns[key]

    def _read(self, meter: str, device: str, field: str) -> Column:
        ticks = self._ticks.get((meter, device), [])
        read = list(map(attrgetter(field), ticks))
        if not read or (read[0] is None and read.count(None) == len(read)):
            return NOTHING
        if (meter, device) not in self._times:
            self._times[meter, device] = np.fromiter(map(_time, ticks), np.int64, len(ticks))
        times, values = self._times[meter, device], np.array(read, dtype=float)
        known = ~np.isnan(values)  # None becomes NaN
        return Column(times, values) if known.all() else Column(times[known], values[known])

    def with_field(self, field: str) -> tuple[tuple[str, str], ...]:
        """Every (meter, device) that ever read `field`."""
        return tuple(key for key in self._ticks if len(self.column(*key, field).times_ns))

    def span_ns(self) -> tuple[int, int] | None:
        """First and last reading of any device; `None` without telemetry."""
        times = [(ticks[0].time_ns, ticks[-1].time_ns) for ticks in self._ticks.values() if ticks]
        return (min(t[0] for t in times), max(t[1] for t in times)) if times else None
