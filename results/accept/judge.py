"""Clause by clause: met, not met, or cannot be decided with what would decide it. Pure.

A clause with a confidence interval is met when the whole interval keeps the limit and not met when none of it does.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct, structs

from results.accept import spec as ask
from results.accept.words import NOTHING, WORDS, Said, reasons_said, say
from results.compare.metrics import FORECAST
from results.compare.pairing import Obstacle
from results.cost import Tariff
from results.energy import CLASSES
from results.load import items
from results.measure import MILLI, tpot_ms
from results.montecarlo import Variant, tornado
from results.paired import non_inferiority, pair
from results.records import Answered
from results.report import formats
from results.rows import Row
from results.stats import Interval, Item, exact, mean_t, score_interval
from results.store import StoreError
from results.validity import judge_step
from results.validity.base import Axis, StepView, reasons

Verdict = Literal["met", "not_met", "undecided"]
MOST_MORE = 10_000_000
"""More items or requests than anybody will ask."""
MOST_SAID = 6


class Judged(Struct, frozen=True, kw_only=True):
    """One clause with its verdict. `decides` is empty where it is decided."""

    number: int
    kind: str
    asked: Said
    found: Said
    verdict: Verdict
    decides: Said = NOTHING
    deployment: str = ""
    """Where the clause names one of its own."""
    load: str = ""
    """Where it speaks of one step."""


class Steps(Struct, frozen=True, kw_only=True):
    """The repeats of one task under one load of one deployment, with rows that are priced."""

    name: str
    views: tuple[StepView, ...]
    variants: tuple[Variant, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(v.row for v in self.variants)


class Finding(Struct, frozen=True, kw_only=True):
    """What a clause's own function returns."""

    verdict: Verdict
    found: Said
    decides: Said = NOTHING


class Reference(Struct, frozen=True, kw_only=True):
    """Item scores of a reference, and why they may not be compared."""

    items: tuple[Item, ...]
    obstacles: tuple[Obstacle, ...]


def between(lo: float, hi: float, limit: float, good: Literal["above", "below"]) -> Verdict:
    """Where an interval lies against a limit."""
    if good == "above":
        return "met" if lo >= limit else "not_met" if hi < limit else "undecided"
    return "met" if hi <= limit else "not_met" if lo > limit else "undecided"


def stopped(steps: Steps) -> Finding | None:
    """A step that did not end: a failure of the machine is not met, a step that was never tried is undecided."""
    failed = [row for row in steps.rows if row.outcome != "ok"]
    if not failed:
        return None
    row = failed[0]
    found = say("found_ended", step=row.step, outcome=row.outcome, detail=reasons_said(row.reasons))
    if row.outcome in ("oom", "crashed", "timeout"):
        return Finding(verdict="not_met", found=found)
    return Finding(verdict="undecided", found=found, decides=say("decide_finish"))


def unusable(steps: Steps, *axes: Axis) -> Finding | None:
    """Rules that forbid using the figures of these axes."""
    broken = [
        f"{f.rule}: {f.sentence}"
        for view in steps.views
        for f in judge_step(view)
        if f.verdict == "fail" and f.severity in ("I", "R") and f.axis in ("all", *axes)
        if f.rule != FORECAST
    ]
    if not broken:
        return None
    found = say("found_unusable", reasons=reasons_said(dict.fromkeys(broken)))
    return Finding(verdict="undecided", found=found, decides=say("decide_again"))


def accuracy(clause: ask.Accuracy, steps: Steps, confidence: float) -> Finding:
    answered = items(steps.views)
    found = score_interval(answered, confidence) if answered else None
    if found is None or found.value is None or found.lo is None or found.hi is None:
        found_nothing = say("found_nothing", reason=WORDS["why_items"])
        return Finding(verdict="undecided", found=found_nothing, decides=say("decide_again"))
    verdict = between(found.lo, found.hi, clause.at_least, "above")
    said = say(
        "found_interval",
        value=formats.percent(found.value),
        lo=formats.percent(found.lo),
        hi=formats.percent(found.hi),
        n=found.n,
    )
    decides = _more_items(found, clause.at_least) if verdict == "undecided" else NOTHING
    return Finding(verdict=verdict, found=said, decides=decides)


def _more_items(found: Interval, limit: float) -> Said:
    """Items until the nearer end of the interval would clear the limit, its width shrinking with the root of their number."""
    assert found.value is not None
    assert found.lo is not None
    assert found.hi is not None
    gap = abs(found.value - limit)
    reach = found.value - found.lo if found.value >= limit else found.hi - found.value
    needed = math.ceil(found.n * (reach / gap) ** 2) if gap > 0 else MOST_MORE
    return say("decide_never") if needed >= MOST_MORE else say("decide_items", n=f"{max(1, needed - found.n):,}")


def non_inferior(clause: ask.NonInferior, steps: Steps, reference: Reference, confidence: float) -> Finding:
    if reference.obstacles:
        found = say("found_apart", reasons=reasons_said(o.sentence for o in reference.obstacles))
        return Finding(verdict="undecided", found=found, decides=say("decide_same"))
    pairs = pair(items(steps.views), reference.items)
    result = non_inferiority(pairs, clause.margin, (1 - confidence))
    if result.difference is None or result.lower is None or result.upper is None:
        found = say("found_nothing", reason=WORDS["why_items"])
        return Finding(verdict="undecided", found=found, decides=say("decide_same"))
    verdicts: dict[str, Verdict] = {"non-inferior": "met", "inferior": "not_met", "inconclusive": "undecided"}
    verdict = verdicts[result.verdict]
    said = say(
        "found_difference",
        value=formats.points(result.difference),
        lo=formats.points(result.lower),
        hi=formats.points(result.upper),
        n=len(pairs.ids),
    )
    decides = say("decide_items", n=f"{result.more_items:,}") if result.more_items else say("decide_never")
    return Finding(verdict=verdict, found=said, decides=decides if verdict == "undecided" else NOTHING)


def share_of(kept: Sequence[bool], share: float, confidence: float) -> Finding:
    """Is a condition kept by at least this share of all requests? By the exact interval, requests taken as independent."""
    if not kept:
        found = say("found_nothing", reason=WORDS["why_requests"])
        return Finding(verdict="undecided", found=found, decides=say("decide_again"))
    limits = exact(sum(kept), len(kept), confidence)
    assert limits.value is not None
    assert limits.lo is not None
    assert limits.hi is not None
    verdict = between(limits.lo, limits.hi, share, "above")
    said = say(
        "found_share",
        share=formats.percent(limits.value),
        n=len(kept),
        lo=formats.percent(limits.lo),
        hi=formats.percent(limits.hi),
    )
    decides = _more_requests(limits.value, len(kept), share, confidence) if verdict == "undecided" else NOTHING
    return Finding(verdict=verdict, found=said, decides=decides)


def _more_requests(seen: float, n: int, share: float, confidence: float) -> Said:
    """Requests until the interval would clear the share, if the seen share stays as it is."""
    low, high = n, n
    while high < MOST_MORE and not _decided(seen, high, share, confidence):
        low, high = high, high * 2
    if high >= MOST_MORE:
        return say("decide_never")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _decided(seen, middle, share, confidence) else (middle, high)
    return say("decide_requests", n=f"{high - n:,}")


def _decided(seen: float, n: int, share: float, confidence: float) -> bool:
    limits = exact(round(seen * n), n, confidence)
    return limits.lo is not None and limits.hi is not None and (limits.lo >= share or limits.hi < share)


def answers(steps: Steps) -> list[Answered]:
    return [a for view in steps.views for a in view.step.answered if a.error is None]


def first_token(clause: ask.FirstToken, steps: Steps, confidence: float) -> Finding:
    """A request without any text never kept the limit."""
    times = [(a.first_ns if clause.of == "first" else a.answer_ns, a.sched_ns) for a in answers(steps)]
    kept = [text_ns is not None and (text_ns - sched_ns) * MILLI <= clause.at_most_ms for text_ns, sched_ns in times]
    return share_of(kept, clause.percentile / 100, confidence)


def user_speed(clause: ask.UserSpeed, steps: Steps, confidence: float) -> Finding:
    """Answers of a single token have no speed and do not count."""
    times = [t for a in answers(steps) if (t := tpot_ms(a)) is not None]
    return share_of([t * clause.at_least_tokens_per_s <= 1000 for t in times], clause.for_share, confidence)


def throughput(clause: ask.Throughput, steps: Steps, confidence: float) -> Finding:
    """Repeats give the interval where there are several, else the batch means of the steady state (95 %)."""
    name = f"steady_{clause.of}_tokens_per_s"
    values = [v for row in steps.rows if (v := getattr(row, name)) is not None]
    row = steps.rows[0]
    lo, hi = getattr(row, f"{name}_lo"), getattr(row, f"{name}_hi")
    if len(values) == len(steps.rows) > 1:
        repeated = mean_t(values, None, confidence)
        lo, hi = repeated.lo, repeated.hi
    if not values or lo is None or hi is None:
        found = say("found_nothing", reason=WORDS["why_steady"])
        return Finding(verdict="undecided", found=found, decides=say("decide_steady"))
    verdict = between(lo, hi, clause.at_least_tokens_per_s, "above")
    mean = math.fsum(values) / len(values)
    said = say("found_rate", **{k: formats.significant(v) for k, v in (("value", mean), ("lo", lo), ("hi", hi))})
    return Finding(verdict=verdict, found=said, decides=say("decide_longer") if verdict == "undecided" else NOTHING)


def memory(clause: ask.Memory, all_steps: Sequence[Steps]) -> Finding:
    name = "vram_reserved_bytes" if clause.of == "device" else "host_memory_bytes"
    rows = [row for steps in all_steps for row in steps.rows if getattr(row, name) is not None]
    if not rows:
        found = say("found_nothing", reason=WORDS[f"why_memory_{clause.of}"])
        return Finding(verdict="undecided", found=found, decides=say("decide_reading"))
    top = max(rows, key=lambda row: getattr(row, name))
    gib = getattr(top, name) / 2**30
    verdict: Verdict = "met" if gib <= clause.at_most_gib else "not_met"
    return Finding(verdict=verdict, found=say("found_memory", value=formats.significant(gib), step=top.step))


def power(clause: ask.PowerCap, all_steps: Sequence[Steps]) -> Finding:
    rows = [row for steps in all_steps for row in steps.rows if row.mean_power_w is not None]
    if not rows:
        found = say("found_nothing", reason=WORDS["why_power"])
        return Finding(verdict="undecided", found=found, decides=say("decide_meter"))
    top = max(rows, key=lambda row: row.mean_power_w or 0.0)
    value, joules = top.mean_power_w or 0.0, top.energy_j
    low, high = (
        (value * x / joules if x is not None and joules else value) for x in (top.energy_low_j, top.energy_high_j)
    )
    said = say(
        "found_power",
        value=formats.significant(value),
        lo=formats.significant(low),
        hi=formats.significant(high),
        evidence=top.power_class,
        boundary=top.energy_boundary,
        step=top.step,
    )
    estimated = (top.power_class or "E").startswith("E")
    verdict = "undecided" if estimated else between(low, high, clause.at_most_w, "below")
    return Finding(verdict=verdict, found=said, decides=say("decide_meter") if verdict == "undecided" else NOTHING)


def cost(clause: ask.Cost, steps: Steps, tariff: Tariff) -> Finding:
    """By the first repeat; its interval holds speed, power, items and every price."""
    if clause.currency != tariff.currency:
        raise StoreError(
            f"clause `cost` is in {clause.currency}, the tariff {tariff.name} in {tariff.currency}; give a tariff in {clause.currency}"
        )
    row, name = steps.rows[0], f"cost_per_{clause.per}"
    value, lo, hi = getattr(row, name), getattr(row, f"{name}_lo"), getattr(row, f"{name}_hi")
    if value is None or lo is None or hi is None:
        reason = reasons_said([row.cost_reason]) if row.cost_reason else WORDS["why_draws"]
        return Finding(verdict="undecided", found=say("found_nothing", reason=reason), decides=say("decide_again"))
    verdict = between(lo, hi, clause.at_most, "below")
    said = say(
        "found_cost",
        value=formats.significant(value),
        lo=formats.significant(lo),
        hi=formats.significant(hi),
        currency=tariff.currency,
    )
    return Finding(
        verdict=verdict, found=said, decides=_widest(steps.variants[0]) if verdict == "undecided" else NOTHING
    )


def _widest(variant: Variant) -> Said:
    """The input that moves the cost most."""
    swings = tornado(variant)
    if not swings or swings[0].name == "speed":
        return say("decide_speed")
    return say("decide_price", name=swings[0].name)


def validity(clause: ask.Validity, all_steps: Sequence[Steps]) -> Finding:
    """The records judged by the rules of the profile that is asked for, whichever the run had."""
    views = [
        structs.replace(v, cell=structs.replace(v.cell, profile=clause.profile)) for s in all_steps for v in s.views
    ]
    broken = {v.step.facts.name: reasons(judge_step(v), "ranking") for v in views}
    bad = {name: why for name, why in broken.items() if why}
    if not bad:
        return Finding(verdict="met", found=say("found_valid", n=len(broken)))
    return Finding(
        verdict="not_met", found=say("found_invalid", n=len(bad), all=len(broken), reasons=_by_rule(bad.values()))
    )


def _by_rule(broken: Iterable[Sequence[str]]) -> Said:
    """One sentence for each rule, the first that it gave; beyond six the rules are only named."""
    first = {reason.split(":")[0]: reason for reasons_ in reversed(list(broken)) for reason in reversed(reasons_)}
    ordered = sorted(first)
    said = [first[rule] for rule in ordered[:MOST_SAID]]
    return reasons_said(said + ordered[MOST_SAID:])


def evidence(clause: ask.Evidence, all_steps: Sequence[Steps]) -> Finding:
    """The worst class of all steps counts."""
    classes = [row.power_class for steps in all_steps for row in steps.rows]
    if not classes or None in classes:
        found = say("found_nothing", reason=WORDS["why_power_some"])
        return Finding(verdict="undecided", found=found, decides=say("decide_meter"))
    worst = max((c for c in classes if c is not None), key=CLASSES.index)
    verdict: Verdict = "met" if CLASSES.index(worst) <= CLASSES.index(clause.at_least) else "not_met"
    return Finding(
        verdict=verdict, found=say("found_estimate" if worst.startswith("E") else "found_evidence", value=worst)
    )


def asked(clause: ask.Clause) -> Said:
    """What a clause requires, in words."""
    match clause:
        case ask.Accuracy():
            return say("ask_accuracy", task=clause.task, limit=formats.percent(clause.at_least))
        case ask.NonInferior():
            margin = f"{100 * clause.margin:g}"
            return say("ask_non_inferior", task=clause.task, reference=clause.reference, margin=margin)
        case ask.FirstToken():
            key = "ask_first_token" if clause.of == "first" else "ask_first_answer"
            limit = formats.milliseconds(clause.at_most_ms)
            return say(key, task=clause.task, limit=limit, percentile=f"{clause.percentile:g}")
        case ask.UserSpeed():
            limit = _plain(clause.at_least_tokens_per_s)
            return say("ask_user_speed", task=clause.task, limit=limit, share=formats.percent(clause.for_share, 0))
        case ask.Throughput():
            return say("ask_throughput", task=clause.task, limit=_plain(clause.at_least_tokens_per_s))
        case ask.Memory():
            return say(f"ask_memory_{clause.of}", limit=_plain(clause.at_most_gib))
        case ask.PowerCap():
            return say("ask_power", limit=_plain(clause.at_most_w))
        case ask.Cost():
            limit = _plain(clause.at_most)
            return say(f"ask_cost_{clause.per}", task=clause.task, limit=limit, currency=clause.currency)
        case ask.Validity():
            return say("ask_validity", profile=clause.profile)
        case ask.Evidence():
            return say("ask_evidence", limit=clause.at_least)


def _plain(limit: float) -> str:
    """As it was written, thousands apart."""
    return f"{limit:,.6g}" if limit < 1e6 else f"{limit:,.0f}"


AXES: Mapping[type, tuple[Axis, ...]] = {
    ask.Accuracy: ("accuracy",),
    ask.NonInferior: ("accuracy",),
    ask.FirstToken: ("speed",),
    ask.UserSpeed: ("speed",),
    ask.Throughput: ("speed",),
    ask.Memory: ("memory",),
    ask.Cost: ("speed", "accuracy"),
}
"""Rules of these concern a clause of that kind. Power says its own class, and validity is a clause of its own."""
