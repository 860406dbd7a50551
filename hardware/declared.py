"""Power that somebody declared: a datasheet's or a user's constant. Class E3, an assumption and never a result."""

import time

from hardware.base import MeterInfo, Reading


class DeclaredMeter:
    """The same watts always. `low_w` and `high_w` are the declared range; without them the value stands alone."""

    def __init__(
        self, power_w: float, boundary: str, source: str, low_w: float | None = None, high_w: float | None = None
    ) -> None:
        self._power_w, self._boundary, self._source = power_w, boundary, source
        self._low_w, self._high_w = low_w, high_w

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter="declared",
            devices=("declared",),
            evidence="E3",
            boundary=self._boundary,
            sensor_api="declared",
            note=f"declared, not measured: {self._source}",
        )

    def read(self) -> tuple[Reading, ...]:
        return (
            Reading(
                time_ns=time.monotonic_ns(),
                meter="declared",
                device="declared",
                power_w=self._power_w,
                power_low_w=self._low_w,
                power_high_w=self._high_w,
            ),
        )

    def close(self) -> None: ...
