"""Speed, latency, energy, memory and cost of two sides as ratios, candidate / base, with an interval or the reason why there is none.

An interval comes from repeats (Welch's t on logarithms), from the batch means of the steady state with an allowance for what one load
of a model differs from the next, or from the draws behind the costs. Without one there is no verdict.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.stats
from msgspec import Struct, structs

from results.compare.pairing import Side
from results.montecarlo import Draws, interval
from results.rows import Row
from results.stats import Floats
from results.validity import judge_step
from results.validity.base import Axis, Finding

Verdict = Literal["same", "better", "worse", "no_difference", "inconclusive", "no_interval", "withheld", "unknown"]
Better = Literal["higher", "lower"]
Source = Literal["repeats", "steady", "draws", "counted"]

BETWEEN_LOADS = 0.05
"""Relative spread that one load of a model may have against the next: what repetitions may differ by (rule C10)."""
OTHER_LOAD = "A5"
TEXT_LENGTH = "B3"
FORECAST = "E4"
"""Says that the plan foresaw another size; the reading itself is none the worse for it."""
IDENTITY_OF_ITEMS = frozenset({"F1", "F4"})
"""Rules of pairs that are decided here by name, and may be allowed."""


class Metric(Struct, frozen=True, kw_only=True):
    """What is compared: which direction is better, and the relative difference below which nobody should care."""

    name: str
    unit: str
    axis: Axis
    better: Better
    floor: float
    per_token: bool = False
    """Means little where answers differ in length."""
    steady: bool = False
    """Has `_lo` and `_hi` of its own from batch means."""
    counted: bool = False
    """Bytes that the engine counts: no sampling error, and the floor stands for what loads differ by."""


METRICS: tuple[Metric, ...] = (
    Metric(name="steady_output_tokens_per_s", unit="tok/s", axis="speed", better="higher", floor=0.05, per_token=True, steady=True),
    Metric(name="steady_prompt_tokens_per_s", unit="tok/s", axis="speed", better="higher", floor=0.05, steady=True),
    Metric(name="samples_per_s", unit="1/s", axis="speed", better="higher", floor=0.05),
    Metric(name="ttft_p50_ms", unit="ms", axis="speed", better="lower", floor=0.10),
    Metric(name="ttft_p95_ms", unit="ms", axis="speed", better="lower", floor=0.20),
    Metric(name="tpot_p50_ms", unit="ms", axis="speed", better="lower", floor=0.05),
    Metric(name="e2e_p50_ms", unit="ms", axis="speed", better="lower", floor=0.10),
    Metric(name="energy_per_sample_j", unit="J", axis="energy", better="lower", floor=0.05),
    Metric(name="energy_per_output_token_j", unit="J", axis="energy", better="lower", floor=0.05, per_token=True),
    Metric(name="vram_reserved_bytes", unit="B", axis="memory", better="lower", floor=0.02),
    Metric(name="vram_needed_bytes", unit="B", axis="memory", better="lower", floor=0.02, counted=True),
    Metric(name="host_memory_bytes", unit="B", axis="memory", better="lower", floor=0.02),
    Metric(name="host_needed_bytes", unit="B", axis="memory", better="lower", floor=0.02, counted=True),
)  # fmt: skip
COSTS: tuple[Metric, ...] = (
    Metric(name="cost_per_1k_samples", unit="", axis="speed", better="lower", floor=0.05),
    Metric(name="cost_per_correct", unit="", axis="speed", better="lower", floor=0.05),
)


class Ratio(Struct, frozen=True, kw_only=True):
    """One figure on both sides. `ratio` is candidate / base, `None` where it may not be formed; `reason` says why."""

    metric: str
    unit: str
    better: Better
    floor: float
    base: float | None
    candidate: float | None
    ratio: float | None = None
    lo: float | None = None
    hi: float | None = None
    source: Source | None = None
    verdict: Verdict = "unknown"
    reason: str = ""


class Limits(Struct, frozen=True):
    """A ratio with its interval on a 95 % level."""

    ratio: float
    lo: float
    hi: float


class Doubts(Struct, frozen=True, kw_only=True):
    """Sentences of failed rules on either side or on the pair, by what they concern."""

    speed: tuple[str, ...] = ()
    energy: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    accuracy: tuple[str, ...] = ()
    length: str = ""
    """Why figures by the token mean little here."""
    energy_apart: tuple[str, ...] = ()
    """Why energies must not be divided by each other at all."""

    def of(self, axis: Axis) -> tuple[str, ...]:
        match axis:
            case "accuracy":
                return self.accuracy
            case "speed":
                return self.speed
            case "energy":
                return self.energy
            case "memory":
                return self.memory
            case _:
                return ()


def doubts(base: Side, candidate: Side, together: Sequence[Finding]) -> Doubts:
    """What the rules of validity have against each figure of this pair. `together`: the verdicts of the rules of pairs."""
    alone = [
        (name, f)
        for name, side in (("base", base), ("candidate", candidate))
        for v in side.views
        for f in judge_step(v)
    ]
    failed = [(f"{name}, {f.rule}: {f.sentence}", f) for name, f in alone if _counts(f)]
    failed += [(f"{f.rule}: {f.sentence}", f) for f in together if _counts(f) and f.rule not in IDENTITY_OF_ITEMS]

    def on(*axes: Axis) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s for s, f in failed if f.axis in axes and f.rule != TEXT_LENGTH))

    return Doubts(
        speed=on("all", "speed"),
        energy=on("all", "energy"),
        memory=on("all", "memory"),
        accuracy=on("all", "accuracy"),
        length=next((s for s, f in failed if f.rule == TEXT_LENGTH), ""),
        energy_apart=tuple(f.sentence for f in together if f.verdict == "fail" and f.rule in ("D12", "D14")),
    )


def _counts(finding: Finding) -> bool:
    """Failures that forbid ranking; other load on the host is a warning for a ranking, and too much for a comparison."""
    forbids = finding.severity in ("I", "R") and finding.rule != FORECAST
    return finding.verdict == "fail" and (forbids or finding.rule == OTHER_LOAD)


def ratios(base: Side, candidate: Side, against: Doubts, same: bool) -> tuple[Ratio, ...]:
    """Every figure that both sides have; output tokens stand for throughput where there are any."""
    found = [_ratio(metric, base.rows, candidate.rows, against, same) for metric in METRICS]
    generated = any(r.metric == "steady_output_tokens_per_s" and r.base is not None for r in found)
    return tuple(
        r
        for r in found
        if (r.base is not None or r.candidate is not None)
        and not (generated and r.metric == "steady_prompt_tokens_per_s")
    )


def _ratio(metric: Metric, base: Sequence[Row], candidate: Sequence[Row], against: Doubts, same: bool) -> Ratio:
    one, two = _values(metric, base), _values(metric, candidate)
    blank = _blank(metric, _mean(one), _mean(two))
    if blank.base is None or blank.candidate is None or blank.base <= 0 or blank.candidate <= 0:
        return structs.replace(blank, verdict="unknown", reason="not measured on both sides")
    if metric.axis == "energy" and against.energy_apart:
        return structs.replace(blank, verdict="withheld", reason="; ".join(against.energy_apart))
    ratio = blank.candidate / blank.base
    if same:
        return structs.replace(blank, ratio=1.0, lo=1.0, hi=1.0, verdict="same", reason="the same records")
    limits, source = _limits(metric, base, candidate, one, two, ratio)
    if limits is None:
        return structs.replace(blank, ratio=ratio, verdict="no_interval", reason="one measurement each, no interval")
    return judged(blank, limits, source, _against(metric, against))


def judged(blank: Ratio, limits: Limits, source: Source | None, reasons: Sequence[str]) -> Ratio:
    """The ratio with its verdict, unless a rule withholds it."""
    verdict = "withheld" if reasons else verdict_of(limits.lo, limits.hi, blank.floor, blank.better)
    return structs.replace(
        blank, ratio=limits.ratio, lo=limits.lo, hi=limits.hi, source=source, verdict=verdict, reason="; ".join(reasons)
    )


def verdict_of(lo: float, hi: float, floor: float, better: Better) -> Verdict:
    """No difference when the whole interval is within the floor; better or worse when it excludes 1; else inconclusive."""
    if 1 - floor <= lo and hi <= 1 + floor:
        return "no_difference"
    if lo > 1:
        return "better" if better == "higher" else "worse"
    if hi < 1:
        return "worse" if better == "higher" else "better"
    return "inconclusive"


def _against(metric: Metric, against: Doubts) -> tuple[str, ...]:
    length = (against.length,) if metric.per_token and against.length else ()
    return (*against.of(metric.axis), *length)


def _blank(metric: Metric, base: float | None, candidate: float | None) -> Ratio:
    return Ratio(
        metric=metric.name, unit=metric.unit, better=metric.better, floor=metric.floor, base=base, candidate=candidate
    )


def _values(metric: Metric, rows: Sequence[Row]) -> list[float]:
    """One for each repeat; empty when a repeat lacks it."""
    values = [getattr(row, metric.name) for row in rows]
    return [float(v) for v in values if v is not None] if all(v is not None for v in values) else []


def _mean(values: Sequence[float]) -> float | None:
    """Geometric, so that a ratio of means is a mean of ratios."""
    if not values or min(values) <= 0:
        return values[0] if values else None
    return values[0] if len(values) == 1 else math.exp(math.fsum(map(math.log, values)) / len(values))


def _limits(
    metric: Metric, base: Sequence[Row], candidate: Sequence[Row], one: list[float], two: list[float], ratio: float
) -> tuple[Limits | None, Source | None]:
    if len(one) > 1 and len(two) > 1:
        return welch(one, two), "repeats"
    if metric.counted:
        return Limits(ratio, ratio, ratio), "counted"
    if metric.steady:
        spreads = [_steady_spread(metric.name, row) for row in (base[0], candidate[0])]
        if spreads[0] is not None and spreads[1] is not None:
            return _around(ratio, math.hypot(spreads[0], spreads[1], BETWEEN_LOADS * math.sqrt(2))), "steady"
    return None, None


def _steady_spread(name: str, row: Row) -> float | None:
    """Relative standard error by the batch means; a little wide, since their limits are t limits."""
    value, lo, hi = getattr(row, name), getattr(row, f"{name}_lo"), getattr(row, f"{name}_hi")
    if not value or lo is None or hi is None:
        return None
    return float((hi - lo) / 2 / Z / value)


Z = 1.959963984540054


def _around(ratio: float, spread: float) -> Limits:
    return Limits(ratio, ratio * math.exp(-Z * spread), ratio * math.exp(Z * spread))


def welch(base: Sequence[float], candidate: Sequence[float], confidence: float = 0.95) -> Limits:
    """Ratio of geometric means with Welch's t interval on logarithms; at least two positive values on each side."""
    one, two = np.log(np.asarray(base)), np.log(np.asarray(candidate))
    shift = float(two.mean() - one.mean())
    parts = np.array([one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)])
    spread = math.sqrt(float(parts.sum()))
    if spread == 0:
        return Limits(math.exp(shift), math.exp(shift), math.exp(shift))
    freedom = float(parts.sum() ** 2 / np.sum(parts**2 / np.array([len(one) - 1, len(two) - 1])))
    half = float(scipy.stats.t.ppf(0.5 + confidence / 2, freedom)) * spread
    return Limits(math.exp(shift), math.exp(shift - half), math.exp(shift + half))


def cost_ratios(rows: tuple[Row, Row], draws: Draws, against: Doubts, same: bool, apart: str) -> tuple[Ratio, ...]:
    """Costs by draws that share prices and items. `rows` and the two lines of `draws` are base and candidate; `apart` withholds all."""
    drawn: dict[str, Floats] = {
        "cost_per_1k_samples": draws.cost_per_1k_samples,
        "cost_per_correct": draws.cost_per_correct,
    }
    found = []
    for metric in COSTS:
        one, two = getattr(rows[0], metric.name), getattr(rows[1], metric.name)
        blank = structs.replace(_blank(metric, one, two), unit=rows[0].currency or "")
        if one is None and two is None:
            continue
        found.append(_cost_ratio(blank, drawn[metric.name], against, same, apart))
    return tuple(found)


def _cost_ratio(blank: Ratio, drawn: Floats, against: Doubts, same: bool, apart: str) -> Ratio:
    if not blank.base or not blank.candidate:
        return structs.replace(blank, verdict="unknown", reason="not known on both sides")
    if apart:
        return structs.replace(blank, verdict="withheld", reason=apart)
    if same:
        return structs.replace(blank, ratio=1.0, lo=1.0, hi=1.0, verdict="same", reason="the same records")
    loads = np.random.default_rng(0).normal(0.0, BETWEEN_LOADS * math.sqrt(2), drawn.shape[1])
    with np.errstate(invalid="ignore"):
        found = interval(drawn[1] / drawn[0] * np.exp(loads))
    ratio = blank.candidate / blank.base
    if found.lo is None or found.hi is None:
        return structs.replace(
            blank, ratio=ratio, verdict="no_interval", reason="too many draws have no correct answer"
        )
    return judged(blank, Limits(ratio, found.lo, found.hi), "draws", against.speed)


def throughput(found: Sequence[Ratio]) -> Ratio | None:
    """The ratio that stands for speed: of the steady state where there is one, else of finished requests."""
    by_name = {r.metric: r for r in found}
    for name in ("steady_output_tokens_per_s", "steady_prompt_tokens_per_s", "samples_per_s"):
        if name in by_name and by_name[name].lo is not None:
            return by_name[name]
    return next((by_name[n] for n in ("steady_output_tokens_per_s", "samples_per_s") if n in by_name), None)
