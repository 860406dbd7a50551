"""Intervals for one variant."""

import math

import pytest

from results.profiles import FLOORS
from results.stats import (
    Interval,
    Item,
    Percentile,
    batch_means,
    bootstrap_mean,
    clustered_se,
    detectable_difference,
    exact,
    items_of,
    mean_t,
    percentile,
    percentile_floor,
    required_items,
    score_interval,
    wilson,
    wilson_clustered,
)


def rounded(interval: Interval, digits: int = 3) -> tuple[float, float, float, int, str]:
    assert interval.value is not None
    assert interval.lo is not None
    assert interval.hi is not None
    return (
        round(interval.value, digits),
        round(interval.lo, digits),
        round(interval.hi, digits),
        interval.n,
        interval.method,
    )


def test_wilson_is_the_textbook_formula() -> None:
    assert rounded(wilson(30, 40)) == (0.75, 0.598, 0.858, 40, "wilson")
    assert rounded(wilson(0, 12)) == (0.0, 0.0, 0.242, 12, "wilson")


@pytest.mark.parametrize(("n", "half"), [(40, 0.130), (100, 0.084), (1273, 0.024)])
def test_half_widths_at_75_percent_are_the_published_ones(n: int, half: float) -> None:
    found = wilson(round(0.75 * n), n)
    assert found.lo is not None
    assert found.hi is not None
    assert (found.hi - found.lo) / 2 == pytest.approx(half, abs=0.001)


def test_no_failure_in_100_leaves_an_upper_bound_of_about_three_in_a_hundred() -> None:
    one_sided_95 = exact(0, 100, confidence=0.90)
    assert one_sided_95.hi == pytest.approx(0.0295, abs=0.0001)


def test_nothing_observed_gives_no_interval() -> None:
    assert wilson(0, 0) == Interval(value=None, lo=None, hi=None, n=0, method="wilson")
    assert mean_t([]) == Interval(value=None, lo=None, hi=None, n=0, method="t")
    assert bootstrap_mean([]).value is None


def test_clustered_standard_error_by_hand() -> None:
    # mean 0.5; cluster a sums to +1.0 about it, b to -1.0: sqrt(2/1 * 2) / 4 = 0.5
    assert clustered_se([1, 1, 0, 0], ["a", "a", "b", "b"]) == (0.5, 2)
    # singletons: the ordinary standard error, sd 0.577 / sqrt(4)
    se, groups = clustered_se([1, 1, 0, 0], ["a", "b", "c", "d"])
    assert se == pytest.approx(math.sqrt(1 / 3) / 2)
    assert groups == 4


def test_one_cluster_has_a_mean_and_no_interval() -> None:
    found = mean_t([1.0, 0.0], ["a", "a"])
    assert (found.value, found.lo, found.hi, found.n) == (0.5, None, None, 1)


def test_clusters_widen_the_interval() -> None:
    values = [1.0] * 10 + [0.0] * 10
    alone = wilson_clustered(values, [str(i) for i in range(20)])
    shared = wilson_clustered(values, [str(i // 5) for i in range(20)])
    assert alone.lo is not None
    assert shared.lo is not None
    assert shared.lo < alone.lo


def test_equal_values_in_clusters_count_each_cluster_once() -> None:
    found = wilson_clustered([1.0] * 20, [str(i // 5) for i in range(20)])
    assert (found.value, found.n) == (1.0, 4)
    assert found.lo is not None
    assert 0.2 < found.lo < 0.4  # t quantile with 3 degrees of freedom on 4 outcomes


def test_pass_at_1_is_the_mean_over_an_items_answers() -> None:
    assert items_of([("q1", "", 1.0), ("q1", "", 0.0), ("q2", "p", 1.0)]) == (
        Item("q1", "q1", 0.5, 2),
        Item("q2", "p", 1.0, 1),
    )


@pytest.mark.parametrize(
    ("items", "method"),
    [
        ([Item("a", "a", 1.0, 1), Item("b", "b", 0.0, 1)], "wilson"),
        ([Item("a", "x", 1.0, 1), Item("b", "x", 0.0, 1), Item("c", "c", 1.0, 1)], "wilson_clustered"),
        ([Item("a", "a", 0.5, 4), Item("b", "b", 0.25, 4)], "wilson_clustered"),
        ([Item(str(i), str(i), i / 20, 1) for i in range(20)], "bca"),
        ([Item(str(i), str(i // 2), i / 20, 1) for i in range(20)], "t_clustered"),
    ],
)
def test_the_interval_that_fits_is_chosen(items: list[Item], method: str) -> None:
    assert score_interval(items).method == method


def test_equal_graded_scores_do_not_make_a_certain_interval() -> None:
    found = bootstrap_mean([0.5] * 12)
    assert rounded(found) == (0.5, 0.254, 0.746, 12, "wilson_equal_values")


def test_bootstrap_is_reproducible_and_skewed_as_the_values_are() -> None:
    values = [1.0] * 18 + [0.2, 0.4]
    first, second = bootstrap_mean(values), bootstrap_mean(values)
    assert first == second
    assert first.lo is not None
    assert first.hi is not None
    assert first.value is not None
    assert first.value - first.lo > first.hi - first.value


def test_many_values_use_the_t_interval() -> None:
    assert bootstrap_mean([i % 7 / 7 for i in range(1001)]).method == "t"


def test_percentile_floors_are_those_of_early_stopping() -> None:
    assert {q: percentile_floor(q) for q in FLOORS} == dict(FLOORS)
    assert percentile_floor(0.999) == 6636
    assert [percentile_floor(q, 0.95) for q in (0.5, 0.9, 0.95, 0.99)] == [8, 46, 93, 473]


def test_a_percentile_below_its_floor_is_empty_with_the_reason() -> None:
    assert percentile([1.0] * 129, 0.95) == Percentile(
        value=None, n=129, floor=130, reason="p95 needs 130 values, 129 were seen"
    )
    assert percentile([float(i) for i in range(11)], 0.5) == Percentile(value=5.0, n=11, floor=11)


def test_batch_means_are_a_t_interval_over_batches() -> None:
    assert rounded(batch_means([10.0, 12.0])) == (11.0, -1.706, 23.706, 2, "batch_means")
    assert batch_means([10.0]).lo is None


def test_sample_sizes_are_the_published_ones() -> None:
    assert required_items(0.01, 0.10) == 6183
    assert required_items(0.022, 0.10) <= 1278
    assert required_items(0.02, 0.10) == 1546


@pytest.mark.parametrize(
    ("n", "psi", "points"), [(40, 0.05, 9.9), (300, 0.10, 5.1), (1000, 0.20, 4.0), (1273, 0.10, 2.5), (4183, 0.30, 2.4)]
)
def test_detectable_differences_are_the_published_ones(n: int, psi: float, points: float) -> None:
    assert 100 * detectable_difference(n, psi) == pytest.approx(points, abs=0.05)


def test_few_answers_that_happen_to_agree_are_not_taken_for_many() -> None:
    """Three items of four yes/no answers each, all with two right: at most twelve independent answers, not thousands."""
    found = score_interval([Item("a", "a", 0.5, 4), Item("b", "b", 0.5, 4), Item("c", "c", 0.75, 4)])
    assert found.lo is not None
    assert found.hi is not None
    assert found.hi - found.lo > 0.5
    capped, free = (
        wilson_clustered([0.5, 0.5, 0.51], ["a", "b", "c"], outcomes=12),
        wilson_clustered([0.5, 0.5, 0.51], ["a", "b", "c"]),
    )
    assert (free.hi or 0) - (free.lo or 0) < 0.03
    assert (capped.hi or 0) - (capped.lo or 0) > 0.5


@pytest.mark.parametrize("items", [[Item("a", "x", 0.7, 1), Item("b", "x", 0.7, 1), Item("c", "y", 0.7, 1)]])
def test_graded_items_in_clusters_that_are_all_equal_have_a_width(items: list[Item]) -> None:
    found = score_interval(items)
    assert found.n == 2
    assert found.lo is not None
    assert found.hi is not None
    assert found.hi - found.lo > 0.5


def test_a_bootstrap_of_few_notes_gives_way_to_t() -> None:
    assert bootstrap_mean([0.2, 0.4, 0.9]).method == "t"
    assert bootstrap_mean([i / 20 for i in range(20)]).method == "bca"
    one = score_interval([Item("a", "a", 0.7, 1)])
    assert (one.value, one.lo, one.hi) == (0.7, None, None)
