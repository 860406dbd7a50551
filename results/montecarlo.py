"""Uncertainty all the way to a cost: draws of accuracy, speed, power and prices, and what drives the result.

Accuracy is drawn by the Bayesian bootstrap (Rubin 1981) over clusters of items with the same weights for every variant of a task, so that
differences between variants are paired. Weighting items that were seen cannot imagine one on which the other variant is right, so every
deployment also gets two unseen items of half an item's weight, one that only it gets right and one that only it gets wrong. Of two
variants that differ on b + c items this makes the chance that the first is better that of a uniform prior, Beta(b + 1, c + 1) above 1/2
(50 % where they differ on none), and leaves the means where they are. Speed is normal with the batch-means interval's spread, power
uniform within the range of its evidence class, prices triangular. What two variants have in common (a sensor, a tariff) is drawn once for
both. Seeds are fixed.
"""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from results.cost import (
    SECONDS_PER_YEAR,
    Amount,
    Inputs,
    Machine,
    Power,
    Quantity,
    Tariff,
    annual_cost,
    electricity,
    inputs_of,
    node_power,
)
from results.records import Scored
from results.rows import Row
from results.stats import Item, items_of

Floats = NDArray[np.float64]

DRAWS = 10_000
MOST_DRAW_CELLS = 800_000
"""Variants times draws on one page: above 80 variants fewer draws are made, so that hundreds of cells keep nobody waiting."""
UNKNOWN_SPEED_SD = 0.05
"""Relative spread of speed where a step was too short to tell its own: what repetitions may differ by (rule C10)."""
OF_THE_MACHINE = frozenset(Machine.__struct_fields__) | {"busy_w", "idle_w"}
_BLOCK = 1000


class Variant(Struct, frozen=True, kw_only=True):
    """A row with what its items scored, and the prices that hold for the machine it ran on."""

    row: Row
    tariff: Tariff
    values: tuple[Item, ...] = ()
    """Mean score of each item."""
    successes: tuple[Item, ...] = ()
    """Share of each item's answers that were correct (for summaries: acceptable)."""

    @property
    def name(self) -> str:
        return f"{self.row.run}/{self.row.cell}/{self.row.step}"


class Draws(Struct, frozen=True, kw_only=True):
    """One line for each variant, one column for each draw; NaN where a draw has no value (nothing correct, nothing judged)."""

    names: tuple[str, ...]
    accuracy: Floats
    cost_per_1k_samples: Floats
    cost_per_correct: Floats
    energy_per_sample_j: Floats
    success: Floats
    """Share of correct answers."""


class Range(Struct, frozen=True):
    """95 % interval over the draws; `None` where too many draws have no value."""

    lo: float | None
    hi: float | None


class Swing(Struct, frozen=True, kw_only=True):
    """What one input does to a cost when it goes from its P10 to its P90 and all others stay."""

    name: str
    cost_at_p10: float
    cost_at_p90: float

    @property
    def size(self) -> float:
        return abs(self.cost_at_p90 - self.cost_at_p10)


def variant_of(row: Row, tariff: Tariff, scores: Sequence[Scored]) -> Variant:
    """A row with the scores of its step."""
    judged = [s for s in scores if s.step == row.step and s.value is not None]
    early = row.stopping_rule is not None
    return Variant(
        row=row,
        tariff=tariff,
        values=items_of([(s.sample, s.cluster, s.value) for s in judged if s.value is not None], early),
        successes=items_of([(s.sample, s.cluster, float(s.verdict == "correct")) for s in judged], early),
    )


def draws_of_page(variants: int) -> int:
    """Draws for so many variants on one page, 1,000 at least."""
    return max(1000, min(DRAWS, MOST_DRAW_CELLS // max(1, variants)))


def simulate(variants: Sequence[Variant], draws: int = DRAWS, seed: int = 0) -> Draws:
    """Draw every variant's accuracy and costs together."""
    shape = (len(variants), draws)
    accuracy, success = np.full(shape, np.nan), np.full(shape, np.nan)
    for task in sorted({v.row.task for v in variants}):
        places = [i for i, v in enumerate(variants) if v.row.task == task and v.values]
        if places:
            of_task = [variants[i] for i in places]
            accuracy[places], success[places] = _paired(of_task, draws, seed)
    cost, energy = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, variant in enumerate(variants):
        cost[i], energy[i] = _unit_costs(variant, draws, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_correct = np.where(success > 0, cost / success, np.nan)
    return Draws(
        names=tuple(v.name for v in variants),
        accuracy=accuracy,
        cost_per_1k_samples=1000 * cost,
        cost_per_correct=per_correct,
        energy_per_sample_j=energy,
        success=success,
    )


def _paired(variants: Sequence[Variant], draws: int, seed: int) -> tuple[Floats, Floats]:
    """Accuracy and success draws of variants of one task, with the same cluster weights for all."""
    sums = _sums(variants)
    generator = generator_of(seed, f"items:{variants[0].row.task}")
    drawn = np.empty((3 * len(variants), draws))
    for start in range(0, draws, _BLOCK):
        size = min(_BLOCK, draws - start)
        weights = generator.standard_exponential((size, len(sums)), dtype=np.float32)
        drawn[:, start : start + size] = (weights @ sums).T
    counts = drawn[2::3]
    unseen = np.stack([_unseen(v.row, draws, seed) for v in variants]) * sums[:, 2::3].mean() / counts
    accuracy = drawn[0::3] / counts + unseen * _widest(sums, variants)
    return np.clip(accuracy, 0, 1), np.clip(drawn[1::3] / counts + unseen, 0, 1)


def _sums(variants: Sequence[Variant]) -> NDArray[np.float32]:
    """A line for each cluster; three columns for each variant: sum of the values, of the successes, and items."""
    clusters = sorted({item.cluster for v in variants for item in v.values})
    place = {name: i for i, name in enumerate(clusters)}
    sums = np.zeros((len(clusters), 3 * len(variants)), dtype=np.float32)
    for column, variant in enumerate(variants):
        lines = [place[item.cluster] for item in variant.values]
        for offset, scored in enumerate((variant.values, variant.successes)):
            np.add.at(sums[:, 3 * column + offset], lines, np.array([item.value for item in scored], dtype=np.float32))
        np.add.at(sums[:, 3 * column + 2], lines, np.float32(1))
    return sums


def _unseen(row: Row, draws: int, seed: int) -> Floats:
    """Weight of the unseen item that only this deployment gets right less that of the one only it gets wrong; loads share them."""
    generator = generator_of(seed, f"unseen:{row.run}:{row.cell}:{row.task}")
    return generator.standard_gamma(0.5, draws) - generator.standard_gamma(0.5, draws)


def _widest(sums: NDArray[np.float32], variants: Sequence[Variant]) -> float:
    """By how much variants may differ on an item that was not seen: 1 for right or wrong, else the widest difference seen."""
    if {item.value for v in variants for item in v.values} <= {0.0, 1.0}:
        return 1.0
    with np.errstate(invalid="ignore"):
        means = sums[:, 0::3] / sums[:, 2::3]
    shared = means[np.isfinite(means).all(axis=1)]
    return float(np.ptp(shared, axis=1).max()) if len(shared) else 1.0


def _unit_costs(variant: Variant, draws: int, seed: int) -> tuple[Quantity, Quantity]:
    """Cost and joules of one sample, drawn; NaN where the row cannot be priced."""
    row = variant.row
    power = node_power(row, variant.tariff.node)
    if row.seconds is None or not row.samples:
        return np.nan, np.nan
    slower = 1 / speed_factor(row, draws, seed)
    watts = power_factor(row, draws, seed)
    energy = row.energy_j * watts * slower / row.samples if row.energy_j is not None else np.nan
    if power.busy_w is None or power.idle_w is None:
        return np.nan, energy
    inputs = drawn_inputs(variant.tariff, power, watts, draws, seed)
    return per_sample(inputs, row) * slower, energy


def per_sample(inputs: Inputs, row: Row) -> Quantity:
    """Money for one sample at the speed that was measured."""
    seconds = (row.seconds or 0.0) / (row.samples or 1)
    return annual_cost(inputs).total / (SECONDS_PER_YEAR * inputs.utilisation) * seconds


def generator_of(seed: int, name: str) -> np.random.Generator:
    """Of one quantity, by its name: the same whichever variants are drawn with it."""
    return np.random.default_rng([seed, crc32(name.encode())])


def speed_factor(row: Row, draws: int, seed: int) -> Floats:
    """Drawn speed / measured speed."""
    value, lo, hi = row.steady_output_tokens_per_s, row.steady_output_tokens_per_s_lo, row.steady_output_tokens_per_s_hi
    if value is None:
        value, lo, hi = (
            row.steady_prompt_tokens_per_s,
            row.steady_prompt_tokens_per_s_lo,
            row.steady_prompt_tokens_per_s_hi,
        )
    sd = (hi - lo) / (2 * 1.96) / value if value and lo is not None and hi is not None else UNKNOWN_SPEED_SD
    drawn = generator_of(seed, f"speed:{row.run}:{row.cell}:{row.step}").normal(1.0, sd, draws)
    return np.clip(drawn, 0.2, 5.0)


def power_factor(row: Row, draws: int, seed: int) -> Floats:
    """Drawn joules / measured joules; rows read by the same sensors share their error."""
    joules, low, high = row.energy_j, row.energy_low_j, row.energy_high_j
    if not joules or low is None or high is None:
        return np.ones(draws)
    uniform = generator_of(seed, f"power:{row.run}:{row.energy_meters}:{row.power_class}").random(draws)
    return low / joules + uniform * (high - low) / joules


def drawn_inputs(tariff: Tariff, power: Power, watts: Floats, draws: int, seed: int) -> Inputs:
    """Every price drawn from its range; those of one tariff are the same for all variants."""
    base = inputs_of(tariff, power.busy_w or 0.0, power.idle_w or 0.0)
    drawn: dict[str, Quantity] = {
        name: triangular(
            amount,
            generator_of(seed, f"{tariff.name}:{tariff.machine if name in OF_THE_MACHINE else ''}:{name}").random(
                draws
            ),
        )
        for name, amount in ranged(tariff, power).items()
    }
    fixed = sum(
        (drawn.pop(name) for name in ("rack_per_year", "licences_per_year", "staff_cost") if name in drawn),
        np.zeros(draws),
    )
    if power.measured:
        factor = drawn.pop("k_node", power.factor) / power.factor
        drawn["busy_w"] = (power.busy_w or 0.0) * watts * factor
        drawn.setdefault("idle_w", (power.idle_w or 0.0) * watts * factor)
    return structs.replace(base, fixed_per_year=fixed, **drawn)


def ranged(tariff: Tariff, power: Power) -> dict[str, Amount]:
    """The tariff's figures by the name of the input that they feed."""
    node = tariff.node
    staff = (
        [("staff_cost", _product(tariff.staff_share, tariff.staff_salary))]
        if tariff.staff_share is not None and tariff.staff_salary is not None
        else []
    )
    named: Sequence[tuple[str, Amount | None]] = [
        ("price", node.price),
        ("salvage", node.salvage),
        ("lifetime_years", node.lifetime_years),
        ("discount_rate", tariff.discount_rate),
        ("electricity_per_kwh", electricity(tariff)),
        ("demand_charge_per_kw_month", tariff.demand_charge_per_kw_month),
        ("pue", tariff.pue),
        ("maintenance_share", node.maintenance_share),
        ("utilisation", tariff.utilisation),
        ("rack_per_year", node.rack_per_year),
        ("licences_per_year", tariff.licences_per_year),
        ("k_node", node.k_node if power.measured and power.factor != 1.0 else None),
        ("busy_w", node.node_busy_w if not power.measured else None),
        ("idle_w", node.node_idle_w if power.idle_declared else None),
        *staff,
    ]
    return {name: amount for name, amount in named if amount is not None}


def _product(share: Amount, salary: Amount) -> Amount:
    """Yearly staff cost with both ranges."""
    return Amount(
        value=share.value * salary.value,
        low=(share.value if share.low is None else share.low) * (salary.value if salary.low is None else salary.low),
        high=(share.value if share.high is None else share.high)
        * (salary.value if salary.high is None else salary.high),
        source=share.source,
        date=share.date,
    )


def triangular(amount: Amount, uniform: Floats) -> Floats:
    """Draws between `low` and `high` with the peak at `value`; the value itself where there is no range."""
    low = amount.value if amount.low is None else amount.low
    high = amount.value if amount.high is None else amount.high
    if high == low:
        return np.full(len(uniform), amount.value)
    peak = (amount.value - low) / (high - low)
    rising = low + np.sqrt(uniform * peak) * (high - low)
    falling = high - np.sqrt((1 - uniform) * (1 - peak)) * (high - low)
    return np.where(uniform < peak, rising, falling)


def interval(drawn: Floats, share: float = 0.95) -> Range:
    """Central interval; a limit that falls among draws without a value (nothing correct) is unknown."""
    known = drawn[np.isfinite(drawn)]
    if not len(known) or len(known) < share * len(drawn):
        return Range(None, None)
    tail = (1 - share) / 2
    missing = 1 - len(known) / len(drawn)
    # Draws without a value are those of endless cost: they stand above all others.
    upper = (1 - tail) / (1 - missing)
    lo = float(np.quantile(known, min(1.0, tail / (1 - missing))))
    return Range(lo, float(np.quantile(known, upper)) if upper <= 1 else None)


def with_ranges(row: Row, draws: Draws, name: str) -> Row:
    """The row with the intervals of its costs."""
    place = draws.names.index(name)
    per_1k, per_correct = interval(draws.cost_per_1k_samples[place]), interval(draws.cost_per_correct[place])
    return structs.replace(
        row,
        cost_per_1k_samples_lo=per_1k.lo,
        cost_per_1k_samples_hi=per_1k.hi,
        cost_per_correct_lo=per_correct.lo,
        cost_per_correct_hi=per_correct.hi,
    )


def tornado(variant: Variant, draws: int = 2000, seed: int = 0) -> tuple[Swing, ...]:
    """What drives the cost per 1,000 samples: each input at its P10 and P90, the others at their value; largest first."""
    row, power = variant.row, node_power(variant.row, variant.tariff.node)
    if row.seconds is None or not row.samples or power.busy_w is None or power.idle_w is None:
        return ()
    base = inputs_of(variant.tariff, power.busy_w, power.idle_w)
    ends: dict[str, tuple[Inputs, Inputs]] = {}
    drawn = drawn_inputs(variant.tariff, power, power_factor(row, draws, seed), draws, seed)
    for name in base.__struct_fields__:
        column = getattr(drawn, name)
        if isinstance(column, np.ndarray) and np.ptp(column) > 0:
            low, high = (float(q) for q in np.quantile(column, [0.1, 0.9]))
            ends[name] = structs.replace(base, **{name: low}), structs.replace(base, **{name: high})
    swings = [
        Swing(name=n, cost_at_p10=1000 * float(per_sample(a, row)), cost_at_p90=1000 * float(per_sample(b, row)))
        for n, (a, b) in ends.items()
    ]
    middle = 1000 * float(per_sample(base, row))
    slow, fast = np.quantile(1 / speed_factor(row, draws, seed), [0.1, 0.9])
    swings.append(Swing(name="speed", cost_at_p10=middle * float(slow), cost_at_p90=middle * float(fast)))
    return tuple(sorted(swings, key=lambda s: -s.size))
