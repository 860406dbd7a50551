"""Draws of accuracy and cost."""

from collections.abc import Sequence

import numpy as np
import pytest
from made_records import Run, manifest, score
from msgspec import structs
from scipy.stats import beta
from test_cost import ROW, TARIFF, amount, with_machine

from results.cost import Tariff, price_row
from results.montecarlo import Range, Swing, Variant, interval, simulate, tornado, triangular, variant_of, with_ranges
from results.rows import Row
from results.stats import Item
from results.summary import fold


def variant(name: str, values: Sequence[float], row: Row = ROW, tariff: Tariff = TARIFF) -> Variant:
    items = tuple(Item(f"q{i}", f"q{i}", v, 1) for i, v in enumerate(values))
    right = sum(values)
    made = structs.replace(
        row,
        cell=name,
        samples=len(values),
        correct=int(right),
        steady_output_tokens_per_s=100.0,
        steady_output_tokens_per_s_lo=98.0,
        steady_output_tokens_per_s_hi=102.0,
    )
    return Variant(row=made, tariff=tariff, values=items, successes=items)


HALF = [1.0, 0.0] * 50


def test_draws_are_around_the_point_and_the_same_each_time() -> None:
    one = variant("a", HALF)
    first, second = simulate([one]), simulate([one])
    assert np.array_equal(first.cost_per_correct, second.cost_per_correct)
    priced = price_row(one.row, TARIFF)
    assert first.accuracy.mean() == pytest.approx(0.5, abs=0.002)
    assert first.accuracy.std() == pytest.approx(0.05, abs=0.002)
    assert first.cost_per_1k_samples.mean() == pytest.approx(priced.cost_per_1k_samples, rel=0.005)


def test_a_variant_has_the_same_draws_whatever_it_is_drawn_with() -> None:
    alone = simulate([variant("a", HALF)], draws=500)
    beside = simulate([variant("b", HALF), variant("a", HALF)], draws=500)
    assert np.array_equal(alone.cost_per_1k_samples[0], beside.cost_per_1k_samples[1])


def test_items_are_drawn_together_so_that_a_small_sure_gain_shows() -> None:
    better = [1.0] * 20 + HALF[20:]
    drawn = simulate([variant("a", HALF), variant("b", better)], draws=2000)
    assert (drawn.accuracy[1] > drawn.accuracy[0]).mean() > 0.99
    assert np.quantile(drawn.accuracy[0], 0.975) > np.quantile(drawn.accuracy[1], 0.025)  # unpaired they overlap


@pytest.mark.parametrize(("forth", "back"), [(0, 0), (1, 0), (2, 0), (3, 1), (8, 2), (12, 12)])
def test_the_chance_to_be_better_is_that_of_a_uniform_prior(forth: int, back: int) -> None:
    """Two hundred items, on `forth` of which only the first is right and on `back` only the second."""
    alike = [float(i % 2) for i in range(200 - forth - back)]
    first, second = alike + [1.0] * forth + [0.0] * back, alike + [0.0] * forth + [1.0] * back
    drawn = simulate([variant("a", first), variant("b", second)])
    chance = (drawn.accuracy[0] > drawn.accuracy[1]).mean()
    assert chance == pytest.approx(beta.sf(0.5, forth + 1, back + 1), abs=0.015)


def test_loads_of_one_deployment_are_as_accurate_as_each_other() -> None:
    one = variant("a", HALF)
    loads = [structs.replace(one, row=structs.replace(one.row, step=step)) for step in ("qa@c1", "qa@c4")]
    drawn = simulate(loads, draws=500)
    assert np.array_equal(drawn.accuracy[0], drawn.accuracy[1])


def test_summaries_differ_on_an_unseen_note_by_no_more_than_on_one_that_was_seen() -> None:
    close, same = [0.5, 0.6, 0.7, 0.8] * 3, [0.5, 0.6, 0.7, 0.81] * 3
    narrow = simulate([variant("a", close), variant("b", same)], draws=2000).accuracy
    wide = simulate([variant("a", close), variant("b", [0.1, 1.0, 0.7, 0.8] * 3)], draws=2000).accuracy
    assert (narrow[0] - narrow[1]).std() < 0.005
    assert (wide[0] - wide[1]).std() > 0.05


def test_one_sensor_errs_alike_for_all_variants() -> None:
    row = structs.replace(
        ROW, energy_j=100.0, energy_low_j=60.0, energy_high_j=140.0, energy_meters="estimate", power_class="E2"
    )
    drawn = simulate([variant("a", HALF, row), variant("b", HALF, row)], draws=2000)
    correlation = np.corrcoef(drawn.energy_per_sample_j)[0, 1]
    assert correlation > 0.99
    assert np.quantile(drawn.energy_per_sample_j[0], [0.025, 0.975]) == pytest.approx([0.62, 1.38], abs=0.03)


def test_energy_keeps_the_range_of_its_sensor_where_the_cost_takes_declared_watts() -> None:
    row = structs.replace(ROW, energy_boundary="gpu", energy_j=100.0, energy_low_j=92.0, energy_high_j=108.0)
    declared = with_machine(node_busy_w=amount(1000.0), node_idle_w=amount(300.0))
    drawn = simulate([variant("a", HALF, row, declared)], draws=2000)
    assert np.quantile(drawn.energy_per_sample_j[0], [0.025, 0.975]) == pytest.approx([0.92, 1.08], abs=0.02)
    assert drawn.cost_per_1k_samples[0].std() / drawn.cost_per_1k_samples[0].mean() == pytest.approx(0.0102, rel=0.1)


def test_prices_of_a_tariff_are_the_same_for_all_its_variants() -> None:
    ranged = with_machine(price=amount(8760, 4000, 20000))
    drawn = simulate([variant("a", HALF, tariff=ranged), variant("b", HALF, tariff=ranged)], draws=2000)
    assert np.corrcoef(drawn.cost_per_1k_samples)[0, 1] > 0.99


def test_what_cannot_be_priced_or_judged_has_no_draws() -> None:
    dark = structs.replace(ROW, mean_power_w=None, idle_power_w=None)
    unpriced, unjudged = (
        simulate([variant("a", HALF, dark)], draws=10),
        simulate([Variant(row=ROW, tariff=TARIFF)], draws=10),
    )
    assert np.isnan(unpriced.cost_per_1k_samples).all()
    assert not np.isnan(unpriced.accuracy).any()
    assert np.isnan(unjudged.accuracy).all()
    assert np.isnan(unjudged.cost_per_correct).all()
    assert not np.isnan(unjudged.cost_per_1k_samples).any()


def test_nothing_correct_has_no_cost_for_each_in_any_draw() -> None:
    drawn = simulate([variant("a", [0.0] * 20)], draws=50)
    assert np.isnan(drawn.cost_per_correct).mean() == pytest.approx(0.5, abs=0.2)  # an item not seen may be right
    assert interval(drawn.cost_per_correct[0]) == Range(None, None)


def test_interval_counts_draws_without_a_value_as_endless() -> None:
    drawn = np.concatenate([np.arange(99.0), [np.nan]])
    found = interval(drawn)
    assert found.lo == pytest.approx(np.quantile(np.arange(99.0), 0.025 / 0.99))
    assert found.hi == pytest.approx(np.quantile(np.arange(99.0), 0.975 / 0.99))
    assert interval(np.concatenate([np.arange(96.0), [np.nan] * 4])).hi is None


def test_triangular_draws_have_their_ends_and_mean() -> None:
    uniform = np.linspace(0, 1, 10_001)
    drawn = triangular(amount(2, 1, 6), uniform)
    assert (drawn[0], drawn[-1]) == (1.0, 6.0)
    assert drawn.mean() == pytest.approx((1 + 2 + 6) / 3, abs=0.001)
    assert set(triangular(amount(3), uniform)) == {3.0}


def test_a_row_gets_the_intervals_of_its_costs() -> None:
    one = variant("a", HALF)
    row = with_ranges(one.row, simulate([one]), one.name)
    assert row.cost_per_1k_samples_lo is not None
    assert row.cost_per_1k_samples_hi is not None
    priced = price_row(one.row, TARIFF).cost_per_1k_samples
    assert priced is not None
    assert row.cost_per_1k_samples_lo < priced < row.cost_per_1k_samples_hi
    assert row.cost_per_correct_lo is not None


def test_tornado_is_sorted_by_what_moves_the_cost_most() -> None:
    tariff = structs.replace(
        with_machine(price=amount(8760, 4000, 20000)), pue=amount(2.0, 1.9, 2.1), utilisation=amount(0.5, 0.1, 0.9)
    )
    swings = tornado(variant("a", HALF, tariff=tariff))
    assert [s.name for s in swings] == ["utilisation", "price", "speed", "pue"]
    assert all(isinstance(s, Swing) for s in swings)
    assert swings[0].cost_at_p10 > swings[0].cost_at_p90
    assert swings[1].cost_at_p10 < swings[1].cost_at_p90
    assert tornado(variant("a", HALF, structs.replace(ROW, seconds=None))) == ()


def test_a_variant_is_made_from_a_row_and_its_scores() -> None:
    run = Run()
    run.scores = [score("q0"), score("q1", 0.0), score("q2", None), score("q3")]
    facts = run.cell_facts()
    (row,) = fold(manifest("smoke", facts, run.host), facts, run.events(), run.telemetry, run.scores)
    made = variant_of(row, TARIFF, run.scores)
    assert made.values == (Item("q0", "q0", 1.0, 1), Item("q1", "q1", 0.0, 1), Item("q3", "q3", 1.0, 1))
    assert made.name == "run/tiny-000000/qa@c1"
