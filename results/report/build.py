"""From what was gathered to what the page shows: rows in groups that may be compared, points, frontiers, paired differences. Pure."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from results.cost import Tariff
from results.frontier import SURE, Axes, Kind, Point, Standing, dominance, eligible, frontier, frontier_probability
from results.report.differences import Difference, chance_alike, differences_of
from results.report.drivers import Tornado, Usage, tornado_of, usage_of
from results.report.entries import Entry, entries_of
from results.report.gather import RunPage
from results.report.pricing import Priced, Spread, band_of, lines_of, price, spread_of
from results.rows import Row
from results.stats import Floats

ENERGY_DOMINATES = 0.5
"""From this share of the cost on, a cost whose power is an estimate is an estimate itself."""

Axis = Literal[
    "cost_per_1k_samples", "cost_per_correct", "energy_per_sample_j", "memory_bytes", "e2e_p50_ms", "user_tokens_per_s"
]


class Curve(Struct, frozen=True, kw_only=True):
    """Points on two axes with their frontier."""

    axis: Axis
    points: tuple[Point, ...]
    frontier: tuple[str, ...]
    probability: dict[str, float | None]
    spread: Spread | None = None
    band: tuple[tuple[float, float, float], ...] = ()
    """Horizontal value, lower and upper 95 % limit of the accuracy that can be had at it or below."""


class Group(Struct, frozen=True, kw_only=True):
    """Rows of one task on the same items, asked and scored in the same way: what may stand on one chart."""

    anchor: str
    task: str
    scoring: str
    metric: str
    items: int
    speed: bool
    entries: tuple[Entry, ...]
    curves: tuple[Curve, ...]
    beaten: tuple[tuple[str, str], ...] | None
    """Winner and loser on accuracy and cost at once; `None` where there are too many pairs to look at."""
    best_accuracy: dict[str, float]
    """p of a paired test against the variant with the highest accuracy."""
    cheapest: dict[str, float]
    """Share of draws in which a variant costs no more than the one with the lowest cost."""
    differences: tuple[Difference, ...]

    @property
    def main(self) -> Curve:
        return self.curves[0]


class Report(Struct, frozen=True, kw_only=True):
    """Everything that the page is made of."""

    runs: tuple[RunPage, ...]
    entries: tuple[Entry, ...]
    groups: tuple[Group, ...]
    tariffs: dict[str, Tariff]
    draws: int
    tornados: dict[str, Tornado]
    """By the group's anchor, of its cheapest variant on the frontier."""
    usage: dict[str, tuple[Usage, ...]]
    """By the group's anchor, of the variants on its frontier, six at most."""

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(e.row for e in self.entries)

    @property
    def tariff(self) -> Tariff:
        return next(iter(self.tariffs.values()))


def build(runs: Sequence[RunPage], tariffs: dict[str, Tariff]) -> Report:
    """The whole view model."""
    priced = price(runs, tariffs)
    entries = entries_of(runs, priced)
    keyed: dict[tuple[str, str, str, str, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        facts = entry.step.facts
        keyed[facts.task, facts.scoring, facts.metric, facts.data_sha256, facts.items].append(entry)
    groups = [_group(f"task-{i + 1}", found, priced) for i, found in enumerate(keyed.values())]
    tornados = {g.anchor: found for g in groups if (found := _tornado(g, priced)) is not None}
    usage = {g.anchor: _usage(g, priced) for g in groups}
    return Report(
        tornados=tornados,
        usage=usage,
        runs=tuple(runs),
        entries=entries,
        groups=tuple(groups),
        tariffs=tariffs,
        draws=priced.draws.accuracy.shape[1],
    )


def _group(anchor: str, entries: list[Entry], priced: Priced) -> Group:
    facts = entries[0].step.facts
    curves = tuple(_curve(axis, entries, priced) for axis in AXES)
    main, by_name = curves[0], {e.name: e for e in entries}
    able = [p.name for p in main.points if eligible(p)]
    accuracy, cost = (
        lines_of(priced.draws, able, d) for d in (priced.draws.accuracy, priced.draws.cost_per_1k_samples)
    )
    return Group(
        anchor=anchor,
        task=facts.task,
        scoring=facts.scoring,
        metric=facts.metric,
        items=facts.items,
        speed=facts.kind == "speed",
        entries=tuple(entries),
        curves=curves,
        beaten=beaten(dominance(able, cost, accuracy), by_name) if len(able) <= MOST_PAIRED else None,
        best_accuracy=as_accurate([by_name[name] for name in able]),
        cheapest=as_cheap(able, cost, [p.x or 0.0 for p in main.points if eligible(p)]),
        differences=differences_of(entries),
    )


def _usage(group: Group, priced: Priced) -> tuple[Usage, ...]:
    entries = {e.name: e for e in group.entries}
    return usage_of([entries[name] for name in group.main.frontier[:6]], priced)


def _tornado(group: Group, priced: Priced) -> Tornado | None:
    entries = {e.name: e for e in group.entries}
    return tornado_of(entries[group.main.frontier[0]], priced) if group.main.frontier else None


MOST_PAIRED = 60
"""Variants of which every pair is compared; beyond it the frontier's probabilities must do."""


def as_accurate(entries: Sequence[Entry]) -> dict[str, float]:
    """Chance that a variant is as accurate as the one with the highest value, by the paired test; that one has 1."""
    if not entries:
        return {}
    top = max(entries, key=lambda e: e.row.accuracy or 0.0)
    return {e.name: 1.0 if e is top else chance_alike(e.step.values, top.step.values) for e in entries}


def as_cheap(names: Sequence[str], cost: Floats, points: Sequence[float]) -> dict[str, float]:
    """Share of draws in which a variant costs no more than the one with the lowest cost, which has 1; empty where a draw has no value."""
    if not names or not np.isfinite(cost).all():
        return {}
    lowest = cost[int(np.argmin(points))]
    return {name: float((cost[i] <= lowest).mean()) for i, name in enumerate(names)}


def beaten(standings: Sequence[Standing], entries: dict[str, Entry]) -> tuple[tuple[str, str], ...]:
    """Winner and loser of every pair of which one dominates and its accuracy is not only luck.

    The draws must say so in 90 %, and so must the paired test of accuracy (one-sided); one deployment at two loads has the same weights
    and needs no test.
    """
    found = []
    for s in standings:
        if s.verdict == "tied":
            continue
        winner, loser = (s.first, s.second) if s.verdict == "first" else (s.second, s.first)
        a, b = entries[winner], entries[loser]
        ahead = (a.row.accuracy or 0.0) > (b.row.accuracy or 0.0)
        if (a.row.run, a.row.cell) == (b.row.run, b.row.cell) or (
            ahead and chance_alike(a.step.values, b.step.values) <= 2 * (1 - SURE)
        ):
            found.append((winner, loser))
    return tuple(found)


def memory_bytes(row: Row) -> int | None:
    """What the deployment took: accelerator memory where there is one, else memory of the process tree."""
    return row.vram_reserved_bytes if row.vram_reserved_bytes is not None else row.host_memory_bytes


def user_speed(row: Row) -> float | None:
    """Tokens per second that one user sees."""
    return 1000 / row.tpot_p50_ms if row.tpot_p50_ms else None


def throughput(row: Row) -> float | None:
    """Output tokens per second of the steady state, else of the whole step."""
    return row.steady_output_tokens_per_s if row.steady_output_tokens_per_s is not None else row.output_tokens_per_s


AXES: dict[Axis, Callable[[Row], float | None]] = {
    "cost_per_1k_samples": lambda row: row.cost_per_1k_samples,
    "cost_per_correct": lambda row: row.cost_per_correct,
    "energy_per_sample_j": lambda row: row.energy_per_sample_j,
    "memory_bytes": memory_bytes,
    "e2e_p50_ms": lambda row: row.e2e_p50_ms,
    "user_tokens_per_s": user_speed,
}
"""Horizontal axis of each chart, in the order shown. Accuracy stands upright, but for the last: there it is throughput."""


def estimated(row: Row) -> bool:
    """Whether the row's power is an estimate."""
    return (row.power_class or "").startswith("E")


def kind_of(row: Row, axis: Axis) -> Kind:
    """How a point came about. A cost is measured time at declared prices; it becomes an estimate where estimated power dominates it."""
    if row.backend == "recorded":
        return "published"
    guessed = estimated(row)
    if axis == "energy_per_sample_j":
        return "estimated" if guessed else "measured"
    if axis in ("cost_per_1k_samples", "cost_per_correct"):
        return "estimated" if guessed and (row.cost_energy_share or 0.0) >= ENERGY_DOMINATES else "measured"
    return "measured"


def _curve(axis: Axis, entries: Sequence[Entry], priced: Priced) -> Curve:
    by_speed = axis == "user_tokens_per_s"
    axes = Axes("high", "high") if by_speed else Axes("low", "high")
    points = tuple(_point(axis, e.name, e.row) for e in entries)
    drawn = {
        "cost_per_1k_samples": priced.draws.cost_per_1k_samples,
        "cost_per_correct": priced.draws.cost_per_correct,
        "energy_per_sample_j": priced.draws.energy_per_sample_j,
    }.get(axis)
    probability: dict[str, float | None] = {}
    spread: Spread | None = None
    band: tuple[tuple[float, float, float], ...] = ()
    if drawn is not None:
        able = [p.name for p in points if eligible(p)]
        x, y = lines_of(priced.draws, able, drawn), lines_of(priced.draws, able, priced.draws.accuracy)
        probability = frontier_probability(able, x, y, axes)
        shown = [p.name for p in points if p.x is not None]
        spread = spread_of(shown, lines_of(priced.draws, shown, drawn))
        band = band_of(x, y)
    return Curve(
        axis=axis, points=points, frontier=frontier(points, axes), probability=probability, spread=spread, band=band
    )


def _point(axis: Axis, name: str, row: Row) -> Point:
    x = AXES[axis](row)
    if axis == "user_tokens_per_s":
        y, lo, hi = throughput(row), row.steady_output_tokens_per_s_lo, row.steady_output_tokens_per_s_hi
    else:
        y, lo, hi = row.accuracy, row.accuracy_lo, row.accuracy_hi
    reasons = row.energy_reasons if axis == "energy_per_sample_j" else row.reasons
    valid = row.energy_valid and row.valid if axis == "energy_per_sample_j" else row.valid
    return Point(name=name, x=x, y=y, y_lo=lo, y_hi=hi, kind=kind_of(row, axis), valid=valid, reason="; ".join(reasons))
