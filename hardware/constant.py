"""A pretend device that draws a constant power and holds a constant memory: the honest fake of the meter seam."""

import time

from hardware.base import MeterInfo, Reading


class ConstantMeter:
    """Counts energy from the moment it was made, so that counter and integral agree exactly."""

    def __init__(self, power_w: float = 100.0, memory_bytes: int = 1 << 30, evidence: str = "E3") -> None:
        self._power_w, self._memory_bytes, self._evidence = power_w, memory_bytes, evidence
        self._start_ns = time.monotonic_ns()

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter="constant",
            devices=("constant0",),
            evidence=self._evidence,
            boundary="node_dc",
            sensor_api="none",
            note="a pretend device for tests and rehearsals",
        )

    def read(self) -> tuple[Reading, ...]:
        now_ns = time.monotonic_ns()
        return (
            Reading(
                time_ns=now_ns,
                meter="constant",
                device="constant0",
                power_w=self._power_w,
                energy_j=self._power_w * (now_ns - self._start_ns) / 1e9,
                memory_bytes=self._memory_bytes,
            ),
        )

    def close(self) -> None: ...
