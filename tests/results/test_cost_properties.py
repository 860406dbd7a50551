"""What must hold of every cost, whatever the figures."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from results.cost import Amount, Machine, Priced, Tariff, price_row
from results.rows import Row

positive = st.floats(min_value=0.01, max_value=1e6)
share = st.floats(min_value=0.01, max_value=0.5)
factor = st.floats(min_value=1.0, max_value=100.0)


def amount(value: float) -> Amount:
    return Amount(value=value, source="drawn", date="2026-11-22")


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    price = draw(st.floats(min_value=1.0, max_value=1e7))
    machine = Machine(
        price=amount(price),
        salvage=amount(price * draw(st.floats(min_value=0.0, max_value=1.0))),
        lifetime_years=amount(draw(st.floats(min_value=1.0, max_value=10.0))),
        maintenance_share=amount(draw(share)),
        rack_per_year=amount(draw(positive)),
    )
    return Tariff(
        name="drawn",
        currency="EUR",
        machine="box",
        machines={"box": machine},
        discount_rate=amount(draw(st.floats(min_value=0.0, max_value=0.2))),
        electricity_per_kwh=amount(draw(share)),
        demand_charge_per_kw_month=amount(draw(share)),
        pue=amount(draw(st.floats(min_value=1.0, max_value=3.0))),
        utilisation=amount(draw(share)),
        utilisation_basis="declared",
    )


@st.composite
def rows(draw: st.DrawFn) -> Row:
    busy = draw(st.floats(min_value=1.0, max_value=1e5))
    samples = draw(st.integers(min_value=1, max_value=10_000))
    return Row(
        run="r", cell="c", outcome="ok", model="m", task="t", language="en", scoring="generate", load="c1", metric="accuracy",
        valid=True, step="s", deployment="d", backend="b", profile="smoke", samples=samples, scored=samples,
        correct=draw(st.integers(min_value=1, max_value=samples)), output_tokens=draw(st.integers(min_value=1, max_value=10**7)),
        seconds=draw(st.floats(min_value=0.1, max_value=1e5)), mean_power_w=busy,
        idle_power_w=busy * draw(st.floats(min_value=0.0, max_value=1.0)), energy_boundary="node_ac",
    )  # fmt: skip


def costs(priced: Priced) -> tuple[float, float, float]:
    found = priced.cost_per_1k_samples, priced.cost_per_correct, priced.cost_per_million_output_tokens
    assert found[0] is not None
    assert found[1] is not None
    assert found[2] is not None
    return found[0], found[1], found[2]


def with_machine(tariff: Tariff, **values: Amount) -> Tariff:
    return structs.replace(tariff, machines={"box": structs.replace(tariff.node, **values)})


def no_less(dearer: Priced, cheaper: Priced) -> bool:
    return all(a >= b * (1 - 1e-9) for a, b in zip(costs(dearer), costs(cheaper), strict=True))


@given(rows(), tariffs(), factor)
def test_a_dearer_machine_never_costs_less(row: Row, tariff: Tariff, by: float) -> None:
    dearer = with_machine(tariff, price=amount(tariff.node.price.value * by))
    assert no_less(price_row(row, dearer), price_row(row, tariff))


@given(rows(), tariffs(), factor)
def test_more_power_never_costs_less(row: Row, tariff: Tariff, by: float) -> None:
    assert row.mean_power_w is not None
    assert row.idle_power_w is not None
    hungrier = structs.replace(row, mean_power_w=row.mean_power_w * by, idle_power_w=row.idle_power_w * by)
    assert no_less(price_row(hungrier, tariff), price_row(row, tariff))


@given(rows(), tariffs(), factor)
def test_dearer_electricity_and_a_worse_room_never_cost_less(row: Row, tariff: Tariff, by: float) -> None:
    dearer = structs.replace(tariff, electricity_per_kwh=amount(tariff.electricity_per_kwh.value * by))
    warmer = structs.replace(tariff, pue=amount(tariff.pue.value * by))
    assert no_less(price_row(row, dearer), price_row(row, tariff))
    assert no_less(price_row(row, warmer), price_row(row, tariff))


@given(rows(), tariffs(), st.floats(min_value=0.01, max_value=100.0))
def test_another_currency_scales_every_cost_alike(row: Row, tariff: Tariff, rate: float) -> None:
    node = tariff.node
    assert node.rack_per_year is not None
    assert tariff.demand_charge_per_kw_month is not None
    foreign = structs.replace(
        with_machine(
            tariff,
            price=amount(node.price.value * rate),
            salvage=amount(node.salvage.value * rate),
            rack_per_year=amount(node.rack_per_year.value * rate),
        ),
        electricity_per_kwh=amount(tariff.electricity_per_kwh.value * rate),
        demand_charge_per_kw_month=amount(tariff.demand_charge_per_kw_month.value * rate),
    )
    here, there = price_row(row, tariff), price_row(row, foreign)
    assert all(abs(b - a * rate) <= 1e-9 * abs(b) for a, b in zip(costs(here), costs(there), strict=True))
    assert here.energy_share is not None
    assert there.energy_share is not None
    assert abs(here.energy_share - there.energy_share) < 1e-9


@given(rows(), tariffs())
def test_twice_the_utilisation_halves_the_capital_in_each_sample(row: Row, tariff: Tariff) -> None:
    busier = structs.replace(tariff, utilisation=amount(2 * tariff.utilisation.value))
    once, twice = price_row(row, tariff).capital_per_1k_samples, price_row(row, busier).capital_per_1k_samples
    assert once is not None
    assert twice is not None
    assert abs(twice - once / 2) <= 1e-9 * abs(once)


@given(rows(), tariffs())
def test_nothing_correct_is_empty_with_a_reason_and_never_endless(row: Row, tariff: Tariff) -> None:
    priced = price_row(structs.replace(row, correct=0), tariff)
    assert (priced.cost_per_correct, priced.reason) == (None, "no answer was correct")


@given(rows(), tariffs())
def test_shares_are_shares(row: Row, tariff: Tariff) -> None:
    priced = price_row(row, tariff)
    assert priced.energy_share is not None
    assert priced.idle_share is not None
    assert 0 <= priced.energy_share <= 1
    assert 0 <= priced.idle_share <= 1
