"""One deployment on one machine against a demand: how many nodes, whether times and accuracy are kept, what a year costs. Pure.

Every uncertain thing is drawn: speed and power as in `results.montecarlo`, the demand triangular in its range, the share of answers in time
by a Beta distribution of what was counted. A demand is met where accuracy and times hold together in at least the share of draws that it
asks for.
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
from msgspec import Struct, structs

from results.accept.words import Said
from results.cost import Amount, Power, Tariff, annual_cost
from results.montecarlo import UNKNOWN_SPEED_SD, drawn_inputs, triangular
from results.recommend.demand import Demand, Estimate, Limit, Work
from results.recommend.queue import Chain, between, chain, in_time
from results.recommend.words import say
from results.stats import Floats, Interval

DRAWS = 2000
QUANTILES = np.linspace(0.005, 0.995, 50)
LONGER = 1.25
"""Real requests may be this much longer than those that were measured."""


class Load(Struct, frozen=True, kw_only=True):
    """One task under one closed-loop load, as measured. Times are of single requests."""

    concurrency: int
    requests_per_s: Interval
    ttft_ms: Floats
    tpot_ms: Floats
    prompt_tokens: float | None
    output_tokens: float | None
    power: Power


class Measured(Struct, frozen=True, kw_only=True):
    """One task on one deployment: loads from the smallest on, and what is drawn of it."""

    loads: tuple[Load, ...]
    accuracy: Floats
    correct: Floats
    """Share of correct answers."""
    power_factor: Floats
    """Watts over the measured ones, within the range of the meter's class."""


class Kept(Struct, frozen=True, kw_only=True):
    """One requirement of one kind of work: what was asked, the value with its 95 % range, and in which share of the draws it holds."""

    work: str
    what: str
    asked: float
    value: float
    lo: float
    hi: float
    probability: float
    at_most_ms: float | None = None


class Fit(Struct, frozen=True, kw_only=True):
    """What a deployment needs for the demand. `probability` is that of keeping everything, `why_not` says what keeps it from the demand."""

    meets: bool
    why_not: tuple[Said, ...]
    nodes: int | None = None
    """Spare ones included."""
    spare: int = 0
    probability: float | None = None
    kept: tuple[Kept, ...] = ()
    capacity_per_s: float | None = None
    """Requests each second of one node at the largest measured load, in the busiest hour's mixture."""
    peak_per_s: float | None = None
    utilisation: tuple[float, ...] = ()
    """Share of each hour in which a node works, all nodes sharing the load."""
    cost_per_year: Interval | None = None
    cost_per_correct: Interval | None = None


def fit(name: str, demand: Demand, measured: Mapping[str, Measured], tariff: Tariff) -> tuple[Fit, Floats | None]:
    """And the draws of a year's cost, in which demand and prices are the same for every deployment.

    `measured` holds the task of every kind of work.
    """
    if refused := [why for work in demand.work for why in refusals(work, measured[work.task])]:
        return Fit(meets=False, why_not=tuple(refused)), None
    node = Node(name, demand, measured)
    if not node.keeps(node.at_rest()).mean() >= demand.confidence:
        return Fit(meets=False, why_not=(say("why_alone"),), kept=node.kept(node.at_rest())), None
    accurate = node.accurate()
    needed = next(
        (n for n in range(1, demand.most_nodes + 1) if node.keeps(node.peak(n)).mean() >= demand.confidence), 0
    )
    if not needed:
        last = node.peak(demand.most_nodes)
        return Fit(meets=False, why_not=(say("why_nodes", n=demand.most_nodes),), kept=node.kept(last)), None
    peak, nodes = node.peak(needed), needed + demand.spare_nodes
    probability = float((node.keeps(peak) & accurate).mean())
    priced = node.year(nodes, tariff)
    missed = [k for k in node.kept(peak) if k.probability < demand.confidence]
    found = Fit(
        meets=probability >= demand.confidence,
        why_not=() if probability >= demand.confidence else tuple(map(_missed, missed)) or (say("why_together"),),
        nodes=nodes,
        spare=demand.spare_nodes,
        probability=probability,
        kept=node.kept(peak),
        capacity_per_s=float(np.median(node.curve(node.busiest)[:, -1])),
        peak_per_s=float(np.median(node.peak_per_s)),
        utilisation=tuple(float(np.median(1 - node.hour(h, nodes).idle)) for h in range(24)),
        cost_per_year=_range(priced) if priced is not None else None,
        cost_per_correct=_range(priced / node.correct_per_year) if priced is not None else None,
    )
    return found, priced


def predicted_s(loads: Sequence[Load], rate_per_s: float) -> float:
    """Mean seconds in the machine at an open load, by Little's law; infinite where more comes than can be served."""
    curve = np.array([[load.requests_per_s.value or 0.0 for load in loads]]) @ between([x.concurrency for x in loads])
    return float(chain(np.array([rate_per_s]), curve).inside[0]) / rate_per_s


def refusals(work: Work, measured: Measured) -> list[Said]:
    """What would have to be guessed beyond what was measured."""
    found = []
    for asked, of, key in (
        (work.prompt_tokens, "prompt_tokens", "why_prompts"),
        (work.output_tokens, "output_tokens", "why_answers"),
    ):
        seen = [v for load in measured.loads if (v := getattr(load, of)) is not None]
        if asked is not None and (not seen or asked > LONGER * min(seen)):
            found.append(say(key, work=work.name, asked=f"{asked:,.0f}", seen=f"{min(seen):,.0f}" if seen else "?"))
    if work.minimum_accuracy is not None and not np.isfinite(measured.accuracy).all():
        found.append(say("why_unscored", work=work.name, task=work.task))
    if work.tpot is not None and not all(len(load.tpot_ms) for load in measured.loads):
        found.append(say("why_tpot", work=work.name))
    return found


class Node:
    """One node under the demand, drawn. Kinds of work share it: a request takes the mean time of the mixture at each number in flight."""

    def __init__(self, name: str, demand: Demand, measured: Mapping[str, Measured]) -> None:
        self.demand = demand
        self._measured = [measured[work.task] for work in demand.work]
        self._most = min(m.loads[-1].concurrency for m in self._measured)
        self._curves = [
            _curve(f"{name}:{w.task}", m)[:, : self._most] for w, m in zip(demand.work, self._measured, strict=True)
        ]
        per_day = [_per_day(work) for work in demand.work]
        self._by_hour = np.stack([d[:, None] * w.hours for d, w in zip(per_day, demand.work, strict=True)]) / 3600
        self._burst = np.array([work.burst for work in demand.work])
        self.busiest = int(np.argmax((np.median(self._by_hour, axis=1) * self._burst[:, None]).sum(axis=0)))
        self._in_time = [
            [(work, what, limit, *_in_time(f"{name}:{work.name}:{what}", m, of, limit, self._most)) for what, of, limit in _limits(work)]
            for work, m in zip(demand.work, self._measured, strict=True)
        ]  # fmt: skip

    @property
    def peak_per_s(self) -> Floats:
        """Requests each second in the busiest minutes."""
        found: Floats = self._burst @ self._by_hour[:, :, self.busiest]
        return found

    @property
    def correct_per_year(self) -> Floats:
        """Requests of a year that are answered rightly."""
        parts = [365 * 3600 * h.sum(axis=1) * m.correct for h, m in zip(self._by_hour, self._measured, strict=True)]
        found: Floats = np.sum(parts, axis=0)
        return found

    def curve(self, hour: int) -> Floats:
        """X(1) to X(N) of the hour's mixture: the mean time of a request is that of its parts."""
        rates = self._by_hour[:, :, hour]
        whole = rates.sum(axis=0)
        shares = np.where(whole > 0, rates / np.where(whole > 0, whole, 1.0), 1 / len(rates))
        found: Floats = 1 / sum(s[:, None] / c for s, c in zip(shares, self._curves, strict=True))
        return found

    def hour(self, hour: int, nodes: int) -> Chain:
        """A node in an hour's mean load."""
        return chain(self._by_hour[:, :, hour].sum(axis=0) / nodes, self.curve(hour))

    def peak(self, nodes: int) -> Chain:
        return chain(self.peak_per_s / nodes, self.curve(self.busiest))

    def at_rest(self) -> Chain:
        """A request that meets no other."""
        return chain(np.full(DRAWS, 1e-9), self.curve(self.busiest))

    def keeps(self, state: Chain) -> np.ndarray:
        """Draws in which every time limit is kept."""
        shares = [
            (limit, self._share(state, what, limit, starts, after)) for _, what, limit, starts, after in self._each()
        ]
        return np.all([share >= limit.share for limit, share in shares], axis=0) if shares else state.drain > 0

    def accurate(self) -> np.ndarray:
        """Draws in which every accuracy that is asked for is reached."""
        works = zip(self.demand.work, self._measured, strict=True)
        parts = [m.accuracy >= w.minimum_accuracy for w, m in works if w.minimum_accuracy is not None]
        return np.all(parts, axis=0) if parts else np.ones(DRAWS, dtype=bool)

    def kept(self, state: Chain) -> tuple[Kept, ...]:
        """Every requirement with how sure it is."""
        found = [
            _kept(w.name, "accuracy", w.minimum_accuracy, m.accuracy)
            for w, m in zip(self.demand.work, self._measured, strict=True)
            if w.minimum_accuracy is not None
        ]
        found += [
            _kept(work.name, what, limit.share, self._share(state, what, limit, starts, after), limit.at_most_ms)
            for work, what, limit, starts, after in self._each()
        ]
        return tuple(found)

    def year(self, nodes: int, tariff: Tariff) -> Floats | None:
        """Money for a year of all nodes; `None` where power is unknown and the tariff declares none."""
        powers = [load.power for m in self._measured for load in m.loads]
        if any(power.busy_w is None or power.idle_w is None for power in powers):
            return None
        hours = [self.hour(h, nodes) for h in range(24)]
        inputs = drawn_inputs(tariff, powers[0], self._measured[0].power_factor, DRAWS, 0)
        if powers[0].measured:
            inputs = structs.replace(inputs, busy_w=inputs.busy_w * self._busy_w(hours) / (powers[0].busy_w or 1.0))
        works = np.mean([1 - h.idle for h in hours], axis=0)
        return np.asarray(nodes * annual_cost(structs.replace(inputs, utilisation=works)).total)

    def _busy_w(self, states: Sequence[Chain]) -> Floats:
        """Mean watts of a node while it works, over hours; between measured loads on a straight line, kinds of work by their time."""
        took = [h.sum(axis=1).mean() / np.median(c[:, -1]) for h, c in zip(self._by_hour, self._curves, strict=True)]
        watts = np.average([_watts(m, self._most) for m in self._measured], axis=0, weights=took)
        # 1 to N - 1 in flight stand in the states; with more waiting the node draws what it does at N.
        joules = sum(s.states[:, 1:] @ watts[:-1] + s.waits * watts[-1] for s in states)
        found: Floats = joules / sum(1 - s.idle for s in states)
        return found

    def _each(self) -> list[tuple[Work, str, Limit, Floats, Floats]]:
        return [one for of_work in self._in_time for one in of_work]

    def _share(self, state: Chain, what: str, limit: Limit, starts: Floats, after: Floats) -> Floats:
        if what == "ttft":
            return in_time(state, starts, after, limit.at_most_ms / 1000)
        # waiting does not slow the tokens of an answer that is being written
        found: Floats = np.sum(state.states * starts, axis=1) + state.waits * starts[:, -1]
        return np.where(state.drain > 0, found, 0.0)


def _limits(work: Work) -> list[tuple[str, str, Limit]]:
    named = (("ttft", "ttft_ms", work.ttft), ("tpot", "tpot_ms", work.tpot))
    return [(what, of, limit) for what, of, limit in named if limit is not None]


def _in_time(name: str, measured: Measured, of: str, limit: Limit, most: int) -> tuple[Floats, Floats]:
    """For a request that finds 0 to N - 1 others: the share in time at the next measured load, drawn. And seconds at N, as quantiles."""
    loads = [x.concurrency for x in measured.loads]
    counted = []
    for load in measured.loads:
        times = getattr(load, of)
        within = int(np.count_nonzero(times <= limit.at_most_ms))
        counted.append(_generator(f"{name}:{load.concurrency}").beta(within + 0.5, len(times) - within + 0.5, DRAWS))
    place = np.searchsorted(loads, np.arange(1, most + 1))
    last = getattr(measured.loads[int(place[-1])], of)
    return np.stack(counted, axis=1)[:, place], np.quantile(last, QUANTILES) / 1000


def _curve(name: str, measured: Measured) -> Floats:
    """X(1) to X(N), a line for each draw."""
    columns = []
    for load in measured.loads:
        speed = load.requests_per_s
        assert speed.value is not None
        sd = (
            (speed.hi - speed.lo) / (2 * 1.96) / speed.value
            if speed.lo is not None and speed.hi is not None
            else UNKNOWN_SPEED_SD
        )
        columns.append(speed.value * np.clip(_generator(f"{name}:{load.concurrency}").normal(1.0, sd, DRAWS), 0.2, 5.0))
    found: Floats = np.stack(columns, axis=1) @ between([x.concurrency for x in measured.loads])
    return found


def _per_day(work: Work) -> Floats:
    asked = work.requests_per_day
    if not isinstance(asked, Estimate):
        return np.full(DRAWS, float(asked))
    amount = Amount(value=asked.value, low=asked.low, high=asked.high, source="demand", date="")
    return triangular(amount, _generator(f"demand:{work.name}").random(DRAWS))


def _kept(work: str, what: str, asked: float, drawn: Floats, at_most_ms: float | None = None) -> Kept:
    lo, value, hi = (float(q) for q in np.quantile(drawn, [0.025, 0.5, 0.975]))
    held = float((drawn >= asked).mean())
    return Kept(work=work, what=what, asked=asked, value=value, lo=lo, hi=hi, probability=held, at_most_ms=at_most_ms)


def _missed(kept: Kept) -> Said:
    share = f"{100 * kept.probability:.0f}"
    if kept.what == "accuracy":
        return say(
            "why_accuracy", work=kept.work, value=f"{100 * kept.value:.1f}", asked=f"{100 * kept.asked:g}", share=share
        )
    return say(
        "why_time",
        work=kept.work,
        what=kept.what.upper(),
        value=f"{100 * kept.value:.1f}",
        asked=f"{100 * kept.asked:g}",
        share=share,
    )


def _watts(measured: Measured, most: int) -> Floats:
    """At 1 to N in flight; below the smallest measured load what it drew."""
    loads = [x.concurrency for x in measured.loads]
    return np.interp(range(1, most + 1), loads, [x.power.busy_w or 0.0 for x in measured.loads])


def _range(drawn: Floats) -> Interval:
    known = drawn[np.isfinite(drawn)]
    if len(known) < len(drawn):
        return Interval(value=None, lo=None, hi=None, n=len(known), method="draws")
    lo, value, hi = (float(q) for q in np.quantile(known, [0.025, 0.5, 0.975]))
    return Interval(value=value, lo=lo, hi=hi, n=len(known), method="draws")


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng([0, crc32(name.encode())])
