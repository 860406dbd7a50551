"""Is a smaller variant as good as the one it was made from? Paired by item, within one run, with the margin said beforehand.

The reference is the deployment with the most bits for each weight among those of the same model. Another pair is what `compare` is for.
"""

from collections import defaultdict
from collections.abc import Sequence

from msgspec import Struct, structs

from results.paired import (
    Comparison,
    NonInferiority,
    compare,
    holm,
    non_inferiority,
    pair,
    significance,
)
from results.report.entries import Entry
from results.rows import Row
from results.stats import Item

MARGIN = 0.02
"""Largest loss of accuracy that would still count as "not worse": 2 points, fixed before any run is looked at."""


class Difference(Struct, frozen=True, kw_only=True):
    """One variant against its reference on the same items."""

    name: str
    reference: str
    pairs: int
    comparison: Comparison
    adjusted_p: float | None
    """Holm over all differences of the task."""
    verdict: NonInferiority


def differences_of(entries: Sequence[Entry]) -> tuple[Difference, ...]:
    """Every scored variant against its reference; none where a model has no second variant."""
    found = []
    for members in _families(entries):
        reference = max(members, key=lambda e: (e.row.bits_per_weight or 0.0, e.row.parameters_b or 0.0))
        for entry in members:
            if entry is not reference:
                found.append(_difference(entry, reference))
    p_values = {d.name: d.comparison.p_value for d in found if d.comparison.p_value is not None}
    adjusted = holm(p_values)
    return tuple(structs.replace(d, adjusted_p=adjusted.get(d.name)) for d in found)


def chance_alike(first: Sequence[Item], second: Sequence[Item]) -> float:
    """Two-sided p of equal accuracy on the items that both have; 1 where nothing can be tested.

    Claims of "better" rest on this and not on draws of the items, so that page, `compare` and `accept` say one thing.
    """
    p_value, _ = significance(pair(first, second))
    return 1.0 if p_value is None else p_value


def _families(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Variants of one model under one load in one run; where every model stands alone, all of a run under one load."""
    able = [e for e in entries if e.step.values]
    strict: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    loose: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for e in able:
        place = (e.row.run, e.row.load, e.row.repeat)
        strict[(*place, _model(e.row))].append(e)
        loose[place].append(e)
    several = [members for members in strict.values() if len(members) > 1]
    return several or [members for members in loose.values() if len(members) > 1]


def _model(row: Row) -> object:
    """What makes two deployments variants of one model: its family and size, else where it came from."""
    if row.family is not None and row.parameters_b is not None:
        return row.family, round(row.parameters_b, 2)
    return row.model


def _difference(entry: Entry, reference: Entry) -> Difference:
    pairs = pair(entry.step.values, reference.step.values)
    return Difference(
        name=entry.name,
        reference=reference.name,
        pairs=len(pairs.ids),
        comparison=compare(pairs),
        adjusted_p=None,
        verdict=non_inferiority(pairs, MARGIN),
    )
