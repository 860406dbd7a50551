"""What a suite's profile asks of a measurement. Light: planning needs it, and loads no statistics for it."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Severity = Literal["I", "R", "W"]
"""I: invalid, no ranking and no cost. R: valid as installed, not for ranking. W: a warning."""

FLOORS: Mapping[float, int] = {0.5: 11, 0.9: 64, 0.95: 130, 0.99: 662}
"""Values that a percentile needs: `results.stats.percentile_floor` at 99 % confidence."""


class Profile(Struct, frozen=True, kw_only=True):
    """How much a suite's profile asks of a measurement."""

    name: str
    window_s: float
    """Shortest steady state."""
    requests_per_slot: int
    """Finished requests for each one in flight."""
    percentile: float | None
    """The percentile that the number of requests must back; None: whatever they back is shown."""
    warmup_s: float
    repeats: int
    short: Severity
    """Severity where only the length of the measurement is short of what it should be."""
    strict: bool
    """What must be known and is not counts as a failure."""
    by_bound: bool
    """Shares of few answers are judged by their exact lower 95 % bound, so that one odd answer in twelve decides nothing."""


PROFILES = {
    "smoke": Profile(
        name="smoke",
        window_s=60,
        requests_per_slot=10,
        percentile=None,
        warmup_s=30,
        repeats=1,
        short="W",
        strict=False,
        by_bound=True,
    ),
    "nightly": Profile(
        name="nightly",
        window_s=60,
        requests_per_slot=10,
        percentile=0.95,
        warmup_s=30,
        repeats=1,
        short="I",
        strict=False,
        by_bound=False,
    ),
    "procurement": Profile(
        name="procurement",
        window_s=600,
        requests_per_slot=10,
        percentile=0.99,
        warmup_s=30,
        repeats=3,
        short="I",
        strict=True,
        by_bound=False,
    ),
}
