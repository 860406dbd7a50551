"""What a sample and a correct answer cost."""

from pathlib import Path

import pytest
from msgspec import structs

from results.cost import (
    EXAMPLES,
    Amount,
    HourPrice,
    Inputs,
    Machine,
    Power,
    Priced,
    Tariff,
    amounts,
    annual_cost,
    capital_recovery,
    cost_per_busy_second,
    electricity,
    example_tariff,
    load_tariff,
    node_power,
    price_row,
    with_price,
)
from results.rows import Row
from results.store import StoreError


def amount(value: float, low: float | None = None, high: float | None = None) -> Amount:
    return Amount(value=value, low=low, high=high, source="quote", date="2026-11-22")


MACHINE = Machine(price=amount(8760), salvage=amount(0), lifetime_years=amount(1), maintenance_share=amount(0))
TARIFF = Tariff(
    name="test",
    currency="EUR",
    machine="box",
    machines={"box": MACHINE},
    discount_rate=amount(0),
    electricity_per_kwh=amount(0.10),
    pue=amount(2.0),
    utilisation=amount(0.5),
    utilisation_basis="declared",
)
ROW = Row(
    run="r", cell="c", outcome="ok", model="m", task="t", language="en", scoring="generate", load="c1", metric="accuracy", valid=True,
    step="t@c1", deployment="d", backend="b", profile="smoke",
    samples=100, scored=100, correct=50, accuracy=0.5, output_tokens=10_000, seconds=360.0, mean_power_w=1000.0, idle_power_w=500.0,
    energy_boundary="node_ac",
)  # fmt: skip


def test_capital_recovery_by_hand() -> None:
    assert capital_recovery(0.0, 5.0) == 0.2
    assert capital_recovery(0.10, 2.0) == pytest.approx(0.1 * 1.21 / 0.21)


def test_one_row_by_hand() -> None:
    # each year: 8,760 for the machine; 4,380 h at 1 kW and 4,380 h at 0.5 kW, doubled by PUE: 13,140 kWh, 1,314
    # 10,074 in 4,380 busy hours: 2.30 an hour; 360 s cost 0.23
    priced = price_row(ROW, TARIFF)
    assert priced.cost_per_1k_samples == pytest.approx(2.30)
    assert priced.cost_per_correct == pytest.approx(0.0046)
    assert priced.cost_per_million_output_tokens == pytest.approx(23.0)
    assert priced.energy_share == pytest.approx(1314 / 10074)
    assert priced.idle_share == pytest.approx((4380 + 438) / 10074)
    assert priced.capital_per_1k_samples == pytest.approx(2.0)
    assert (priced.currency, priced.tariff, priced.reason, priced.notes) == ("EUR", "test", "", ())


def test_salvage_interest_demand_maintenance_and_fixed_costs() -> None:
    inputs = Inputs(
        price=1000.0, salvage=121.0, lifetime_years=2.0, discount_rate=0.10, electricity_per_kwh=0.0, demand_charge_per_kw_month=10.0,
        pue=1.5, maintenance_share=0.05, fixed_per_year=7.0, utilisation=1.0, busy_w=2000.0, idle_w=0.0,
    )  # fmt: skip
    annual = annual_cost(inputs)
    assert annual.capital == pytest.approx(900 * 0.1 * 1.21 / 0.21)
    assert annual.demand == pytest.approx(12 * 10 * 3)
    assert (annual.maintenance, annual.fixed, annual.energy_busy) == (50.0, 7.0, 0.0)
    assert cost_per_busy_second(inputs) == pytest.approx(annual.total / (8760 * 3600))


def test_nothing_correct_has_no_cost_for_each_and_says_so() -> None:
    priced = price_row(structs.replace(ROW, correct=0), TARIFF)
    assert (priced.cost_per_correct, priced.reason) == (None, "no answer was correct")
    assert priced.cost_per_1k_samples == pytest.approx(2.30)
    assert price_row(structs.replace(ROW, correct=None), TARIFF).reason == "nothing was judged"


def test_a_step_that_did_not_end_has_no_cost() -> None:
    assert price_row(structs.replace(ROW, seconds=None), TARIFF) == Priced(
        currency="EUR", tariff="test", reason="the step did not end"
    )


def with_machine(**values: Amount) -> Tariff:
    return structs.replace(TARIFF, machines={"box": structs.replace(MACHINE, **values)})


CPU_ROW = structs.replace(ROW, energy_boundary="cpu_package")


def test_watts_of_a_node_are_taken_as_measured() -> None:
    assert node_power(ROW, MACHINE) == Power(busy_w=1000.0, idle_w=500.0)
    assert node_power(structs.replace(ROW, idle_loaded_power_w=600.0), MACHINE).idle_w == 600.0


def test_watts_of_components_are_scaled_declared_or_marked() -> None:
    scaled = node_power(CPU_ROW, with_machine(k_node=amount(1.5)).node)
    assert scaled == Power(busy_w=1500.0, idle_w=750.0, factor=1.5)
    declared = node_power(CPU_ROW, with_machine(node_busy_w=amount(2000), node_idle_w=amount(900)).node)
    assert (declared.busy_w, declared.idle_w, declared.measured) == (2000.0, 900.0, False)
    assert declared.notes[0] == "power of the node as declared in the tariff, not measured"
    marked = node_power(CPU_ROW, MACHINE)
    assert (marked.busy_w, marked.notes) == (
        1000.0,
        ("power of cpu_package only: the rest of the node is not in the cost",),
    )


def test_unknown_power_is_an_unknown_cost_unless_the_tariff_declares_it() -> None:
    dark = structs.replace(ROW, mean_power_w=None, idle_power_w=None, energy_boundary=None)
    assert price_row(dark, TARIFF).reason == "power is unknown and the tariff declares none"
    assert price_row(
        dark, with_machine(node_busy_w=amount(1000), node_idle_w=amount(500))
    ).cost_per_1k_samples == pytest.approx(2.30)
    restless = structs.replace(ROW, idle_power_w=None)
    assert price_row(restless, TARIFF).reason == "the draw at rest is unknown and the tariff declares none"


def test_prices_by_the_hour_are_averaged_over_the_day() -> None:
    by_hour = structs.replace(
        TARIFF,
        electricity_per_kwh=amount(0.12),
        electricity_hours=(
            HourPrice(start=22, end=6, price=amount(0.06)),
            HourPrice(start=10, end=12, price=amount(0.24)),
        ),
    )
    assert electricity(by_hour).value == pytest.approx((8 * 0.06 + 2 * 0.24 + 14 * 0.12) / 24)
    whole_day = structs.replace(TARIFF, electricity_hours=(HourPrice(start=0, end=24, price=amount(0.3)),))
    assert electricity(whole_day).value == pytest.approx(0.3)


def test_an_acceptable_output_pays_for_review_and_for_errors_that_nobody_saw() -> None:
    careful = structs.replace(
        TARIFF, review_cost=amount(1.0), undetected_error_cost=amount(10.0), p_detected=amount(0.9)
    )
    # (0.0023 inference + 1 review + 0.1 * 0.5 * 10 harm) / 0.5
    assert price_row(ROW, careful).cost_per_acceptable == pytest.approx((0.0023 + 1.0 + 0.5) / 0.5)
    assert price_row(ROW, TARIFF).cost_per_acceptable is None


def test_a_priced_row_carries_its_costs_and_where_they_come_from() -> None:
    row = with_price(CPU_ROW, price_row(CPU_ROW, TARIFF))
    assert (row.currency, row.tariff) == ("EUR", "test")
    assert row.cost_reason == "power of cpu_package only: the rest of the node is not in the cost"
    assert row.cost_per_1k_samples == pytest.approx(2.30)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_tariffs_are_examples_with_sources_and_price_every_machine(path: Path) -> None:
    tariff = load_tariff(path)
    assert tariff.example
    assert "EXAMPLE" in tariff.description
    for name in tariff.machines:
        one = load_tariff(path, name)
        assert all(a.source and a.date for a in amounts(one).values())
        assert price_row(ROW, one).cost_per_1k_samples is not None


def test_shipped_tariffs_cover_three_currencies_and_the_machines_of_the_examples() -> None:
    assert {example_tariff(f"example-{c}").currency for c in ("cn", "de", "us")} == {"CNY", "EUR", "USD"}
    assert set(example_tariff("example-cn").machines) == {
        "demo-cpu-2-core", "8xh20-96g", "8xh100-80g", "2x8x910b-64g", "4090-1tb",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('currency = "USD"', 'currency = "USD"\ncurency = "EUR"', "unknown field `curency`"),
        ("value = 0.20\nlow = 0.05\nhigh = 0.50", "value = 1.5", "`utilisation` must be above 0 and at most 1"),
        ("value = 0.1282", "value = 0.5", "`electricity_per_kwh` must be 0 or more, with low <= value <= high"),
        ('machine = "demo-cpu-2-core"', 'machine = "mainframe"', "`machine` is `mainframe`"),
        ('date = "2025-06-25"', 'date = ""', "`electricity_per_kwh` needs a source and a date"),
        ('currency = "USD"', "currency = ", "not valid TOML"),
        (
            "lifetime_years = { value = 5, low = 3",
            "lifetime_years = { value = 0, low = 0",
            "`lifetime_years` must be above 0",
        ),
    ],
)
def test_a_mistake_in_a_tariff_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = (EXAMPLES / "example-us.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(StoreError) as caught:
        load_tariff(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_tariff_names_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="example-cn, example-de, example-us"):
        load_tariff(tmp_path / "none.toml")
