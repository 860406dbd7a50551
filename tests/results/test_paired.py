"""Two variants on the same items."""

import math

import numpy as np
import pytest
import scipy.stats
from msgspec import structs

from results.paired import (
    Comparison,
    Pairs,
    benjamini_hochberg,
    bootstrap_difference,
    compare,
    discordance,
    holm,
    mcnemar_exact,
    mcnemar_mid_p,
    non_inferiority,
    pair,
    t_test,
    tango,
)
from results.stats import Interval, Item


def pairs(first: list[float], second: list[float], clusters: list[str] | None = None, repeated: bool = False) -> Pairs:
    ids = tuple(str(i) for i in range(len(first)))
    return Pairs(ids=ids, clusters=tuple(clusters or ids), first=tuple(first), second=tuple(second), repeated=repeated)


def counts(both: int, only_first: int, only_second: int, neither: int = 0) -> Pairs:
    first = [1.0] * both + [1.0] * only_first + [0.0] * only_second + [0.0] * neither
    second = [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * neither
    return pairs(first, second)


def test_only_common_items_are_paired() -> None:
    first = [Item("a", "a", 1.0, 1), Item("b", "b", 0.0, 1)]
    second = [Item("b", "b", 1.0, 1), Item("c", "c", 1.0, 1)]
    assert pair(first, second) == Pairs(ids=("b",), clusters=("b",), first=(0.0,), second=(1.0,), repeated=False)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(5, 0) == 0.0625  # five coin tosses, all alike
    assert mcnemar_mid_p(5, 0) == 0.0625 - 1 / 32
    assert mcnemar_mid_p(3, 3) == pytest.approx(1 - 0.5 * 20 / 64)
    assert mcnemar_mid_p(0, 0) == 1.0


def test_fewer_than_six_discordant_items_never_reach_five_percent_exactly() -> None:
    assert mcnemar_exact(5, 0) > 0.05
    assert mcnemar_exact(6, 0) < 0.05


def score_statistic(delta: float, b: int, c: int, n: int) -> float:
    """Tango's statistic with the constrained maximum likelihood found by brute force instead of the closed form."""
    grid = np.linspace(max(0.0, -delta), min(1.0, (1 - delta) / 2) if delta < 1 else 0.0, 200_001)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = 1 - 2 * grid - delta
        logs = b * np.log(grid + delta) + c * np.log(grid) + (n - b - c) * np.log(rest)
    q = float(grid[np.nanargmax(np.where(np.isfinite(logs), logs, -np.inf))])
    return (b - c - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))


@pytest.mark.parametrize(("b", "c", "n"), [(10, 5, 100), (3, 12, 60), (20, 1, 300)])
def test_tango_limits_are_where_the_score_statistic_is_critical(b: int, c: int, n: int) -> None:
    found = tango(b, c, n)
    assert found.lo is not None
    assert found.hi is not None
    z = float(scipy.stats.norm.ppf(0.975))
    assert score_statistic(found.lo, b, c, n) == pytest.approx(z, abs=0.01)
    assert score_statistic(found.hi, b, c, n) == pytest.approx(-z, abs=0.01)


def test_tango_does_not_collapse_where_no_item_differs() -> None:
    found = tango(0, 0, 50)
    assert found.value == 0.0
    assert found.hi == pytest.approx(0.0713, abs=0.0001)
    assert found.lo == pytest.approx(-0.0713, abs=0.0001)


def test_tango_reaches_the_ends_of_the_range() -> None:
    assert tango(5, 0, 5).hi == 1.0
    assert tango(0, 5, 5).lo == -1.0
    assert tango(0, 0, 0) == Interval(value=None, lo=None, hi=None, n=0, method="tango")


def test_a_variant_compared_with_itself_shows_no_difference() -> None:
    same = counts(30, 0, 0, 10)
    found = compare(same)
    assert (found.difference.value, found.p_value, found.flip_rate, found.detectable) == (0.0, 1.0, 0.0, None)


def test_comparison_of_yes_no_answers() -> None:
    found = compare(counts(60, 12, 3, 25))
    assert found == Comparison(
        difference=tango(12, 3, 100),
        p_value=mcnemar_mid_p(12, 3),
        test="mcnemar_mid_p",
        flip_rate=0.15,
        detectable=found.detectable,
        discordance=discordance(counts(60, 12, 3, 25)),
        mcnemar_p=mcnemar_mid_p(12, 3),
    )
    assert found.detectable == pytest.approx(0.1085, abs=0.0001)


def test_clusters_are_used_for_interval_and_test() -> None:
    clustered = pairs([1.0, 1.0, 1.0, 0.0] * 3, [0.0, 0.0, 1.0, 0.0] * 3, [str(i // 2) for i in range(12)])
    found = compare(clustered)
    assert (found.difference.method, found.test, found.difference.n) == ("t_clustered", "t_clustered", 6)


def test_means_are_compared_by_a_paired_bootstrap() -> None:
    first = [0.5 + 0.02 * (i % 7) for i in range(24)]
    second = [0.5 + 0.01 * (i % 5) for i in range(24)]
    found = compare(pairs(first, second))
    assert (found.difference.method, found.test, found.discordance) == ("bca", "t_paired", None)
    shared = bootstrap_difference(pairs(first, second, [str(i // 3) for i in range(24)]))
    assert (shared.method, shared.n) == ("cluster_bootstrap", 8)
    assert bootstrap_difference(pairs(first, first)).method == "all_equal"


def test_non_inferiority_has_three_verdicts() -> None:
    assert non_inferiority(counts(900, 5, 5, 90), margin=0.02).verdict == "non-inferior"
    assert non_inferiority(counts(700, 0, 200, 100), margin=0.02).verdict == "inferior"
    unclear = non_inferiority(counts(60, 5, 5, 30), margin=0.02)
    assert unclear.verdict == "inconclusive"
    # (1.645 + 0.842)^2 * 0.10 / 0.02^2 = 1,546 items in all
    assert unclear.more_items == 1446
    assert unclear.sentence == "inconclusive for a margin of 2 points; about 1,446 more items would decide"


def test_non_inferiority_uses_a_one_sided_limit() -> None:
    found = non_inferiority(counts(60, 12, 3, 25), margin=0.02)
    assert found.lower == tango(12, 3, 100, 0.90).lo


def test_holm_and_benjamini_hochberg_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert benjamini_hochberg({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.04, "c": 0.04})
    assert holm({}) == {}
    assert benjamini_hochberg({}) == {}


@pytest.mark.parametrize(
    "alike",
    [
        pairs([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], list("aab")),
        pairs([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], list("aab")),
        pairs([0.5, 0.75], [0.25, 0.5], repeated=True),
        pairs([0.5, 0.75], [0.25, 0.5]),
        pairs([0.5, 0.6], [0.5, 0.6]),
    ],
)
def test_equal_differences_of_two_clusters_prove_nothing(alike: Pairs) -> None:
    found = compare(alike)
    assert found.p_value is not None
    assert found.p_value >= 0.5
    assert found.difference.lo is not None
    assert found.difference.hi is not None
    assert found.difference.lo < 0
    assert found.difference.hi - found.difference.lo > 0.5


def test_clusters_take_evidence_away_and_never_add_any() -> None:
    """Four discordant items of 400, two of the others the same question: t alone would call it significant."""
    alone = counts(both=396, only_first=4, only_second=0)
    shared = structs.replace(alone, clusters=("0", "0", *alone.ids[2:]))
    assert t_test(shared) == pytest.approx(0.0457, abs=0.001)
    found, single = compare(shared), compare(alone)
    assert found.p_value == single.p_value == pytest.approx(0.0625)
    assert (found.difference.lo or 0) <= (single.difference.lo or 0)
    assert (found.difference.hi or 0) >= (single.difference.hi or 0)


def test_few_graded_pairs_have_a_t_interval() -> None:
    first, second = [0.5, 0.6, 0.7, 0.5, 0.3, 0.4, 0.6], [0.4, 0.55, 0.75, 0.2, 0.35, 0.3, 0.5]
    assert compare(pairs(first, second)).difference.method == "t"


def test_one_note_of_twelve_that_differs_tells_nothing_of_the_next() -> None:
    first = [0.4, 0.1, 0.1, *[0.0] * 9]
    second = [0.4, 0.1, 0.1, 0.0, 0.1, *[0.0] * 7]
    found = compare(pairs(second, first)).difference
    floor = tango(1, 0, 12)
    assert floor.lo is not None
    assert floor.hi is not None
    assert (found.method, found.value) == ("few_differ", pytest.approx(0.1 / 12))
    assert (found.lo, found.hi) == pytest.approx((0.4 * floor.lo, 0.4 * floor.hi))
    judged = non_inferiority(pairs(second, first), 0.02)
    assert (judged.verdict, judged.more_items) == ("inconclusive", 60)
