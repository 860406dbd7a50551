"""Group C: are the speeds those of a steady state, from enough requests, with an honest clock?"""

from collections.abc import Sequence

import numpy as np

from results.energy import MAX_GAP_S
from results.profiles import FLOORS
from results.validity.base import Check, Rule, StepView, failed, not_applicable, not_known, passed
from results.validity.workload import done, drafting
from results.views import StepRecords
from results.windows import batch_limit, slope_interval

MOST_OF_A_CORE = 0.7
LATEST_MS = 50.0
"""Half of the distance between two readings."""


def window(view: StepView) -> Check:
    """C1"""
    profile, steady = view.profile, view.result.steady
    threshold = f">= {profile.window_s:g} s, >= {profile.requests_per_slot} requests for each in flight"
    finished, slots = sum(r.error is None for r in view.step.records), max(1, batch_limit(view.step))
    indicative = " (indicative only)" if profile.short == "W" else ""
    if steady is None:
        return failed(
            f"{finished} requests", f"too few requests for a steady state{indicative}", profile.short, threshold
        )
    seconds = steady.window.seconds
    if seconds < profile.window_s:
        text = f"the steady state is {seconds:.1f} s long, {profile.window_s:g} s are asked for{indicative}"
        return failed(f"{seconds:.1f} s", text, profile.short, threshold)
    if finished < profile.requests_per_slot * slots:
        text = (
            f"{finished} requests at {slots} in flight, {profile.requests_per_slot * slots} are asked for{indicative}"
        )
        return failed(f"{finished} requests", text, profile.short, threshold)
    return Check(verdict="pass", observed=f"{seconds:.1f} s, {finished} requests", threshold=threshold)


def enough(view: StepView) -> Check:
    """C2"""
    profile = view.profile
    if profile.percentile is None:
        return not_applicable("the profile asks for no percentile; those not backed are left empty")
    count, floor = view.result.latency.e2e_p50.n, FLOORS[profile.percentile]
    threshold = f">= {floor} for p{100 * profile.percentile:g}"
    if count < floor:
        return failed(
            str(count),
            f"{count} requests cannot back p{100 * profile.percentile:g}, {floor} are needed",
            None,
            threshold,
        )
    return Check(verdict="pass", observed=str(count), threshold=threshold)


def warmed_up(view: StepView) -> Check:
    """C3"""
    start_ns = view.span.start_ns
    earlier = [
        s for s in view.cell.steps if s.span is not None and s.span.end_ns <= start_ns and s.loaded == view.step.loaded
    ]
    requests = sum(len(s.records) for s in earlier)
    seconds = sum(s.span.seconds for s in earlier if s.span is not None)
    wanted = 2 * max(1, batch_limit(view.step))
    seen = f"{requests} requests, {seconds:.1f} s"
    timed = view.profile.short != "W"
    if requests >= wanted and (seconds >= view.profile.warmup_s or not timed):
        return passed(seen)
    asked = f"{wanted} requests and {view.profile.warmup_s:g} s" if timed else f"{wanted} requests"
    return failed(seen, f"before this step the engine had served {seen}; {asked} are asked for", view.profile.short)


def steady(view: StepView) -> Check:
    """C4"""
    found = view.result.steady
    if found is None or found.level.spread is None:
        return not_known("no steady state to look at")
    seen = f"spread {found.level.spread:.0%}" + (", drifting" if found.level.drifts else "")
    if found.level.drifts and found.level.spread > 0.10:
        return failed(
            seen,
            f"speed was not steady: five parts of the window differ by {found.level.spread:.0%} and drift",
            view.profile.short,
        )
    if found.level.spread > 0.10:
        return failed(
            seen,
            f"speed was not steady: five parts of the window differ by {found.level.spread:.0%}",
            view.profile.short,
        )
    return passed(seen)


def on_time(view: StepView) -> Check:
    """C5"""
    rate, answers = view.step.facts.rate_per_s, view.step.answered
    if rate is None or not answers:
        return not_applicable("closed loop")
    lag_ms = float(np.quantile([(a.start_ns - a.sched_ns) / 1e6 for a in answers], 0.99))
    ttft = view.result.latency.ttft_p50.value
    if lag_ms > max(10.0, 0.05 * (ttft or 0.0)):
        return failed(
            f"lag p99 {lag_ms:.0f} ms", f"requests left {lag_ms:.0f} ms late (p99): the load was lighter than planned"
        )
    seconds = (max(a.sched_ns for a in answers) - view.span.start_ns) / 1e9
    achieved = len(answers) / seconds if seconds > 0 else 0.0
    starts = (max(a.start_ns for a in answers) - view.span.start_ns) / 1e9
    if seconds > 0 and abs(starts / seconds - 1) > 0.02:
        return failed(
            f"{len(answers) / starts:.3g}/s",
            f"{len(answers) / starts:.3g} requests/s left, {achieved:.3g}/s were scheduled",
        )
    return passed(f"lag p99 {lag_ms:.1f} ms")


def not_saturated(view: StepView) -> Check:
    """C6"""
    answers = sorted((a for a in done(view) if a.first_ns is not None), key=lambda a: a.sched_ns)
    if view.step.facts.rate_per_s is None:
        return not_applicable("closed loop")
    if len(answers) < 11:
        return not_known("too few requests to see a trend")
    times = np.array([(a.sched_ns - answers[0].sched_ns) / 1e9 for a in answers])
    due_ns, ends_ns = np.array([a.sched_ns for a in answers]), np.sort([a.end_ns for a in answers])
    # In flight or in the queue when a request is due: all that were due by then, less those that had ended.
    waiting = np.searchsorted(due_ns, due_ns, "right") - np.searchsorted(ends_ns, due_ns, "right").astype(float)
    ttft = np.array([((a.first_ns or 0) - a.sched_ns) / 1e6 for a in answers])
    if slope_interval(times, waiting)[0] > 0 and slope_interval(times, ttft)[0] > 0:
        return failed("in flight and TTFT rise", "more requests came than were served: queue and TTFT grew throughout")
    return passed("level")


def first_token(view: StepView) -> Check:
    """C7"""
    answers = [a for a in done(view) if a.output_tokens]
    if not answers:
        return not_applicable("nothing was generated")
    bad = [a.sample for a in answers if a.first_ns is None or a.first_ns <= a.start_ns]
    if bad:
        return failed(
            f"{len(bad)} answers", f"{len(bad)} answers have tokens and no time of a first one, e.g. `{bad[0]}`"
        )
    return passed("> 0 in all")


def ceiling(view: StepView) -> Check:
    """C8"""
    limit, steady_state = view.cell.facts.prediction.decode_tokens_per_s_ceiling, view.result.steady
    speed = steady_state.output.value if steady_state else None
    if not view.step.answered:
        return not_applicable("nothing was generated")
    if drafting(view):
        return not_applicable("speculative decoding gives several tokens for one reading of the weights")
    if limit is None or speed is None:
        return not_known("no ceiling from memory bandwidth, or no steady speed")
    if speed > 1.05 * limit:
        return failed(
            f"{speed:.1f} tok/s",
            f"{speed:.1f} tokens/s is more than memory bandwidth allows ({limit:.1f}): a count is wrong",
        )
    return passed(f"{speed:.1f} of at most {limit:.1f} tok/s")


def unburdened(view: StepView) -> Check:
    """C9"""
    series, span = view.cell.series, view.span
    # Against a server that runs by itself the worker is only its client; else its processes' time is the engine's.
    fields = ["harness_cpu_seconds"] + (["cpu_seconds"] if view.cell.facts.backend == "openai_server" else [])
    used = [share for field in fields if (share := _cores(view, field)) is not None]
    late = [
        series.column(m, d, "late_ms").within(span.start_ns, span.end_ns).values
        for m, d in series.with_field("harness_cpu_seconds")
    ]
    if len(used) < len(fields) or not sum(map(len, late)):
        return not_known("the measuring side's own processor time was not read")
    lag_ms = float(np.quantile(np.concatenate(late), 0.99))
    seen = f"{max(used):.1%} of a core, readings {lag_ms:.1f} ms late (p99)"
    if max(used) > MOST_OF_A_CORE:
        return failed(seen, f"the measuring side used {max(used):.0%} of a core: it may have slowed what it measured")
    if lag_ms > LATEST_MS:
        return failed(seen, f"readings were {lag_ms:.0f} ms late (p99): the measuring side did not get its turn")
    return passed(seen)


def _cores(view: StepView, field: str) -> float | None:
    """Mean number of cores that a counter of CPU seconds says were used within the step."""
    series, span = view.cell.series, view.span
    columns = [series.column(m, d, field).within(span.start_ns, span.end_ns) for m, d in series.with_field(field)]
    for c in columns:
        if len(c.values) > 1:
            return float(c.values[-1] - c.values[0]) / (float(c.times_ns[-1] - c.times_ns[0]) / 1e9)
    return None


def filled(view: StepView) -> Check:
    """C12"""
    # A closed loop with as many requests as the engine takes claims its full speed. What is in flight is the most that can be in the
    # engine's batch, so this can refute the claim and not prove it.
    engine, wanted = view.step.engine, view.step.facts.concurrency
    if engine is None or engine.max_concurrency < 2 or wanted is None or wanted < engine.max_concurrency:
        return not_applicable("the load does not claim to fill the engine's batch")
    if view.result.steady is None or not view.step.answered:
        return not_applicable("no steady state of generation")
    window = view.result.steady.window
    starts_ns, ends_ns = (np.array([getattr(r, of) for r in view.step.answered]) for of in ("start_ns", "end_ns"))
    inside_ns = np.minimum(ends_ns, window.end_ns) - np.maximum(starts_ns, window.start_ns)
    busy = float(np.maximum(inside_ns, 0).sum()) / (window.end_ns - window.start_ns)
    seen = f"{busy:.1f} of {engine.max_concurrency}"
    if busy < 0.8 * engine.max_concurrency:
        return failed(seen, f"{busy:.1f} requests were in flight on average, {engine.max_concurrency} fill the engine")
    return passed(seen)


def repeated(view: StepView) -> Check:
    """C10"""
    wanted = view.profile.repeats
    same = [s for s in view.cell.steps if _alike(s, view.step)]
    if wanted <= 1 and len(same) < 2:
        return not_applicable("the profile asks for one repetition")
    if len(same) < wanted:
        return failed(
            f"{len(same)}", f"{len(same)} repetitions, {wanted} are asked for", None, f">= {wanted}, CV <= 5 %"
        )
    speeds = [_speed(s) for s in same]
    variation = float(np.std(speeds, ddof=1) / np.mean(speeds)) if len(speeds) > 1 and np.mean(speeds) > 0 else 0.0
    if variation > 0.05:
        return failed(f"CV {variation:.1%}", f"speed differs by {variation:.1%} (CV) between {len(same)} repetitions")
    return passed(f"{len(same)}, CV {variation:.1%}")


def _alike(one: StepRecords, other: StepRecords) -> bool:
    a, b = one.facts, other.facts
    return one.span is not None and not a.warmup and (a.task, a.load, a.scoring) == (b.task, b.load, b.scoring)


def _speed(step: StepRecords) -> float:
    """Requests per second; the requests of repetitions are the same."""
    return len(step.records) / step.span.seconds if step.span else 0.0


def no_hole(view: StepView) -> Check:
    """C11"""
    series, span = view.cell.series, view.span
    worst = min(
        (_coverage(t.times_ns, view) for m, d in _power_devices(view) for t in [series.column(m, d, "power_w")]),
        default=None,
    )
    if worst is None:
        return not_applicable("no sampled power in the energy of this step")
    share, gap_s = worst
    if span.seconds > 1 and (share < 0.75 or gap_s > MAX_GAP_S):
        return failed(
            f"{share:.0%}, gap {gap_s:.1f} s",
            f"{share:.0%} of the power samples are there, the longest gap is {gap_s:.1f} s",
        )
    return passed(f"{share:.0%}")


def _power_devices(view: StepView) -> Sequence[tuple[str, str]]:
    meters = view.result.energy.meters
    return [(m, d) for m, d in view.cell.series.with_field("power_w") if m in meters]


def _coverage(times: np.ndarray, view: StepView) -> tuple[float, float]:
    """Share of expected samples within the step, by the usual distance between samples, and the longest gap in seconds."""
    inside = times[(times >= view.span.start_ns) & (times <= view.span.end_ns)]
    usual_s = float(np.median(np.diff(times))) / 1e9 if len(times) > 1 else 1.0
    edges = np.concatenate(([view.span.start_ns], inside, [view.span.end_ns]))
    return min(1.0, len(inside) * usual_s / view.span.seconds), float(np.max(np.diff(edges))) / 1e9


RULES = (
    Rule(id="C1", severity="I", axis="speed", title="length of the steady state", threshold="by profile", check=window),
    Rule(
        id="C2",
        severity="I",
        axis="speed",
        title="requests that a percentile needs",
        threshold="by profile: p90 64, p95 130, p99 662",
        check=enough,
    ),
    Rule(
        id="C3",
        severity="I",
        axis="speed",
        title="warmed up before",
        threshold=">= 2 requests for each in flight and >= 30 s (smoke: requests only)",
        check=warmed_up,
    ),
    Rule(id="C4", severity="I", axis="speed", title="steady speed", threshold="five parts within 10 %", check=steady),
    Rule(
        id="C5",
        severity="I",
        axis="speed",
        title="open loop: requests leave on time",
        threshold="lag p99 <= 10 ms or 5 % of TTFT p50; rate within 2 %",
        check=on_time,
    ),
    Rule(
        id="C6",
        severity="I",
        axis="speed",
        title="open loop: not over-saturated",
        threshold="in-flight and TTFT do not both rise",
        check=not_saturated,
    ),
    Rule(
        id="C7",
        severity="I",
        axis="speed",
        title="first token stamped on text",
        threshold="TTFT > 0",
        check=first_token,
    ),
    Rule(
        id="C8",
        severity="I",
        axis="speed",
        title="decode speed within what memory bandwidth allows",
        threshold="<= 1.05 x ceiling",
        check=ceiling,
    ),
    Rule(
        id="C9",
        severity="W",
        axis="speed",
        title="load of the measuring side itself",
        threshold="<= 70 % of a core; readings p99 <= 50 ms late",
        check=unburdened,
    ),
    Rule(id="C10", severity="W", axis="speed", title="repetitions agree", threshold="CV <= 5 %", check=repeated),
    Rule(
        id="C11",
        severity="I",
        axis="energy",
        title="no hole in the power samples",
        threshold=">= 75 % of samples, gap <= 3 s",
        check=no_hole,
    ),
    Rule(
        id="C12",
        severity="W",
        axis="speed",
        title="a load that claims to fill the engine's batch does",
        threshold=">= 80 % of the engine's slots in flight",
        check=filled,
    ),
)
