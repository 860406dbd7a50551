"""Has accuracy changed? Evidence from the items asked tonight, paired with the same items' baseline answers.

Each night asks a part of a fixed pool. For any set of distinct items with `b` losses (right in the baseline, wrong now) and `c` gains,
the exact sequential McNemar e-value (`results.anytime.log_e_value`) is a test martingale when losses and gains are equally likely. Since a
change may begin on any night, the e-values of all recent beginnings are summed (a Shiryaev-Roberts e-detector: Shin, Ramdas and Rinaldo
2024, "E-detectors"); without a change the sum stays below `THRESHOLD` for `THRESHOLD` nights on average. An item asked again within the
window counts once, with its latest answer: a greedy model that repeats itself adds no evidence.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from results.anytime import log_e_value

THRESHOLD = 3650.0
"""Nights between false alarms, at least, on average: one in ten years."""
RECENT = 14
MARGIN = 0.005
"""Smallest net loss, as a share of the items, that is reported."""

Night = Mapping[str, bool]
"""Item to right or wrong."""


class Evidence(Struct, frozen=True, kw_only=True):
    """What the answers of the recent nights say against the baseline."""

    verdict: Literal["steady", "regression", "improvement"]
    losses: int
    gains: int
    items: int
    """Distinct items in the window that the evidence rests on."""
    change: float | None
    """Net change in accuracy on those items: (gains - losses) / items."""
    e_value: float
    flip_rate: float | None
    since: int
    """Index of the night from which the evidence is strongest."""


def accumulate(baseline: Night, nights: Sequence[Night]) -> Evidence:
    """Judge the last of `nights`, oldest first; items without a baseline are left out."""
    first = max(0, len(nights) - RECENT)
    latest: dict[str, bool] = {}
    total, best, chosen = 0.0, -1.0, (0, 0, 0, len(nights) - 1)
    for index in range(len(nights) - 1, first - 1, -1):
        for item, right in nights[index].items():
            if item in baseline:
                latest.setdefault(item, right)
        losses = sum(baseline[i] and not right for i, right in latest.items())
        gains = sum(right and not baseline[i] for i, right in latest.items())
        found = math.exp(min(log_e_value(losses, gains), 700.0))
        total += found
        if found > best:
            best, chosen = found, (losses, gains, len(latest), index)
    losses, gains, items, since = chosen
    change = (gains - losses) / items if items else None
    alarm = total >= THRESHOLD and change is not None and abs(change) >= MARGIN
    verdict: Literal["steady", "regression", "improvement"] = "steady"
    if alarm:
        verdict = "regression" if losses > gains else "improvement"
    return Evidence(
        verdict=verdict,
        losses=losses,
        gains=gains,
        items=items,
        change=change,
        e_value=total,
        flip_rate=(losses + gains) / items if items else None,
        since=since,
    )
