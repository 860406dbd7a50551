"""Two variants on the same items: is one better, is one not worse by more than a margin, and how sure is that?

Differences are always first minus second. Sources: Fagerland et al. 2013 (McNemar mid-p); Tango 1998 (score interval of a paired
difference); Miller 2024, arXiv 2411.00640 (paired, clustered standard error); Holm 1979; Benjamini and Hochberg 1995. Where a
step could be ended by its own answers, `results.anytime` takes the place of the tests of a fixed number of items.
"""

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter, gt, lt, sub
from typing import Literal

import numpy as np
import scipy.optimize
import scipy.stats
from msgspec import Struct, structs

from results.anytime import sequential_p
from results.stats import (
    BOOTSTRAP_FEWEST,
    BOOTSTRAP_RESAMPLES,
    Interval,
    Item,
    anytime,
    betting_p,
    clustered_se,
    detectable_difference,
    firsts,
    mean_t,
    required_items,
    unknown,
)

FEWEST_DIFFERING = 6
"""Items that must differ before their spread is taken for known; fewer can never reach p < 0.05 by their signs."""


class Pairs(Struct, frozen=True, kw_only=True):
    """Items that both variants answered, one line each."""

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]
    repeated: bool
    """Some item has several answers, so a value is a mean of them."""
    early: bool = False
    """A side could be ended by its own answers: only what holds at any stopping time may be said, in the order of that side."""

    @property
    def differences(self) -> tuple[float, ...]:
        return tuple(map(sub, self.first, self.second))

    @property
    def binary(self) -> bool:
        return not self.repeated and {*self.first, *self.second} <= {0.0, 1.0}

    @property
    def clustered(self) -> bool:
        return len(set(self.clusters)) < len(self.clusters)


class Discordance(Struct, frozen=True, kw_only=True):
    """How many items only the first, and only the second, got right."""

    only_first: int
    only_second: int
    n: int

    @property
    def flip_rate(self) -> float | None:
        return (self.only_first + self.only_second) / self.n if self.n else None


class Comparison(Struct, frozen=True, kw_only=True):
    """The difference between two variants on the same items."""

    difference: Interval
    p_value: float | None
    test: str
    flip_rate: float | None
    """Share of items whose score differs: more sensitive than accuracy."""
    detectable: float | None
    """Smallest true difference that these items would show with 80 % power, at this flip rate; `None` where a side could end early."""
    discordance: Discordance | None
    """Only for one yes/no answer to each item."""
    mcnemar_p: float | None = None
    """Two-sided mid-p of the discordance, as papers print it. Where items share clusters it is too small: `p_value` decides."""


class NonInferiority(Struct, frozen=True, kw_only=True):
    """Whether the first is not worse than the second by more than a margin declared beforehand."""

    verdict: Literal["non-inferior", "inferior", "inconclusive"]
    margin: float
    difference: float | None
    lower: float | None
    """One-sided lower 95 % limit of first minus second."""
    upper: float | None
    more_items: int | None
    """How many more items would probably decide it; `None` where it is decided, or where no number would."""
    sentence: str


def pair(first: Sequence[Item], second: Sequence[Item]) -> Pairs:
    """The items that both have, in the order of the first; of the second where only that one could end early."""
    if any(item.early for item in second) and not any(item.early for item in first):
        return _turned(pair(second, first))
    other = {item.id: item for item in second}
    one = [item for item in first if item.id in other]
    two = [other[item.id] for item in one]
    value = attrgetter("value")
    return Pairs(
        ids=tuple(map(attrgetter("id"), one)),
        clusters=tuple(map(attrgetter("cluster"), one)),
        first=tuple(map(value, one)),
        second=tuple(map(value, two)),
        repeated=max(map(attrgetter("answers"), (*one, *two)), default=1) > 1,
        early=any(item.early for item in (*one, *two)),
    )


def _turned(pairs: Pairs) -> Pairs:
    return structs.replace(pairs, first=pairs.second, second=pairs.first)


def discordance(pairs: Pairs) -> Discordance:
    return Discordance(
        only_first=sum(map(gt, pairs.first, pairs.second)),
        only_second=sum(map(lt, pairs.first, pairs.second)),
        n=len(pairs.ids),
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of equal marginal shares."""
    return (
        float(scipy.stats.binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0
    )


def mcnemar_mid_p(only_first: int, only_second: int) -> float:
    """Two-sided mid-p: the exact p less the probability of what was seen; closer to its nominal level than the exact one."""
    m = only_first + only_second
    if only_first == only_second:
        return 1.0 - 0.5 * float(scipy.stats.binom.pmf(only_first, m, 0.5)) if m else 1.0
    return mcnemar_exact(only_first, only_second) - float(scipy.stats.binom.pmf(only_first, m, 0.5))


def tango(only_first: int, only_second: int, n: int, confidence: float = 0.95) -> Interval:
    """Tango's score interval of the difference of two paired shares; holds near 0 and for few discordant items."""
    if n == 0:
        return unknown("tango")
    b, c = only_first, only_second
    z = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
    estimate = (b - c) / n

    def excess(delta: float, sign: float) -> float:
        """The score statistic's distance from its limit; zero at the interval's end."""
        linear, constant = -b - c + (2 * n - b + c) * delta, -c * delta * (1 - delta)
        q = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        return (b - c - n * delta) - sign * z * math.sqrt(max(0.0, variance))

    # The statistic is 0 / 0 at the estimate itself when no item is discordant, so the search starts a hair beside it.
    edge, hair = 1 - 1e-12, 1e-9
    low, high = -1.0, 1.0
    if excess(-edge, 1.0) > 0 and estimate - hair > -edge:
        low = float(scipy.optimize.brentq(excess, -edge, estimate - hair, args=(1.0,)))
    if excess(edge, -1.0) < 0 and estimate + hair < edge:
        high = float(scipy.optimize.brentq(excess, estimate + hair, edge, args=(-1.0,)))
    return Interval(value=estimate, lo=low, hi=high, n=n, method="tango")


def bootstrap_difference(pairs: Pairs, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Paired bootstrap of the mean difference, resampling clusters; percentile limits (BCa where clusters are single items).

    Of fewer than 20 single items the t interval: a bootstrap of few values covers far less than it says.
    """
    differences = np.asarray(pairs.differences)
    if len(differences) < 2:
        return unknown("bootstrap", len(differences), float(differences[0]) if len(differences) else None)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return _all_equal(mean, len(differences), confidence)
    if not pairs.clustered and len(differences) < BOOTSTRAP_FEWEST:
        return mean_t(pairs.differences, None, confidence)
    if not pairs.clustered:
        for method in ("BCa", "percentile"):
            with np.errstate(all="ignore"):
                found = scipy.stats.bootstrap(
                    (differences,),
                    np.mean,
                    confidence_level=confidence,
                    n_resamples=BOOTSTRAP_RESAMPLES,
                    method=method,
                    rng=seed,
                ).confidence_interval
            if math.isfinite(found.low) and math.isfinite(found.high):
                break
        return Interval(
            value=mean, lo=float(found.low), hi=float(found.high), n=len(differences), method=method.lower()
        )
    _, index = np.unique(np.asarray(pairs.clusters), return_inverse=True)
    sums, sizes = np.bincount(index, weights=differences), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (BOOTSTRAP_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(value=mean, lo=float(low), hi=float(high), n=len(sums), method="cluster_bootstrap")


def difference_interval(pairs: Pairs, confidence: float = 0.95) -> Interval:
    """The interval that fits: Tango for one yes/no answer to independent items, t by clusters for the rest with many, else bootstrap;
    one that holds at any stopping time where a side could be ended by its own answers."""
    if not pairs.ids:
        return unknown("none")
    if pairs.early:
        return anytime(pairs.differences, pairs.clusters, -1.0, 1.0, confidence)
    if pairs.binary and not pairs.clustered:
        counts = discordance(pairs)
        return tango(counts.only_first, counts.only_second, counts.n, confidence)
    found = (
        _by_clusters(pairs, confidence)
        if pairs.clustered or pairs.repeated
        else bootstrap_difference(pairs, confidence)
    )
    return found if pairs.binary else _with_unseen(pairs, found, confidence)


def _by_clusters(pairs: Pairs, confidence: float) -> Interval:
    """The t interval by clusters, and no narrower than the interval that takes the items for independent.

    Clusters only take information away; with few discordant items t alone would be too sure of itself, and with none quite certain.
    """
    found = mean_t(pairs.differences, pairs.clusters, confidence)
    if found.value is None or found.lo is None or found.hi is None:
        return found
    if pairs.binary:
        counts = discordance(pairs)
        floor = tango(counts.only_first, counts.only_second, counts.n, confidence)
    elif min(pairs.differences) == max(pairs.differences):
        return _all_equal(found.value, found.n, confidence)
    else:
        return found
    assert floor.lo is not None
    assert floor.hi is not None
    return structs.replace(found, lo=min(found.lo, floor.lo), hi=max(found.hi, floor.hi))


def _with_unseen(pairs: Pairs, found: Interval, confidence: float) -> Interval:
    """No narrower than if an item that was not seen could gain or lose all that any item scored, where fewer than six items differ.

    The spread of graded differences is that of the few that are not zero: one of twelve tells nothing of how far the next one goes.
    """
    counts = discordance(pairs)
    if found.lo is None or found.hi is None or counts.only_first + counts.only_second >= FEWEST_DIFFERING:
        return found
    reach = max(*pairs.first, *pairs.second)
    floor = tango(counts.only_first, counts.only_second, counts.n, confidence)
    assert floor.lo is not None
    assert floor.hi is not None
    low, high = min(found.lo, reach * floor.lo), max(found.hi, reach * floor.hi)
    return (
        found if (low, high) == (found.lo, found.hi) else structs.replace(found, lo=low, hi=high, method="few_differ")
    )


def _all_equal(value: float, n: int, confidence: float = 0.95) -> Interval:
    """n differences, all the same, say nothing of their spread: as far around them as Tango's interval of no discordant item of n."""
    reach = tango(0, 0, n, confidence).hi
    assert reach is not None
    return Interval(value=value, lo=max(-1.0, value - reach), hi=min(1.0, value + reach), n=n, method="all_equal")


def compare(pairs: Pairs) -> Comparison:
    """Difference, test and what these items could show at all."""
    interval = difference_interval(pairs)
    differences = pairs.differences
    n = len(differences)
    flips = sum(d != 0 for d in differences) / n if n else None
    counts = discordance(pairs) if pairs.binary else None
    p_value, test = significance(pairs)
    spread = float(np.mean(np.square(differences))) if n else 0.0
    return Comparison(
        difference=interval,
        p_value=p_value,
        test=test,
        flip_rate=flips,
        detectable=detectable_difference(n, spread) if n and spread > 0 and not pairs.early else None,
        discordance=counts,
        mcnemar_p=mcnemar_mid_p(counts.only_first, counts.only_second) if counts and n and not pairs.early else None,
    )


def significance(pairs: Pairs) -> tuple[float | None, str]:
    """Two-sided p of no difference and the name of the test that fits: McNemar's for one yes/no answer to independent items, else t.

    Of yes/no answers in clusters the larger of both: clusters only take evidence away, and t is too sure of few discordant items.
    """
    if pairs.early:
        once = [pairs.differences[i] for i in firsts(pairs.clusters)]
        if pairs.binary:
            return (sequential_p(once) if once else None), "sequential_mcnemar"
        return (betting_p(once, -1.0, 1.0) if once else None), "betting"
    single = mcnemar_mid_p(discordance(pairs).only_first, discordance(pairs).only_second) if pairs.binary else 0.0
    if pairs.binary and not pairs.clustered:
        return (single if pairs.ids else None), "mcnemar_mid_p"
    p_value = t_test(pairs) if pairs.ids else None
    return (None if p_value is None else max(p_value, single)), "t_clustered" if pairs.clustered else "t_paired"


def t_test(pairs: Pairs) -> float | None:
    """Two-sided p of a mean difference of zero, with the clustered standard error and G-1 degrees of freedom.

    Where all differences are equal there is no standard error: the sign test over the clusters, 2^(1-G).
    """
    se, groups = clustered_se(pairs.differences, pairs.clusters)
    if se is None:
        return None
    mean = float(np.mean(pairs.differences))
    if se == 0:
        return 1.0 if mean == 0 else 0.5 ** (groups - 1)
    return float(2 * scipy.stats.t.sf(abs(mean) / se, groups - 1))


def non_inferiority(pairs: Pairs, margin: float, alpha: float = 0.05) -> NonInferiority:
    """Is the first not worse than the second by more than `margin`?

    Non-inferior when the one-sided lower limit lies above -margin, inferior when the upper one lies below it, else inconclusive.
    """
    interval = difference_interval(pairs, 1 - 2 * alpha)
    lower, upper, value = interval.lo, interval.hi, interval.value
    verdict: Literal["non-inferior", "inferior", "inconclusive"] = "inconclusive"
    if lower is not None and lower > -margin:
        verdict = "non-inferior"
    elif upper is not None and upper < -margin:
        verdict = "inferior"
    more = _more_items(pairs, margin, alpha) if verdict == "inconclusive" and not pairs.early else None
    return NonInferiority(
        verdict=verdict,
        margin=margin,
        difference=value,
        lower=lower,
        upper=upper,
        more_items=more,
        sentence=_say(verdict, margin, lower, upper, more),
    )


def _more_items(pairs: Pairs, margin: float, alpha: float) -> int | None:
    """Items beyond those at hand until the limit would clear the margin if difference and discordance stay as they are (80 % power).

    Of graded scores also until enough of them differ.
    """
    differences = np.asarray(pairs.differences)
    n = len(differences)
    if n < 2:
        return None
    room = float(differences.mean()) + margin
    spread = float(np.mean(np.square(differences)))
    if room == 0 or spread == 0:
        return None
    needed = required_items(abs(room), spread, alpha)
    if not pairs.binary:
        needed = max(needed, math.ceil(n * FEWEST_DIFFERING / np.count_nonzero(differences)))
    return max(1, needed - n)


def _say(verdict: str, margin: float, lower: float | None, upper: float | None, more: int | None) -> str:
    limit = f"{100 * margin:.3g} points"
    match verdict:
        case "non-inferior":
            return f"not worse by more than {limit} (lower limit {100 * (lower or 0.0):+.1f} points)"
        case "inferior":
            return f"worse by more than {limit} (upper limit {100 * (upper or 0.0):+.1f} points)"
        case _:
            return f"inconclusive for a margin of {limit}" + (
                f"; about {more:,} more items would decide" if more else ""
            )


def holm(p_values: Mapping[str, float], alpha: float = 0.05) -> dict[str, float]:
    """Holm's adjusted p by name, for a family of tests declared beforehand."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return {}
    adjusted = multipletests(list(p_values.values()), alpha=alpha, method="holm")[1]
    return {name: float(p) for name, p in zip(p_values, adjusted, strict=True)}


def benjamini_hochberg(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p (false discovery rate) by name, for exploring many at once."""
    if not p_values:
        return {}
    adjusted = scipy.stats.false_discovery_control(list(p_values.values()), method="bh")
    return {name: float(p) for name, p in zip(p_values, adjusted, strict=True)}
