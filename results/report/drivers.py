"""What drives a cost: one input after another from its P10 to its P90, and the share of hours in which the machine works."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct, structs

from results.break_even import BreakEven, break_even
from results.cost import Tariff, price_row
from results.montecarlo import tornado
from results.report import formats
from results.report.entries import Entry
from results.report.pricing import Priced

SHOWN = 8
UTILISATIONS = tuple(float(u) for u in np.geomspace(0.02, 1.0, 24))


class Tornado(Struct, frozen=True, kw_only=True):
    """Swings of the cost of 1,000 answers of one variant."""

    label: str
    cost: float
    bars: tuple[tuple[str, float, float], ...]

    def drawing(
        self, t: Callable[..., str]
    ) -> tuple[str, list[tuple[str, float, float]], float, Callable[[float], str]]:
        """What the chart needs."""
        named = [(t(f"drive_{n}"), a, b) for n, a, b in self.bars]
        return t("drives"), named, self.cost, formats.trimmed


def tornado_of(entry: Entry, priced: Priced) -> Tornado | None:
    """`None` where the row has no cost."""
    cost = entry.row.cost_per_1k_samples
    found = tornado(priced.variants[entry.name])[:SHOWN] if cost is not None else ()
    if cost is None or not found:
        return None
    return Tornado(label=entry.label, cost=cost, bars=tuple((s.name, s.cost_at_p10, s.cost_at_p90) for s in found))


class Usage(Struct, frozen=True, kw_only=True):
    """Cost of 1,000 answers of one variant at each utilisation, and from which one on it is below an API's."""

    entry: Entry
    points: tuple[tuple[float, float], ...]
    break_even: BreakEven | None


def usage_of(entries: Sequence[Entry], priced: Priced) -> tuple[Usage, ...]:
    """Of every variant given; those without a cost are left out."""
    found = []
    for entry in entries:
        tariff = priced.tariffs[entry.row.run]
        costs = ((u, price_row(entry.row, _at(tariff, u)).cost_per_1k_samples) for u in UTILISATIONS)
        points = tuple((u, c) for u, c in costs if c is not None)
        if points:
            found.append(Usage(entry=entry, points=points, break_even=break_even(priced.variants[entry.name])))
    return tuple(found)


def _at(tariff: Tariff, utilisation: float) -> Tariff:
    return structs.replace(tariff, utilisation=structs.replace(tariff.utilisation, value=utilisation))
