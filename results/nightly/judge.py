"""Has a nightly series changed? Change points on control-normalised figures, with a floor on the effect and a second look.

A point is the night's middle, over interleaved blocks, of `log(candidate / control)`, so that drift of the machine cancels. The best
single split of the last nights is found by `ruptures` (kernel change-point detection with a linear kernel, which is least squares); it
counts when its t-test is below `ALPHA`, the effect is at least the metric's floor, and at least `MIN_NIGHTS` nights stand behind it. Since
the split is chosen to maximise the difference, `ALPHA` is not the false-alarm rate: docs/nightly.md holds the simulated one. A single
night that a t-test tells from the nights before (`SINGLE_ALPHA`) is a candidate at once, to be confirmed by re-runs the same night.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import ruptures
import scipy.stats
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHA = 1e-5
"""Of one look at one series; keeps false alarms under one in ten series-years (docs/nightly.md)."""
WINDOW = 40
"""Nights that are looked at."""
RECENT = 14
"""A change older than this was reported when it was young."""
MIN_NIGHTS = 2
MIN_HISTORY = 20
"""Nights before a change that are needed to speak of one."""
SINGLE_ALPHA = 1e-4
"""Of one night against those before; were re-runs no protection at all, it would be one false alarm in 27 series-years."""
EARLY_ALPHA = 1e-3
"""The same while there are too few nights for a change point: ten nights of an epoch, so one false alarm in a hundred epochs."""
CLIP = 4.0
"""Robust standard deviations: an earlier night that lies further out counts as lying there, so that one bad night hides no later ones."""
NOISE_NIGHTS = 10

Direction = Literal["higher", "lower"]


class Metric(Struct, frozen=True):
    """What is watched: which direction is better, and the smallest relative change worth waking somebody for."""

    name: str
    better: Direction
    floor: float
    """Of |log ratio|; 0.03 is about 3 %."""


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric("output_tokens_per_s", "higher", 0.03),
        Metric("prompt_tokens_per_s", "higher", 0.03),
        Metric("samples_per_s", "higher", 0.03),
        Metric("ttft_p50_ms", "lower", 0.06),
        Metric("tpot_p50_ms", "lower", 0.03),
        Metric("e2e_p50_ms", "lower", 0.06),
        Metric("load_seconds", "lower", 0.25),
        Metric("energy_per_sample_j", "lower", 0.03),
        Metric("host_needed_bytes", "lower", 0.02),
        Metric("vram_reserved_bytes", "lower", 0.02),
        Metric("vram_needed_bytes", "lower", 0.02),
    )
}


class Point(Struct, frozen=True, kw_only=True):
    """One night of one series, within one epoch."""

    night: str
    value: float
    """Middle over blocks of log(candidate / control); log(candidate) where the suite has no control."""
    block_sd: float | None = None
    """Standard deviation of the blocks' log ratios."""
    blocks: int = 1
    run: str = ""
    """Of the first of these blocks."""


class Finding(Struct, frozen=True, kw_only=True):
    """What the judge says of one series tonight. Effects are relative changes: -0.05 is 5 % less."""

    verdict: Literal["steady", "regression", "improvement", "candidate", "too_short"]
    effect: float | None = None
    p_value: float | None = None
    since: str | None = None
    """First night after the change."""
    floor: float
    mde: float | None = None
    """Smallest relative change that one more night would show (80 % power); None with too few nights."""
    blind: bool = False
    """The series is so noisy that a change of the floor's size would pass unseen."""
    noise: float | None = None
    """Robust standard deviation from night to night."""
    autocorrelation: float | None = None
    reason: str = ""


def judge(points: Sequence[Point], metric: Metric) -> Finding:
    """Judge the last night of one epoch's points, oldest first."""
    values = np.array([p.value for p in points][-WINDOW:])
    names = [p.night for p in points][-WINDOW:]
    noise, floor = noise_of(values), floor_of(values, metric)
    mde = minimum_detectable(noise)
    seen = Finding(
        verdict="steady",
        floor=math.expm1(floor),
        mde=mde,
        noise=noise,
        blind=mde is not None and mde > math.expm1(2 * metric.floor),
        autocorrelation=lag_one(values),
    )
    if len(values) < MIN_HISTORY + MIN_NIGHTS:
        single = _single(values, names, floor, seen) if len(values) > NOISE_NIGHTS else None
        missing = f"{len(values)} nights in this epoch; a change point needs {MIN_HISTORY + MIN_NIGHTS}"
        return single or replace(seen, verdict="too_short", reason=missing)
    return _change(values, names, metric, floor, seen) or _single(values, names, floor, seen) or seen


def _change(values: Floats, names: Sequence[str], metric: Metric, floor: float, seen: Finding) -> Finding | None:
    """The best split among the recent nights, if it is sure enough and large enough."""
    split = best_split(values)
    if split is None:
        return None
    before, after = values[:split], values[split:]
    effect = float(after.mean() - before.mean())
    if abs(effect) < floor:
        return None
    p_value = float(scipy.stats.ttest_ind(after, before, equal_var=True).pvalue)
    if p_value >= ALPHA:
        return None
    return replace(
        seen, verdict=direction(effect, metric), effect=math.expm1(effect), p_value=p_value, since=names[split]
    )


def best_split(values: Floats) -> int | None:
    """Index of the first night after the best single split; None when it does not lie among the recent nights."""
    if np.ptp(values) == 0:
        return None
    algorithm = ruptures.KernelCPD(kernel="linear", min_size=MIN_NIGHTS)
    split = int(algorithm.fit(values.reshape(-1, 1)).predict(n_bkps=1)[0])
    return split if len(values) - RECENT <= split <= len(values) - MIN_NIGHTS and split >= MIN_HISTORY else None


def _single(values: Floats, names: Sequence[str], floor: float, seen: Finding) -> Finding | None:
    """A single night that does not belong to those before it: a candidate, to be confirmed by re-runs.

    The t-test of one new value against the clipped earlier ones. A limit of so many median absolute deviations would need twice the
    effect for the same rate of false candidates: after ten nights that deviation itself is known to a factor of two only.
    """
    before = clipped(values[:-1])
    effect = float(values[-1] - before.mean())
    if abs(effect) < floor:
        return None
    scale = float(before.std(ddof=1)) * math.sqrt(1 + 1 / len(before))
    p_value = float(2 * scipy.stats.t.sf(abs(effect) / scale, len(before) - 1)) if scale else 0.0
    if p_value >= (EARLY_ALPHA if len(before) < MIN_HISTORY else SINGLE_ALPHA):
        return None
    words = f"one night, p {p_value:.1e} against the {len(before)} before" if scale else "one night out of a constant"
    return replace(seen, verdict="candidate", effect=math.expm1(effect), since=names[-1], reason=words)


def clipped(values: Floats) -> Floats:
    """Values further than `CLIP` robust standard deviations from the median are moved there."""
    middle, reach = np.median(values), CLIP * scipy.stats.median_abs_deviation(values, scale="normal")
    return np.clip(values, middle - reach, middle + reach)


def confirm(history: Sequence[Point], reruns: Sequence[float], metric: Metric) -> Finding:
    """Judge interleaved re-runs (log ratios of one night) against the median of the nights before; fewer than two have no interval.

    Their 99 % interval must lie beyond the floor, the practical one or three times the noise from night to night.
    """
    values = np.array([p.value for p in history][-WINDOW:])
    centre, floor = float(np.median(values)), floor_of(values, metric)
    if len(reruns) < 2:
        reason = f"too few of its re-runs ended well ({len(reruns)})"
        return Finding(verdict="steady", floor=math.expm1(floor), reason=reason)
    shift = np.asarray(reruns, dtype=float) - centre
    mean = float(shift.mean())
    half = float(scipy.stats.t.ppf(0.995, len(shift) - 1) * shift.std(ddof=1) / math.sqrt(len(shift)))
    return Finding(
        verdict=direction(mean, metric) if abs(mean) - half > floor else "steady",
        effect=math.expm1(mean),
        floor=math.expm1(floor),
        reason=f"{len(shift)} re-runs: {math.expm1(mean - half):+.1%} to {math.expm1(mean + half):+.1%} (99 %)",
    )


def direction(effect: float, metric: Metric) -> Literal["regression", "improvement"]:
    better = effect > 0 if metric.better == "higher" else effect < 0
    return "improvement" if better else "regression"


def floor_of(values: Floats, metric: Metric) -> float:
    """Smallest effect that is spoken of: the practical one, or three times the noise where that is more and known."""
    noise = noise_of(values)
    return max(metric.floor, 3 * noise) if noise is not None and len(values) >= NOISE_NIGHTS else metric.floor


def noise_of(values: Floats) -> float | None:
    """Night-to-night standard deviation, from differences of neighbours, so that one step in the series does not count as noise."""
    if len(values) < 4:
        return None
    return float(np.median(np.abs(np.diff(values)))) * 1.4826 / math.sqrt(2)


def minimum_detectable(
    noise: float | None, nights_after: int = MIN_NIGHTS, nights_before: int = MIN_HISTORY
) -> float | None:
    """Relative change found with 80 % power at `ALPHA` after `nights_after` nights; a t-test's, before the search over splits."""
    if noise is None:
        return None
    freedom = nights_before + nights_after - 2
    reach = scipy.stats.t.ppf(1 - ALPHA / 2, freedom) + scipy.stats.t.ppf(0.8, freedom)
    return math.expm1(float(reach) * noise * math.sqrt(1 / nights_after + 1 / nights_before))


def lag_one(values: Floats) -> float | None:
    if len(values) < NOISE_NIGHTS or np.ptp(values) == 0:
        return None
    centred = values - values.mean()
    return float((centred[1:] * centred[:-1]).sum() / (centred**2).sum())
