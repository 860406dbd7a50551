"""What to run, and how many of it, for a given load and accuracy: every measured deployment against one written demand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct, structs

from results.accept.words import Said, reasons_said
from results.cost import Tariff, node_power
from results.load import LoadedCell, load, tariff_for, variants
from results.measure import MILLI, tpot_ms
from results.montecarlo import Draws, Variant, power_factor, simulate
from results.recommend.demand import Demand, load_demand
from results.recommend.fit import DRAWS, Fit, Load, Measured, fit, predicted_s
from results.recommend.words import say
from results.report.entries import machine_of
from results.rows import Row
from results.stats import Floats, Interval
from results.store import RunDir, StoreError
from results.validity.base import StepView

__all__ = ["Candidate", "Check", "Recommendation", "recommend"]

AGREES = 0.15
"""Largest |predicted - measured| / measured time in the machine at which the queue may be believed."""
TIED = 0.95
ALIKE = 1.02
"""Costs within 2 % are not told apart, whichever is the lower: nobody's prices are that sure."""


class Check(Struct, frozen=True, kw_only=True):
    """The queue against one open-loop step: mean seconds that a request spends in the machine."""

    deployment: str
    load: str
    predicted_s: float
    measured_s: float

    @property
    def off(self) -> float:
        return self.predicted_s / self.measured_s - 1


class Candidate(Struct, frozen=True, kw_only=True):
    """One deployment of one run."""

    run: str
    deployment: str
    model: str
    machine: str
    tariff: Tariff
    synthetic: bool
    fit: Fit
    checks: tuple[Check, ...] = ()


class Recommendation(Struct, frozen=True, kw_only=True):
    """Candidates that meet the demand from the cheapest on, then the others, the likeliest first."""

    demand: Demand
    candidates: tuple[Candidate, ...]
    tied: tuple[str, ...]
    """Deployments that meet the demand and cost at most 2 % more than the first in over 5 % of the draws."""

    @property
    def best(self) -> Candidate | None:
        first = self.candidates[0]
        return first if first.fit.meets else None


class _Found(Struct, frozen=True, kw_only=True):
    """What was read of one cell: loads and, for each task, the row whose items stand for its accuracy."""

    run: str
    machine: str
    tariff: Tariff
    deployment: str
    model: str
    synthetic: bool
    why_not: tuple[Said, ...]
    loads: dict[str, tuple[Load, ...]]
    variants: dict[str, Variant]
    open_loads: tuple[tuple[str, str, float, float], ...]
    """Task, load, requests per second, mean seconds in the machine."""


def recommend(demand_path: Path, runs: Sequence[Path], tariff_path: Path | None = None) -> Recommendation:
    """Raises `StoreError` for a demand or a run that cannot be read, and for machines that are priced in different currencies."""
    demand = load_demand(demand_path)
    prices = tariff_path or (demand_path.parent / demand.tariff if demand.tariff else None)
    found = [one for path in dict.fromkeys(p.resolve() for p in runs) for one in _read(RunDir(path), demand, prices)]
    if not found:
        raise StoreError("no run was given, or none has a cell; give folders made by `run`")
    measured = [v for one in found if not one.why_not for v in one.variants.values()]
    draws = simulate(measured, DRAWS) if measured else None
    judged = sorted((_judged(one, demand, draws) for one in found), key=lambda pair: _order(pair[0]))
    return Recommendation(demand=demand, candidates=tuple(c for c, _ in judged), tied=_tied(judged))


def _order(candidate: Candidate) -> tuple[bool, float, float]:
    cost = candidate.fit.cost_per_year
    return (
        not candidate.fit.meets,
        cost.value if candidate.fit.meets and cost is not None and cost.value is not None else float("inf"),
        -(candidate.fit.probability or 0.0),
    )


def _tied(judged: Sequence[tuple[Candidate, Floats | None]]) -> tuple[str, ...]:
    able = [(c.deployment, year) for c, year in judged if c.fit.meets and year is not None]
    return tuple(name for name, year in able[1:] if float(np.mean(year <= ALIKE * able[0][1])) > 1 - TIED)


def _read(run: RunDir, demand: Demand, prices: Path | None) -> list[_Found]:
    manifest = run.manifest()
    if edits := run.edits():
        raise StoreError(f"{run.path}: {edits[0]}; nothing is recommended from a run that is not whole")
    tariff = tariff_for(manifest, prices)
    return [_cell(cell, demand, tariff) for cell in load(run, manifest)]


def _cell(cell: LoadedCell, demand: Demand, tariff: Tariff) -> _Found:
    priced = dict(zip((v.step.facts.name for v in cell.views), variants(cell, tariff), strict=True))
    why_not: list[Said] = []
    loads: dict[str, tuple[Load, ...]] = {}
    chosen: dict[str, Variant] = {}
    open_loads: list[tuple[str, str, float, float]] = []
    for task in dict.fromkeys(work.task for work in demand.work):
        pairs = [(v, r) for v, r in zip(cell.views, cell.rows, strict=True) if v.step.facts.task == task]
        usable = [(v, r) for v, r in pairs if v.step.facts.concurrency and v.step.answered and r.valid]
        if not usable:
            why_not.append(_unusable(task, pairs))
            continue
        loads[task] = _loads(usable, tariff)
        if not loads[task]:
            why_not.append(say("why_speed", task=task))
            continue
        chosen[task] = priced[usable[-1][0].step.facts.name]
        open_loads += [_open(v) for v, r in pairs if v.step.facts.rate_per_s and r.valid and v.step.answered]
    engine = next((v.step.engine for v in cell.views if v.step.engine), None)
    return _Found(
        run=cell.manifest.run,
        machine=machine_of(cell.manifest.host),
        tariff=tariff,
        deployment=cell.facts.deployment,
        model=cell.facts.model + (f", {engine.quantisation}" if engine and engine.quantisation else ""),
        synthetic=any(v.step.facts.synthetic for v in cell.views),
        why_not=tuple(why_not),
        loads=loads,
        variants=chosen,
        open_loads=tuple(open_loads),
    )


def _unusable(task: str, pairs: Sequence[tuple[StepView, Row]]) -> Said:
    if not pairs:
        return say("why_task", task=task)
    if all(v.step.ranked and not v.step.answered for v, _ in pairs):
        return say("why_ranked", task=task)
    reasons = list(dict.fromkeys(reason for _, row in pairs for reason in row.reasons))
    return say("why_load", task=task, reasons=reasons_said(reasons[:3]))


def _loads(usable: Sequence[tuple[StepView, Row]], tariff: Tariff) -> tuple[Load, ...]:
    """Repeats of a load together: their times in one, their speeds as a mean."""
    together: dict[int, list[tuple[StepView, Row]]] = {}
    for view, row in usable:
        together.setdefault(view.step.facts.concurrency or 0, []).append((view, row))
    found = []
    for concurrency, same in sorted(together.items()):
        speeds = [speed for _, row in same if (speed := _requests_per_s(row)) is not None]
        answers = [a for v, _ in same for a in v.step.answered if a.error is None]
        if not speeds or not answers:
            continue
        found.append(
            Load(
                concurrency=concurrency,
                requests_per_s=_mean(speeds),
                ttft_ms=np.array([(a.first_ns - a.sched_ns) * MILLI for a in answers if a.first_ns is not None]),
                tpot_ms=np.array([t for a in answers if (t := tpot_ms(a)) is not None]),
                prompt_tokens=_average([a.prompt_tokens for a in answers]),
                output_tokens=_average([a.output_tokens for a in answers]),
                power=node_power(same[0][1], tariff.node),
            )
        )
    return tuple(found)


def _requests_per_s(row: Row) -> Interval | None:
    """Of the steady state: its tokens per second over the tokens of an answer; else of the whole step."""
    mean, value = row.output_tokens_mean, row.steady_output_tokens_per_s
    if value and mean:
        lo, hi = row.steady_output_tokens_per_s_lo, row.steady_output_tokens_per_s_hi
        limits = (lo / mean, hi / mean) if lo is not None and hi is not None else (None, None)
        return Interval(value=value / mean, lo=limits[0], hi=limits[1], n=row.samples or 0, method="steady")
    if not row.samples_per_s:
        return None
    return Interval(value=row.samples_per_s, lo=None, hi=None, n=row.samples or 0, method="step")


def _mean(speeds: Sequence[Interval]) -> Interval:
    if len(speeds) == 1:
        return speeds[0]
    values = [s.value for s in speeds if s.value is not None]
    return Interval(value=float(np.mean(values)), lo=min(values), hi=max(values), n=len(values), method="repeats")


def _average(counts: Sequence[int | None]) -> float | None:
    known = [c for c in counts if c is not None]
    return sum(known) / len(known) if known and len(known) == len(counts) else None


def _open(view: StepView) -> tuple[str, str, float, float]:
    seconds = [(a.end_ns - a.sched_ns) / 1e9 for a in view.step.answered if a.error is None]
    facts = view.step.facts
    return facts.task, facts.load, facts.rate_per_s or 0.0, float(np.mean(seconds)) if seconds else float("nan")


def _judged(one: _Found, demand: Demand, draws: Draws | None) -> tuple[Candidate, Floats | None]:
    checks: tuple[Check, ...] = ()
    year: Floats | None = None
    if one.why_not or draws is None:
        result = Fit(meets=False, why_not=one.why_not)
    else:
        measured = {task: _measured(one, task, draws) for task in one.loads}
        result, year = fit(f"{one.run}:{one.deployment}", demand, measured, one.tariff)
        checks = tuple(
            Check(
                deployment=one.deployment,
                load=f"{task} {name}",
                predicted_s=predicted_s(one.loads[task], rate),
                measured_s=seconds,
            )
            for task, name, rate, seconds in one.open_loads
        )
        if wrong := [c for c in checks if not abs(c.off) <= AGREES]:
            why = say("why_model", off=f"{100 * max(abs(c.off) for c in wrong):.0f}")
            result = structs.replace(result, meets=False, why_not=(*result.why_not, why))
    found = Candidate(
        run=one.run,
        deployment=one.deployment,
        model=one.model,
        machine=one.machine,
        tariff=one.tariff,
        synthetic=one.synthetic,
        fit=result,
        checks=checks,
    )
    return found, year


def _measured(one: _Found, task: str, draws: Draws) -> Measured:
    variant = one.variants[task]
    place = draws.names.index(variant.name)
    return Measured(
        loads=one.loads[task],
        accuracy=draws.accuracy[place],
        correct=draws.success[place],
        power_factor=power_factor(variant.row, DRAWS, 0),
    )
