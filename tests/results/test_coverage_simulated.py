"""Do the intervals cover what they say? Simulations with fixed seeds; the bands allow for three standard errors of the simulation."""

import numpy as np
import pytest

from results.anytime import log_e_value
from results.paired import Pairs, bootstrap_difference, non_inferiority, tango
from results.stats import Interval, Item, bootstrap_mean, bounded_mean, mean_t, score_interval, wilson, wilson_clustered

pytestmark = pytest.mark.slow


def covers(interval: Interval, truth: float) -> bool:
    assert interval.lo is not None
    assert interval.hi is not None
    return interval.lo <= truth <= interval.hi


@pytest.mark.parametrize(("n", "p"), [(40, 0.75), (120, 0.75), (120, 0.95), (300, 0.5), (1273, 0.85)])
def test_wilson_covers(n: int, p: float) -> None:
    """The share of covered outcomes, weighed by their probability: exact, no simulation."""
    import scipy.stats

    k = np.arange(n + 1)
    inside = np.array([covers(wilson(int(i), n), p) for i in k])
    assert 0.93 <= float(scipy.stats.binom.pmf(k, n, p)[inside].sum()) <= 0.97


def in_clusters(
    rng: np.random.Generator, groups: int, size: int, p: float, icc: float
) -> tuple[list[float], list[str]]:
    """Yes/no outcomes whose chance is drawn for each cluster (beta-binomial with this intra-class correlation)."""
    strength = 1 / icc - 1
    chances = rng.beta(p * strength, (1 - p) * strength, groups)
    values = (rng.random((groups, size)) < chances[:, None]).astype(float).ravel()
    return [float(v) for v in values], [str(i // size) for i in range(groups * size)]


@pytest.mark.parametrize(("groups", "size", "p", "icc"), [(50, 10, 0.7, 0.3), (30, 4, 0.85, 0.5), (200, 2, 0.6, 0.7)])
def test_clustered_intervals_cover_where_the_plain_one_does_not(groups: int, size: int, p: float, icc: float) -> None:
    rng = np.random.default_rng(1)
    wide = straight = plain = 0
    for _ in range(1000):
        values, clusters = in_clusters(rng, groups, size, p, icc)
        wide += covers(wilson_clustered(values, clusters), p)
        straight += covers(mean_t(values, clusters), p)
        plain += covers(wilson(int(sum(values)), len(values)), p)
    assert 0.93 <= wide / 1000 <= 0.98
    assert 0.92 <= straight / 1000 <= 0.97
    assert plain < wide - 40


@pytest.mark.parametrize("answers", [4, 16])
def test_pass_at_1_over_k_answers_covers(answers: int) -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(800):
        chances = rng.beta(1.2, 0.8, 120)
        means = rng.binomial(answers, chances) / answers
        hits += covers(score_interval([Item(str(i), str(i), float(m), answers) for i, m in enumerate(means)]), 0.6)
    assert 0.93 <= hits / 800 <= 0.975


@pytest.mark.parametrize(("n", "shape"), [(20, (6, 2)), (32, (8, 1.5)), (120, (2, 2))])
def test_bca_over_notes_covers(n: int, shape: tuple[float, float]) -> None:
    """BCa is a little narrow for few notes, as is known of it; the band says how much."""
    rng = np.random.default_rng(3)
    truth = shape[0] / (shape[0] + shape[1])
    hits = sum(covers(bootstrap_mean([float(v) for v in rng.beta(*shape, n)], seed=i), truth) for i in range(400))
    assert 0.90 <= hits / 400 <= 0.98


@pytest.mark.parametrize(("n", "b", "c"), [(40, 0.10, 0.05), (120, 0.05, 0.05), (300, 0.08, 0.03), (1089, 0.07, 0.02)])
def test_tango_covers(n: int, b: float, c: float) -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1500):
        only_first, only_second, _rest = rng.multinomial(n, [b, c, 1 - b - c])
        hits += covers(tango(int(only_first), int(only_second), n), b - c)
    assert 0.93 <= hits / 1500 <= 0.975


def test_paired_cluster_bootstrap_covers() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for i in range(500):
        effect = rng.normal(0.03, 0.1, 50)
        first = 0.6 + effect[:, None] + rng.normal(0, 0.1, (50, 4))
        pairs = Pairs(
            ids=tuple(str(k) for k in range(200)),
            clusters=tuple(str(k // 4) for k in range(200)),
            first=tuple(float(v) for v in first.ravel()),
            second=(0.6,) * 200,
            repeated=False,
        )
        hits += covers(bootstrap_difference(pairs, seed=i), 0.03)
    assert 0.91 <= hits / 500 <= 0.98


def test_sequential_e_value_keeps_its_level_though_it_is_looked_at_after_every_item() -> None:
    """Published: 3.75 % at a nominal 5 % with a look after each of 1,000 discordant items."""
    rng = np.random.default_rng(6)
    table = np.array([[log_e_value(b, m - b) if b <= m else 0.0 for b in range(1001)] for m in range(1001)])
    wins = np.cumsum(rng.random((4000, 1000)) < 0.5, axis=1)
    log_e = table[np.arange(1, 1001)[None, :], wins]
    rejected = float((log_e.max(axis=1) >= np.log(20)).mean())
    assert 0.02 <= rejected <= 0.05


@pytest.mark.parametrize(("q", "published"), [(0.60, 235), (0.65, 94), (0.70, 51), (0.80, 19)])
def test_sequential_e_value_needs_the_published_number_of_items(q: float, published: int) -> None:
    rng = np.random.default_rng(8)
    needed = []
    for _ in range(1000):
        wins = np.cumsum(rng.random(3000) < q)
        needed.append(next((m for m, b in enumerate(wins, 1) if log_e_value(int(b), m - int(b)) >= np.log(20)), 3000))
    assert abs(float(np.median(needed)) - published) <= max(4, 0.15 * published)


@pytest.mark.parametrize(("p", "only_first"), [(0.4, None), (0.9, None), (0.10, 0.05), (0.03, 0.01)])
def test_anytime_limits_cover_at_every_look_at_once(p: float, only_first: float | None) -> None:
    """A look after every 25 of 600 items; the limits hold all the way in at least 95 %. Shares right, or differences (p discordant)."""
    rng = np.random.default_rng(9)
    missed = 0
    for _ in range(400):
        u = rng.random(600)
        low, truth = (0.0, p) if only_first is None else (-1.0, 2 * only_first - p)
        drawn = (
            (u < p).astype(float) if only_first is None else np.where(u < only_first, 1.0, np.where(u < p, -1.0, 0.0))
        )
        values = [float(v) for v in drawn]
        missed += not all(covers(bounded_mean(values[:n], low, 1.0), truth) for n in range(25, 601, 25))
    assert missed / 400 <= 0.05


def test_a_step_that_ends_when_it_looks_best_still_covers_and_a_fixed_interval_does_not() -> None:
    """The trap: of two equal variants one is watched after every 25 items and ended as soon as the plain interval excludes zero."""
    rng = np.random.default_rng(10)
    plain = honest = 0
    for _ in range(300):
        drawn = [float(v) for v in rng.choice([1.0, -1.0, 0.0], 800, p=[0.1, 0.1, 0.8])]
        for n in range(50, 801, 25):
            b, c = drawn[:n].count(1.0), drawn[:n].count(-1.0)
            if not covers(tango(b, c, n), 0.0):
                plain += 1
                honest += not covers(bounded_mean(drawn[:n], -1.0, 1.0), 0.0)
                break
    assert plain / 300 > 0.12
    assert honest / 300 <= 0.05


def test_non_inferiority_is_claimed_in_at_most_five_percent_at_the_margin() -> None:
    rng = np.random.default_rng(8)
    claims = 0
    for _ in range(600):
        only_first, only_second, both = rng.multinomial(600, [0.04, 0.07, 0.89])
        first = (1.0,) * int(only_first) + (0.0,) * int(only_second) + (1.0,) * int(both)
        second = (0.0,) * int(only_first) + (1.0,) * int(only_second) + (1.0,) * int(both)
        ids = tuple(str(i) for i in range(600))
        pairs = Pairs(ids=ids, clusters=ids, first=first, second=second, repeated=False)
        claims += non_inferiority(pairs, margin=0.03).verdict == "non-inferior"
    assert claims / 600 <= 0.05 + 0.027
