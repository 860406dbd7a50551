"""Own machine against an API by the token."""

import pytest
from msgspec import structs
from test_cost import ROW, TARIFF, amount

from results.break_even import api_cost, break_even
from results.cost import Api, Tariff, amounts, example_tariff, price_row
from results.montecarlo import Range, Variant
from results.rows import Row

WRITTEN = structs.replace(ROW, prompt_tokens=40_000)  # 400 in and 100 out for each of 100 samples


def against(price_in: float, price_out: float, high: float | None = None) -> Tariff:
    out = amount(price_out, price_out if high is not None else None, high)
    return structs.replace(
        TARIFF, api=Api(name="an API", input_per_million_tokens=amount(price_in), output_per_million_tokens=out)
    )


def of(tariff: Tariff, row: Row = WRITTEN) -> Variant:
    return Variant(row=row, tariff=tariff)


def test_the_api_is_paid_for_the_tokens_of_this_row() -> None:
    api = against(1.0, 8.0, 16.0).api
    assert api is not None
    asked = api_cost(WRITTEN, api)
    assert asked is not None
    assert (asked.value, asked.low, asked.high) == pytest.approx((0.4 + 0.8, 0.4 + 0.8, 0.4 + 1.6))


def test_at_the_break_even_a_row_costs_what_the_api_asks() -> None:
    tariff = against(2.0, 32.0)
    found = break_even(of(tariff))
    assert found is not None
    assert found.asked.value == pytest.approx(4.0)
    assert found.utilisation is not None
    busier = structs.replace(tariff, utilisation=amount(found.utilisation))
    assert price_row(WRITTEN, busier).cost_per_1k_samples == pytest.approx(4.0)
    assert found.range.lo is not None
    assert found.range.hi is not None
    assert found.range.lo < found.utilisation < found.range.hi
    assert found.never == 0


def test_a_machine_that_is_dearer_at_all_hours_never_breaks_even() -> None:
    found = break_even(of(against(0.5, 0.5)))
    assert found is not None
    assert (found.utilisation, found.range, found.never) == (None, Range(None, None), 1.0)


def test_where_some_draws_never_break_even_the_upper_end_is_unknown() -> None:
    always = price_row(WRITTEN, structs.replace(TARIFF, utilisation=amount(1.0))).cost_per_1k_samples
    assert always is not None
    found = break_even(
        of(against(0.0, 10 * always))
    )  # 100 tokens out for a sample: the price of a machine that always works
    assert found is not None
    assert found.utilisation == pytest.approx(1.0)
    assert found.range.hi is None
    assert 0.4 < found.never < 0.6


def test_a_dearer_api_is_reached_earlier() -> None:
    shares = [break_even(of(against(0.0, price))) for price in (30.0, 60.0, 120.0)]
    values = [s.utilisation for s in shares if s is not None and s.utilisation is not None]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)


def test_rankings_and_rows_without_a_cost_or_an_api_are_not_set_against_one() -> None:
    tariff = against(1.0, 1.0)
    assert break_even(of(TARIFF)) is None
    assert break_even(of(tariff, structs.replace(WRITTEN, output_tokens=0))) is None
    assert break_even(of(tariff, structs.replace(WRITTEN, prompt_tokens=None))) is None
    assert break_even(of(tariff, structs.replace(WRITTEN, seconds=None))) is None
    assert break_even(of(tariff, structs.replace(WRITTEN, mean_power_w=None))) is None


@pytest.mark.parametrize("name", ["example-us", "example-cn"])
def test_shipped_api_prices_have_source_and_date(name: str) -> None:
    tariff = example_tariff(name)
    assert tariff.api is not None
    for key in ("api.input_per_million_tokens", "api.output_per_million_tokens"):
        price = amounts(tariff)[key]
        assert price.source.startswith("api-docs.deepseek.com/")
        assert price.date == "2026-08-16"
