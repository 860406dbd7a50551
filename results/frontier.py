"""Which variants nothing else beats, and how sure that is.

A variant dominates another when it is at least as good on both axes and better on one. Only measured and valid points can be on the
frontier. Two variants are tied when neither dominates the other in at least 90 % of the draws.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Better = Literal["low", "high"]
Kind = Literal["measured", "estimated", "predicted", "published"]

SURE = 0.9


class Point(Struct, frozen=True, kw_only=True):
    """A variant on two axes; `x` or `y` is `None` where it is unknown."""

    name: str
    x: float | None
    y: float | None
    x_lo: float | None = None
    x_hi: float | None = None
    y_lo: float | None = None
    y_hi: float | None = None
    kind: Kind = "measured"
    valid: bool = True
    reason: str = ""
    """Why it is not on the frontier though it may lie there: invalid, estimated, unknown."""


class Axes(Struct, frozen=True):
    """Which end of each axis is the good one; cost against accuracy by default."""

    x_better: Better = "low"
    y_better: Better = "high"


CHEAP_AND_GOOD = Axes()


class Standing(Struct, frozen=True, kw_only=True):
    """Two variants compared over the draws."""

    first: str
    second: str
    first_dominates: float
    second_dominates: float
    verdict: Literal["first", "second", "tied"]


def frontier(points: Sequence[Point], axes: Axes = CHEAP_AND_GOOD) -> tuple[str, ...]:
    """Names of the measured and valid points that no other such point dominates, from the cheap end to the dear one."""
    able = [(p, *_oriented(p.x, p.y, axes)) for p in points if eligible(p) and p.x is not None and p.y is not None]
    kept = [
        (x, -y, p.name)
        for p, x, y in able
        if not any(a <= x and b >= y and (a < x or b > y) for other, a, b in able if other is not p)
    ]
    return tuple(name for _, _, name in sorted(kept))


def eligible(point: Point) -> bool:
    """Whether a point may be on the frontier at all."""
    return point.kind == "measured" and point.valid and point.x is not None and point.y is not None


def _oriented(x: float, y: float, axes: Axes) -> tuple[float, float]:
    """Turned so that small x and large y are good."""
    return (x if axes.x_better == "low" else -x), (y if axes.y_better == "high" else -y)


def frontier_probability(
    names: Sequence[str], x: Floats, y: Floats, axes: Axes = CHEAP_AND_GOOD
) -> dict[str, float | None]:
    """Share of draws in which each variant is on the frontier; `None` for a variant without draws.

    `x` and `y` have a line for each variant and a column for each draw. A draw without a value (NaN: nothing correct) is off the
    frontier and dominates nobody.
    """
    if not names:
        return {}
    a, b = _turn(x, y, axes)
    known = np.isfinite(a) & np.isfinite(b)
    on = known & _unbeaten(np.where(known, a, np.inf), np.where(known, b, -np.inf))
    return {name: float(on[i].mean()) if known[i].any() else None for i, name in enumerate(names)}


def _unbeaten(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """In each column the points that no other beats: from small `a` on, those above all before them; equal points stand together."""
    order = np.lexsort((-b, a), axis=0)
    a, b = np.take_along_axis(a, order, 0), np.take_along_axis(b, order, 0)
    best_before = np.vstack([np.full((1, a.shape[1]), -np.inf), np.maximum.accumulate(b, axis=0)[:-1]])
    on = b > best_before
    for i in range(1, len(a)):
        on[i] |= (a[i] == a[i - 1]) & (b[i] == b[i - 1]) & on[i - 1]
    found = np.empty_like(on)
    np.put_along_axis(found, order, on, 0)
    return found


def dominance(
    names: Sequence[str], x: Floats, y: Floats, axes: Axes = CHEAP_AND_GOOD, sure: float = SURE
) -> tuple[Standing, ...]:
    """Every pair of variants: how often each dominates the other, and whether that is often enough to say so."""
    a, b = _turn(x, y, axes)
    pairs = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            forth = float(_beats(a[i], b[i], a[j], b[j]).mean())
            back = float(_beats(a[j], b[j], a[i], b[i]).mean())
            verdict: Literal["first", "second", "tied"]
            verdict = "first" if forth >= sure else "second" if back >= sure else "tied"
            pairs.append(
                Standing(first=names[i], second=names[j], first_dominates=forth, second_dominates=back, verdict=verdict)
            )
    return tuple(pairs)


def _turn(x: Floats, y: Floats, axes: Axes) -> tuple[Floats, Floats]:
    return (x if axes.x_better == "low" else -x), (y if axes.y_better == "high" else -y)


def _beats(a: Floats, b: Floats, c: Floats, d: Floats) -> NDArray[np.bool_]:
    """Draws in which (a, b) dominates (c, d); a draw that lacks a value is beaten by every one that has both."""
    with np.errstate(invalid="ignore"):
        better = (a <= c) & (b >= d) & ((a < c) | (b > d))
    has, lacks = np.isfinite(a) & np.isfinite(b), ~(np.isfinite(c) & np.isfinite(d))
    won: NDArray[np.bool_] = has & (better | lacks)
    return won
