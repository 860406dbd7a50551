"""What a sample, a token and a correct answer cost on hardware that is owned, at a declared utilisation, idle hours included.

Annual cost = capital recovery of price less salvage + electricity (busy and idle hours, times PUE) + demand charge + maintenance + rack
+ licences + staff share. A busy second costs annual cost / (8760 * 3600 * utilisation); a step costs its seconds at that rate.
Capital recovery: CRF(r, L) = r(1+r)^L / ((1+r)^L - 1), 1/L at r = 0. Cost per correct answer: Erol et al. 2025, arXiv 2504.13359, as
a ratio of sums.
"""

import math
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct, structs
from numpy.typing import NDArray

from results.rows import Row
from results.store import StoreError

HOURS_PER_YEAR = 8760.0
SECONDS_PER_YEAR = HOURS_PER_YEAR * 3600.0
EXAMPLES = Path(__file__).parent / "tariffs"

Quantity = float | NDArray[np.float64]
"""One value, or one for each draw."""
Hour = Annotated[int, Meta(ge=0, le=24)]


class Amount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure, its range where one is known, where it is from and of what day."""

    value: float
    low: float | None = None
    high: float | None = None
    source: str
    date: str

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.value, self.low, self.high) if v is not None):
            raise ValueError("`inf` and `nan` are no amounts")


class HourPrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price of electricity between two hours of the day; 22 to 6 goes over midnight."""

    start: Hour
    end: Hour
    price: Amount


class Machine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a node costs and, where no sensor sees all of it, what it draws. Money in the tariff's currency."""

    description: str = ""
    price: Amount
    salvage: Amount
    """What it brings at the end of its life."""
    lifetime_years: Amount
    maintenance_share: Amount
    """Of the price, each year."""
    rack_per_year: Amount | None = None
    node_idle_w: Amount | None = None
    node_busy_w: Amount | None = None
    k_node: Amount | None = None
    """Watts of the whole node for each watt of the components that were measured; from a comparison with a node sensor."""


class Api(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody else asks for the same tokens. `name` says whose API and which model."""

    name: str
    input_per_million_tokens: Amount
    """Without a cache."""
    output_per_million_tokens: Amount
    """Thinking included."""


class Tariff(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of one place. `machine` names the entry of `machines` that the run was made on."""

    name: str
    currency: str
    example: bool = False
    description: str = ""
    machine: str
    machines: dict[str, Machine]
    discount_rate: Amount
    electricity_per_kwh: Amount
    electricity_hours: tuple[HourPrice, ...] = ()
    """Where the price depends on the hour; other hours cost `electricity_per_kwh`."""
    demand_charge_per_kw_month: Amount | None = None
    pue: Amount
    utilisation: Amount
    """Share of all hours in which the node works."""
    utilisation_basis: str
    """`demand` (from a forecast of the load) or `declared`."""
    licences_per_year: Amount | None = None
    staff_share: Amount | None = None
    staff_salary: Amount | None = None
    review_cost: Amount | None = None
    """Of one output, by a clinician."""
    undetected_error_cost: Amount | None = None
    p_detected: Amount | None = None
    """Share of the errors that review finds."""
    api: Api | None = None
    """Whom the own machine is set against."""

    @property
    def node(self) -> Machine:
        return self.machines[self.machine]


class Inputs(Struct, frozen=True, kw_only=True):
    """Everything that the annual cost depends on, as values or as draws."""

    price: Quantity
    salvage: Quantity
    lifetime_years: Quantity
    discount_rate: Quantity
    electricity_per_kwh: Quantity
    demand_charge_per_kw_month: Quantity
    pue: Quantity
    maintenance_share: Quantity
    fixed_per_year: Quantity
    """Rack, licences and staff."""
    utilisation: Quantity
    busy_w: Quantity
    idle_w: Quantity


class Annual(Struct, frozen=True, kw_only=True):
    """Money for each year, by purpose."""

    capital: Quantity
    energy_busy: Quantity
    energy_idle: Quantity
    demand: Quantity
    maintenance: Quantity
    fixed: Quantity

    @property
    def total(self) -> Quantity:
        return self.capital + self.energy_busy + self.energy_idle + self.demand + self.maintenance + self.fixed

    @property
    def energy(self) -> Quantity:
        return self.energy_busy + self.energy_idle + self.demand


class Power(Struct, frozen=True, kw_only=True):
    """Watts of the whole node as the cost takes them; `None` with a `reason` when not known. `factor` is node / measured."""

    busy_w: float | None
    idle_w: float | None
    factor: float = 1.0
    measured: bool = True
    """False: declared in the tariff."""
    idle_declared: bool = False
    reason: str = ""
    notes: tuple[str, ...] = ()


class Priced(Struct, frozen=True, kw_only=True):
    """One row's costs. `None` with a `reason` where a part is unknown or nothing was correct."""

    currency: str
    tariff: str
    cost_per_1k_samples: float | None = None
    cost_per_million_output_tokens: float | None = None
    cost_per_correct: float | None = None
    cost_per_acceptable: float | None = None
    """With review and the cost of undetected errors, where the tariff has them."""
    energy_share: float | None = None
    idle_share: float | None = None
    """Of the cost, for hours in which the machine waits."""
    capital_per_1k_samples: float | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def load_tariff(path: Path, machine: str | None = None) -> Tariff:
    """Read a tariff; every mistake is a `StoreError` that names the file and the place. `machine` overrides the file's choice."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read ({error.strerror}); give a tariff file or one of {_shipped()}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not valid TOML: {error}") from error
    try:
        tariff = msgspec.convert(raw | ({"machine": machine} if machine else {}), Tariff)
    except msgspec.ValidationError as error:
        raise StoreError(f"{path}: {error}") from error
    _check(tariff, str(path))
    return tariff


def example_tariff(name: str = "example-us", machine: str | None = None) -> Tariff:
    """One of the tariffs that ship; marked as an example."""
    return load_tariff(EXAMPLES / f"{name}.toml", machine)


def _shipped() -> str:
    return ", ".join(sorted(p.stem for p in EXAMPLES.glob("*.toml")))


def _check(tariff: Tariff, where: str) -> None:
    if tariff.machine not in tariff.machines:
        known = ", ".join(sorted(tariff.machines))
        raise StoreError(f"{where}: `machine` is `{tariff.machine}`, and `machines` has only {known}")
    for name, amount in amounts(tariff).items():
        low, high = amount.low, amount.high
        if amount.value < 0 or (low is not None and low > amount.value) or (high is not None and high < amount.value):
            raise StoreError(f"{where}: `{name}` must be 0 or more, with low <= value <= high")
        if not amount.source or not amount.date:
            raise StoreError(f"{where}: `{name}` needs a source and a date")
    node = tariff.node
    if not 0 < tariff.utilisation.value <= 1 or (tariff.utilisation.high or 0) > 1 or tariff.utilisation.low == 0:
        raise StoreError(f"{where}: `utilisation` must be above 0 and at most 1")
    if node.lifetime_years.value <= 0 or node.lifetime_years.low == 0:
        raise StoreError(f"{where}: `lifetime_years` must be above 0")


def amounts(tariff: Tariff) -> dict[str, Amount]:
    """Every figure that is used, by name; those of machines that were not chosen are left out."""
    found = {name: getattr(tariff, name) for name in tariff.__struct_fields__}
    found |= {name: getattr(tariff.node, name) for name in tariff.node.__struct_fields__}
    if tariff.api:
        found |= {f"api.{name}": getattr(tariff.api, name) for name in tariff.api.__struct_fields__}
    named = {name: value for name, value in found.items() if isinstance(value, Amount)}
    return named | {f"electricity_hours[{i}]": h.price for i, h in enumerate(tariff.electricity_hours)}


def electricity(tariff: Tariff) -> Amount:
    """Mean price of a kWh over the day, every hour alike."""
    if not tariff.electricity_hours:
        return tariff.electricity_per_kwh
    by_hour = [tariff.electricity_per_kwh] * 24
    for span in tariff.electricity_hours:
        length = (span.end - span.start) % 24 or 24
        for offset in range(length):
            by_hour[(span.start + offset) % 24] = span.price
    base = tariff.electricity_per_kwh
    return Amount(
        value=sum(p.value for p in by_hour) / 24,
        low=sum(p.value if p.low is None else p.low for p in by_hour) / 24,
        high=sum(p.value if p.high is None else p.high for p in by_hour) / 24,
        source=base.source,
        date=base.date,
    )


def capital_recovery(rate: Quantity, years: Quantity) -> Quantity:
    """Share of a price to pay each year so that price and interest are paid off after `years`."""
    rates, lives = np.broadcast_arrays(np.asarray(rate, dtype=float), np.asarray(years, dtype=float))
    # r / (1 - (1+r)^-L), written so that a small rate does not cancel to nothing; below 1e-12 it is 1/L to all digits.
    some = np.where(rates > 1e-12, rates, 1.0)
    found = np.where(rates > 1e-12, -some / np.expm1(-lives * np.log1p(some)), 1 / lives)
    return float(found) if found.ndim == 0 else found


def annual_cost(inputs: Inputs) -> Annual:
    """Money for each year; works on values and on draws alike."""
    i = inputs
    kwh = HOURS_PER_YEAR / 1000 * i.pue
    worth_now = i.price - i.salvage / (1 + i.discount_rate) ** i.lifetime_years
    return Annual(
        capital=worth_now * capital_recovery(i.discount_rate, i.lifetime_years),
        energy_busy=kwh * i.utilisation * i.busy_w * i.electricity_per_kwh,
        energy_idle=kwh * (1 - i.utilisation) * i.idle_w * i.electricity_per_kwh,
        demand=12 * i.demand_charge_per_kw_month * i.busy_w * i.pue / 1000,
        maintenance=i.maintenance_share * i.price,
        fixed=i.fixed_per_year,
    )


def cost_per_busy_second(inputs: Inputs) -> Quantity:
    """Money for a second of work."""
    return annual_cost(inputs).total / (SECONDS_PER_YEAR * inputs.utilisation)


def node_power(row: Row, machine: Machine) -> Power:
    """Watts of the whole node under this row's load and at rest.

    A node sensor is taken as it is. Watts of components are multiplied by `k_node` where the tariff has it; else the declared watts of
    the node are taken; else the components' own, which leaves out fans, power supply and the rest, and says so.
    """
    busy, idle = row.mean_power_w, row.idle_loaded_power_w if row.idle_loaded_power_w is not None else row.idle_power_w
    if busy is not None and (row.energy_boundary or "").startswith("node"):
        return _with_idle(Power(busy_w=busy, idle_w=idle), machine)
    if busy is not None and machine.k_node is not None:
        k = machine.k_node.value
        return _with_idle(Power(busy_w=busy * k, idle_w=idle * k if idle is not None else None, factor=k), machine)
    if machine.node_busy_w is not None:
        idle_w = machine.node_idle_w.value if machine.node_idle_w else None
        note = "power of the node as declared in the tariff, not measured"
        return _with_idle(
            Power(busy_w=machine.node_busy_w.value, idle_w=idle_w, measured=False, notes=(note,)), machine
        )
    if busy is None:
        return Power(busy_w=None, idle_w=None, reason="power is unknown and the tariff declares none")
    note = f"power of {row.energy_boundary or 'components'} only: the rest of the node is not in the cost"
    return _with_idle(Power(busy_w=busy, idle_w=idle, notes=(note,)), machine)


def _with_idle(power: Power, machine: Machine) -> Power:
    if power.idle_w is not None:
        return power
    if machine.node_idle_w is not None:
        note = "draw at rest as declared in the tariff, not measured"
        return structs.replace(power, idle_w=machine.node_idle_w.value, idle_declared=True, notes=(*power.notes, note))
    return structs.replace(power, reason="the draw at rest is unknown and the tariff declares none")


def inputs_of(tariff: Tariff, busy_w: float, idle_w: float) -> Inputs:
    """The tariff's values with this row's power."""
    node = tariff.node
    return Inputs(
        price=node.price.value,
        salvage=node.salvage.value,
        lifetime_years=node.lifetime_years.value,
        discount_rate=tariff.discount_rate.value,
        electricity_per_kwh=electricity(tariff).value,
        demand_charge_per_kw_month=_value(tariff.demand_charge_per_kw_month),
        pue=tariff.pue.value,
        maintenance_share=node.maintenance_share.value,
        fixed_per_year=_value(node.rack_per_year)
        + _value(tariff.licences_per_year)
        + _value(tariff.staff_share) * _value(tariff.staff_salary),
        utilisation=tariff.utilisation.value,
        busy_w=busy_w,
        idle_w=idle_w,
    )


def _value(amount: Amount | None) -> float:
    """A cost that the tariff does not name is one that the buyer does not have."""
    return amount.value if amount is not None else 0.0


def price_row(row: Row, tariff: Tariff) -> Priced:
    """Point costs of one row. Ranges come from `results.montecarlo`."""
    blank = Priced(currency=tariff.currency, tariff=tariff.name)
    if row.seconds is None or not row.samples:
        return structs.replace(blank, reason="the step did not end")
    power = node_power(row, tariff.node)
    if power.busy_w is None or power.idle_w is None:
        return structs.replace(blank, reason=power.reason, notes=power.notes)
    inputs = inputs_of(tariff, power.busy_w, power.idle_w)
    annual, cost = annual_cost(inputs), float(cost_per_busy_second(inputs)) * row.seconds
    total = float(annual.total)
    waiting = (1 - tariff.utilisation.value) * (total - float(annual.energy)) + float(annual.energy_idle)
    per_correct, reason = _per_correct(row, cost)
    capital = float(annual.capital) / (SECONDS_PER_YEAR * tariff.utilisation.value) * row.seconds
    return structs.replace(
        blank,
        cost_per_1k_samples=1000 * cost / row.samples,
        cost_per_million_output_tokens=1e6 * cost / row.output_tokens if row.output_tokens else None,
        cost_per_correct=per_correct,
        cost_per_acceptable=_per_acceptable(row, cost, tariff),
        energy_share=float(annual.energy) / total if total else None,
        idle_share=waiting / total if total else None,
        capital_per_1k_samples=1000 * capital / row.samples,
        reason=reason,
        notes=power.notes,
    )


def _per_correct(row: Row, cost: float) -> tuple[float | None, str]:
    if row.correct is None:
        return None, "nothing was judged"
    if row.correct == 0:
        return None, "no answer was correct"
    return cost / row.correct, ""


def _per_acceptable(row: Row, cost: float, tariff: Tariff) -> float | None:
    """(inference + review + undetected errors) for each acceptable output; `None` where the tariff has no review cost."""
    if tariff.review_cost is None or not row.correct or not row.samples:
        return None
    wrong = 1 - row.correct / row.samples
    undetected = 1 - (tariff.p_detected.value if tariff.p_detected else 0.0)
    harm = undetected * wrong * _value(tariff.undetected_error_cost)
    return (cost / row.samples + tariff.review_cost.value + harm) * row.samples / row.correct


def with_price(row: Row, priced: Priced) -> Row:
    """The row with its cost columns filled."""
    return structs.replace(
        row,
        cost_per_1k_samples=priced.cost_per_1k_samples,
        cost_per_correct=priced.cost_per_correct,
        cost_per_million_output_tokens=priced.cost_per_million_output_tokens,
        cost_per_acceptable=priced.cost_per_acceptable,
        cost_energy_share=priced.energy_share,
        cost_idle_share=priced.idle_share,
        cost_reason=" | ".join([p for p in (priced.reason, *priced.notes) if p]) or None,
        currency=priced.currency,
        tariff=priced.tariff,
    )
