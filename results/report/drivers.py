"""What drives a cost: one input after another from its P10 to its P90."""

from collections.abc import Callable

from msgspec import Struct

from results.montecarlo import tornado
from results.report import formats
from results.report.entries import Entry
from results.report.pricing import Priced

SHOWN = 8


class Tornado(Struct, frozen=True, kw_only=True):
    """Swings of the cost of 1,000 answers of one variant."""

    label: str
    cost: float
    bars: tuple[tuple[str, float, float], ...]

    def drawing(
        self, t: Callable[..., str]
    ) -> tuple[str, list[tuple[str, float, float]], float, Callable[[float], str]]:
        """What the chart needs."""
        named = [(n.replace("_", " "), a, b) for n, a, b in self.bars]
        return t("drives"), named, self.cost, formats.trimmed


def tornado_of(entry: Entry, priced: Priced) -> Tornado | None:
    """`None` where the row has no cost."""
    cost = entry.row.cost_per_1k_samples
    found = tornado(priced.variants[entry.name])[:SHOWN] if cost is not None else ()
    if cost is None or not found:
        return None
    return Tornado(label=entry.label, cost=cost, bars=tuple((s.name, s.cost_at_p10, s.cost_at_p90) for s in found))
