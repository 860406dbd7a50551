"""Intervals for one variant: proportions, means, percentiles, and the one that fits a set of scores.

Every function is pure and returns a frozen value. Sources: Wilson 1927; Clopper and Pearson 1934; Korn and Graubard 1998 (effective
sample size with a t quantile); Miller 2024, arXiv 2411.00640 (clustered standard error of an evaluation's mean); Efron 1987 (BCa);
Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting" (limits that hold at any stopping time).
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
from msgspec import Struct
from numpy.typing import NDArray

from results.profiles import FLOORS

Floats = NDArray[np.float64]

LARGEST_BET = 0.5
"""Share of what could be lost that `bounded_mean` puts at stake at most; the authors' choice."""
BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_FEWEST = 20
"""Below so many values BCa covers far less than it says (half at 2, 85 % at 5), and the t interval nearly all of it."""
BOOTSTRAP_LARGEST = 1000
"""Above so many values the t interval of the mean is as good as BCa, and a hundred times cheaper."""


class Interval(Struct, frozen=True, kw_only=True):
    """A value with its confidence limits; all `None` where nothing was observed or no limit can be given."""

    value: float | None
    lo: float | None
    hi: float | None
    n: int
    """How many independent things it rests on: items, clusters, pairs or batches, as `method` says."""
    method: str


class Percentile(Struct, frozen=True, kw_only=True):
    """`value` is `None` with a `reason` when fewer values were seen than the percentile needs."""

    value: float | None
    n: int
    floor: int
    reason: str = ""


class Item(Struct, frozen=True):
    """One item's mean score over its K answers, and the cluster it belongs to."""

    id: str
    cluster: str
    value: float
    answers: int
    early: bool = False
    """Of a step that its own answers could end: only what holds at any stopping time may be said of such items, in their order."""


def unknown(method: str, n: int = 0, value: float | None = None) -> Interval:
    return Interval(value=value, lo=None, hi=None, n=n, method=method)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for independent yes/no outcomes."""
    if n == 0:
        return unknown("wilson")
    lo, hi = _wilson_limits(successes / n, n, float(scipy.special.ndtri(0.5 + confidence / 2)))
    return Interval(value=successes / n, lo=lo, hi=hi, n=n, method="wilson")


def exact(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Clopper and Pearson's interval: covers at least `confidence` whatever the truth; wider than Wilson's."""
    if n == 0:
        return unknown("exact")
    found = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
    return Interval(value=successes / n, lo=float(found.low), hi=float(found.high), n=n, method="exact")


def clustered_se(values: Sequence[float] | Floats, clusters: Sequence[str]) -> tuple[float | None, int]:
    """Standard error of the mean and the number of clusters G; `None` with fewer than two clusters.

    SE = sqrt(G/(G-1) * sum_g (sum_{i in g} (s_i - mean))^2) / n; with singletons it is the ordinary one.
    """
    array = np.asarray(values, dtype=float)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(index.max()) + 1 if len(array) else 0
    if count < 2:
        return None, count
    sums = np.bincount(index, weights=array - array.mean(), minlength=count)
    return float(np.sqrt(count / (count - 1) * np.sum(sums**2)) / len(array)), count


def mean_t(values: Sequence[float], clusters: Sequence[str] | None = None, confidence: float = 0.95) -> Interval:
    """Mean with a t interval, G-1 degrees of freedom, standard error by clusters; `n` is the number of clusters."""
    if not len(values):
        return unknown("t")
    mean = float(np.mean(values))
    se, groups = clustered_se(values, clusters if clusters is not None else [str(i) for i in range(len(values))])
    method = "t" if clusters is None or groups == len(values) else "t_clustered"
    if se is None:
        return unknown(method, groups, mean)
    half = float(scipy.stats.t.ppf(0.5 + confidence / 2, groups - 1)) * se
    return Interval(value=mean, lo=mean - half, hi=mean + half, n=groups, method=method)


def wilson_clustered(
    values: Sequence[float], clusters: Sequence[str], confidence: float = 0.95, outcomes: int | None = None
) -> Interval:
    """Wilson's interval on the effective number of independent outcomes, for values in [0, 1] in clusters.

    n_eff = p(1-p)/SE^2 with the clustered standard error, and a t quantile with G-1 degrees of freedom in place of z. Where all values
    are equal the standard error says nothing, and every cluster counts as one outcome. Also for item means over K answers. `outcomes` is
    how many yes/no answers there are in all: never more than so many are taken for independent (few values may agree by chance).
    """
    if not len(values):
        return unknown("wilson_clustered")
    p = min(1.0, max(0.0, float(np.mean(values))))
    se, groups = clustered_se(values, clusters)
    if se is None:
        return unknown("wilson_clustered", groups, p)
    n_eff = p * (1 - p) / se**2 if se > 1e-9 and 0 < p < 1 else float(groups)
    n_eff = min(n_eff, float(outcomes)) if outcomes is not None else n_eff
    t = float(scipy.stats.t.ppf(0.5 + confidence / 2, groups - 1))
    lo, hi = _wilson_limits(p, n_eff, t)
    return Interval(value=p, lo=lo, hi=hi, n=groups, method="wilson_clustered")


def _wilson_limits(p: float, n: float, z: float) -> tuple[float, float]:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_mean(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    """BCa bootstrap interval of the mean of values in [0, 1], resampling whole values (notes, never sentences).

    Where BCa has no answer (a bootstrap distribution too lumpy for its corrections) the percentile interval is given, and `method` says
    so. Where all values are equal no resampling can tell anything: Wilson's interval is given, since m(1-m) is the largest variance
    that values in [0, 1] with mean m can have. Below 20 and above 1,000 values: the t interval.
    """
    array = np.asarray(values, dtype=float)
    n = len(array)
    if n < 2:
        return unknown("bca", n, float(array[0]) if n else None)
    mean = float(array.mean())
    if np.ptp(array) == 0:
        lo, hi = _wilson_limits(mean, n, float(scipy.stats.norm.ppf(0.5 + confidence / 2)))
        return Interval(value=mean, lo=lo, hi=hi, n=n, method="wilson_equal_values")
    if not BOOTSTRAP_FEWEST <= n <= BOOTSTRAP_LARGEST:
        return mean_t(list(array), None, confidence)
    for method in ("BCa", "percentile"):
        with np.errstate(all="ignore"):
            found = scipy.stats.bootstrap(
                (array,), np.mean, confidence_level=confidence, n_resamples=BOOTSTRAP_RESAMPLES, method=method, rng=seed
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return Interval(value=mean, lo=float(found.low), hi=float(found.high), n=n, method=method.lower())


def bounded_mean(values: Sequence[float], low: float = 0.0, high: float = 1.0, confidence: float = 0.95) -> Interval:
    """Mean of independent values in [low, high], in the order they were seen, with limits that hold at every stopping time at once.

    The hedged capital process of theorem 3 with its predictable plug-in bets: exact for any number of values and any distribution; 1.4 to
    1.9 times as wide as an interval for a number of values that was fixed beforehand.
    """
    n = len(values)
    if not n:
        return unknown("anytime")
    scaled = (np.asarray(values, dtype=float) - low) / (high - low)
    bets, enough = _bets(scaled, confidence), math.log(2 / (1 - confidence))

    def below(m: float) -> float:
        return _capital(scaled, bets, m) - enough

    def above(m: float) -> float:
        return _capital(1 - scaled, bets, 1 - m) - enough

    # Against a smaller mean the capital only falls as m rises, and against a larger one only rises: one root bounds what was not rejected.
    mean, edge = float(scaled.mean()), 1e-9
    lo = float(scipy.optimize.brentq(below, edge, 1 - edge)) if below(edge) > 0 else 0.0
    hi = float(scipy.optimize.brentq(above, edge, 1 - edge)) if above(1 - edge) > 0 else 1.0
    lo, hi = min(lo, mean), max(hi, mean)
    back = high - low
    return Interval(value=low + back * mean, lo=low + back * lo, hi=low + back * hi, n=n, method="anytime")


def betting_p(values: Sequence[float], low: float, high: float, mean: float = 0.0) -> float:
    """Two-sided p of that mean, which holds at every stopping time: 2 / the largest capital of either side on the way, at most 1."""
    scaled = (np.asarray(values, dtype=float) - low) / (high - low)
    bets, m = _bets(scaled, 0.95), (mean - low) / (high - low)
    return min(1.0, 2 * math.exp(-max(_capital(scaled, bets, m), _capital(1 - scaled, bets, 1 - m))))


def _capital(scaled: Floats, bets: Floats, m: float) -> float:
    """Logarithm of the largest capital on the way of who bets that the mean is above m."""
    return float(np.cumsum(np.log1p(np.minimum(bets, LARGEST_BET / m) * (scaled - m))).max())


def _bets(scaled: Floats, confidence: float) -> Floats:
    """Before each value, from the values before it alone: sqrt(2 ln(2/alpha) / (variance so far * t ln(1 + t)))."""
    t = np.arange(1, len(scaled) + 1)
    means = (0.5 + np.cumsum(scaled)) / (t + 1)
    variances = (0.25 + np.cumsum((scaled - means) ** 2)) / (t + 1)
    before = np.concatenate(([0.25], variances[:-1]))
    bets: Floats = np.sqrt(2 * math.log(2 / (1 - confidence)) / (before * t * np.log1p(t)))
    return bets


def firsts(clusters: Sequence[str]) -> list[int]:
    """Places of the first item of every cluster: a question that is asked twice is no second piece of evidence."""
    seen: dict[str, int] = {}
    for place, cluster in enumerate(clusters):
        seen.setdefault(cluster, place)
    return list(seen.values())


def anytime(
    values: Sequence[float], clusters: Sequence[str], low: float = 0.0, high: float = 1.0, confidence: float = 0.95
) -> Interval:
    """Mean of all values; limits by `bounded_mean` from the first of each cluster, wide enough to hold that mean."""
    chosen = firsts(clusters)
    found = bounded_mean([values[i] for i in chosen], low, high, confidence)
    if found.lo is None or found.hi is None:
        return found
    mean = math.fsum(values) / len(values)
    method = "anytime" if len(chosen) == len(values) else "anytime_clustered"
    return Interval(value=mean, lo=min(found.lo, mean), hi=max(found.hi, mean), n=found.n, method=method)


def items_of(scores: Sequence[tuple[str, str, float]], early: bool = False) -> tuple[Item, ...]:
    """`(item, cluster, value)` of every scored answer, folded to item means (pass@1: the mean over an item's answers)."""
    if len({item for item, _, _ in scores}) == len(scores):
        return tuple(Item(item, cluster or item, float(value), 1, early) for item, cluster, value in scores)
    values: dict[str, list[float]] = {}
    cluster_of: dict[str, str] = {}
    for item, cluster, value in scores:
        values.setdefault(item, []).append(value)
        cluster_of[item] = cluster or item
    return tuple(Item(i, cluster_of[i], math.fsum(v) / len(v), len(v), early) for i, v in values.items())


def score_interval(items: Sequence[Item], confidence: float = 0.95) -> Interval:
    """The interval that fits: Wilson for one yes/no answer to each independent item, its clustered form for repeats or clusters,
    BCa for graded scores (t by clusters where graded items share clusters). One that holds at any stopping time where a step
    could be ended by its own answers."""
    values = [i.value for i in items]
    clusters = [i.cluster for i in items]
    if any(i.early for i in items):
        return anytime(values, clusters, confidence=confidence)
    shared = len(set(clusters)) < len(clusters)
    yes_no = all(v in (0.0, 1.0) for v in values)
    repeated = any(i.answers > 1 for i in items)
    if yes_no and not shared and not repeated:
        return wilson(int(sum(values)), len(values), confidence)
    if yes_no or repeated or (shared and min(values) == max(values)):
        counts = [i.value * i.answers for i in items]
        whole = all(abs(count - round(count)) < 1e-6 for count in counts)  # means of yes/no answers, not of graded ones
        return wilson_clustered(values, clusters, confidence, sum(i.answers for i in items) if whole else None)
    if shared:
        return clip(mean_t(values, clusters, confidence))
    return clip(bootstrap_mean(values, confidence))


def clip(interval: Interval, lowest: float = 0.0, highest: float = 1.0) -> Interval:
    """The same interval with limits kept inside the range that the value can have."""
    if interval.lo is None or interval.hi is None:
        return interval
    return Interval(
        value=interval.value,
        lo=max(lowest, interval.lo),
        hi=min(highest, interval.hi),
        n=interval.n,
        method=interval.method,
    )


def percentile_floor(q: float, confidence: float = 0.99) -> int:
    """Fewest values for which percentile `q` (0.95 for p95) may be shown.

    The rule of MLPerf's early stopping with one value above the bound: the smallest n with P(Bin(n, 1-q) <= 1) <= 1 - confidence;
    p50 11, p90 64, p95 130, p99 662 at 0.99.
    """
    low, high = 1, 2
    while scipy.stats.binom.cdf(1, high, 1 - q) > 1 - confidence:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if scipy.stats.binom.cdf(1, middle, 1 - q) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def percentile(values: Sequence[float], q: float) -> Percentile:
    """Percentile by linear interpolation, or nothing and the reason below its floor."""
    floor = FLOORS[q] if q in FLOORS else percentile_floor(q)
    n = len(values)
    if n < floor:
        return Percentile(value=None, n=n, floor=floor, reason=f"p{100 * q:g} needs {floor} values, {n} were seen")
    return Percentile(value=float(np.quantile(np.asarray(values, dtype=float), q)), n=n, floor=floor)


def batch_means(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of batch means with a t interval: for figures whose neighbours in time depend on each other."""
    if len(values) < 2:
        return unknown("batch_means", len(values), float(values[0]) if values else None)
    found = mean_t(values, None, confidence)
    return Interval(value=found.value, lo=found.lo, hi=found.hi, n=len(values), method="batch_means")


def required_items(margin: float, discordance: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items for the claim "not worse by more than `margin`" (one-sided `alpha`) when both are truly equal.

    n = (z_{1-alpha} + z_{power})^2 * discordance / margin^2; `discordance` is the share of items on which one is right and the other
    wrong. A margin of 1 point at 10 % discordance needs 6,183 items.
    """
    z = float(scipy.stats.norm.ppf(1 - alpha) + scipy.stats.norm.ppf(power))
    return math.ceil(z * z * discordance / margin**2)


def detectable_difference(n: int, discordance: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true difference between two variants on the same `n` items that a two-sided test finds with `power`.

    (z_{1-alpha/2} + z_{power}) * sqrt(discordance / n): 1,273 items at 10 % discordance show 2.5 points.
    """
    z = float(scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(power))
    return z * math.sqrt(discordance / n)
