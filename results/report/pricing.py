"""Every row with its costs, their intervals, and the draws behind them. One tariff; the machine in it is found by the host's name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct

from results.cost import Tariff, price_row, with_price
from results.load import tariff_for
from results.montecarlo import Draws, Variant, draws_of_page, simulate, with_ranges
from results.report.gather import RunPage, StepPage
from results.rows import Row
from results.stats import Floats


class Priced(Struct, frozen=True):
    """Rows by the name of their variant, with the draws of all of them. `tariffs` holds one for each run."""

    rows: dict[str, Row]
    variants: dict[str, Variant]
    draws: Draws
    tariffs: dict[str, Tariff]


def tariffs_of(runs: Sequence[RunPage], path: Path | None) -> dict[str, Tariff]:
    """The tariff of each run: the machine entry that bears the host's name, else the one that the file chooses."""
    return {run.manifest.run: tariff_for(run.manifest, path) for run in runs}


def price(runs: Sequence[RunPage], tariffs: dict[str, Tariff]) -> Priced:
    """Point costs, then the intervals from one set of draws over all rows together."""
    variants = [_variant(page, tariffs[run.manifest.run]) for run in runs for cell in run.cells for page in cell.steps]
    draws = simulate(variants, draws=draws_of_page(len(variants)))
    rows = {v.name: with_ranges(v.row, draws, v.name) for v in variants}
    return Priced(rows=rows, variants={v.name: v for v in variants}, draws=draws, tariffs=tariffs)


def _variant(page: StepPage, tariff: Tariff) -> Variant:
    row = with_price(page.row, price_row(page.row, tariff))
    return Variant(row=row, tariff=tariff, values=page.values, successes=page.successes)


def lines_of(draws: Draws, names: Sequence[str], of: Floats) -> Floats:
    """The draws of some variants, in the order of the names."""
    place = {name: i for i, name in enumerate(draws.names)}
    return of[[place[name] for name in names]] if names else np.empty((0, of.shape[1]))


class Spread(Struct, frozen=True, kw_only=True):
    """How a set of costs may be off: each by itself (factors on its value), and all of them together (`low`, `high`)."""

    own: dict[str, tuple[float, float]]
    low: float | None
    high: float | None


def spread_of(names: Sequence[str], cost: Floats) -> Spread:
    """Splits the draws of a cost into what the variants share (prices, utilisation, a sensor's error) and the rest.

    What is shared moves all points together and cannot change which is cheaper, so it would only blur a chart of them: the geometric
    mean of all variants in each draw is taken as shared. With one variant nothing can be told apart, and all is shared.
    """
    known = [i for i in range(len(names)) if np.isfinite(cost[i]).all()]
    if not known:
        return Spread(own={}, low=None, high=None)
    logs = np.log(cost[known])
    shared = logs.mean(axis=0)
    low, high = np.exp(np.quantile(shared - np.median(shared), [0.025, 0.975]))
    own = {}
    for line, i in zip(logs, known, strict=True):
        apart = line - shared
        a, b = np.exp(np.quantile(apart - np.median(apart), [0.025, 0.975]))
        own[names[i]] = (float(a), float(b))
    return Spread(own=own, low=float(low), high=float(high))


def band_of(cost: Floats, accuracy: Floats, places: int = 48) -> tuple[tuple[float, float, float], ...]:
    """Where the frontier may lie: at each cost, 95 % of the draws of the best accuracy that can be had at it or below.

    What the variants share in cost is taken out first, as in `spread_of`. Empty for fewer than two variants.
    """
    if len(cost) < 2 or not (np.isfinite(cost).all() and np.isfinite(accuracy).all()):
        return ()
    shared = np.log(cost).mean(axis=0)
    apart = np.exp(np.log(cost) - shared + np.median(shared))
    low, high = float(np.median(apart, axis=1).min()), float(np.median(apart, axis=1).max())
    found = []
    for place in np.geomspace(low, high * 1.6, places):
        best = np.where(apart <= place, accuracy, -np.inf).max(axis=0)
        known = best[np.isfinite(best)]
        if len(known) > 0.5 * len(best):
            lo, hi = np.quantile(known, [0.025, 0.975])
            found.append((float(place), float(lo), float(hi)))
    return tuple(found)
