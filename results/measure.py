"""What one step measured: accuracy, tokens and times, memory. Each a frozen value made from the step's records."""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from results.energy import Where, where_of
from results.records import Answered, Ranked
from results.series import Series
from results.stats import Interval, Percentile, items_of, percentile, score_interval, unknown
from results.views import StepRecords, Window

MILLI = 1e-6
"""Nanoseconds to milliseconds."""


class Accuracy(Struct, frozen=True, kw_only=True):
    """Counts of verdicts add up to the requests that were judged; `None` where nothing was judged."""

    interval: Interval
    scored: int | None
    items: int | None
    correct: int | None
    no_answer: int | None
    truncated: int | None
    wrong: int | None
    errors: int
    given_finished: float | None
    """Mean score of the answers that were neither truncated nor without an answer."""
    flags: dict[str, int]
    scorers: tuple[str, ...]


class Tokens(Struct, frozen=True, kw_only=True):
    """Sums over the requests that succeeded; `None` when the count of one is unknown."""

    prompt: int | None
    cached: int | None
    output: int | None
    think: int | None
    output_mean: float | None
    characters: int | None
    """Unicode characters of the answers, thinking left out; `None` where no text was kept."""


class Latency(Struct, frozen=True, kw_only=True):
    """Milliseconds, from the time a request was meant to be sent."""

    ttft_p50: Percentile
    ttft_p95: Percentile
    ttfat_p50: Percentile
    ttfat_p95: Percentile
    tpot_p50: Percentile
    tpot_p95: Percentile
    e2e_p50: Percentile
    e2e_p95: Percentile
    prefill_tokens_per_s: float | None
    """Prompt tokens evaluated per second of TTFT; only at concurrency 1, where TTFT has no queueing in it."""


class Memory(Struct, frozen=True, kw_only=True):
    """Bytes, highest reading during the step."""

    vram_reserved: int | None
    vram_needed: int | None
    host: int | None
    host_anon: int | None
    host_file: int | None
    host_needed: int | None
    """Weights, cache used and compute buffers of an engine that works in host memory."""
    reason: str = ""


def accuracy_of(step: StepRecords) -> Accuracy:
    """Verdict counts and the mean score with its interval; an error has no score and is never a zero."""
    scores = step.scores
    verdicts = Counter(s.verdict for s in scores)
    judged = [s for s in scores if s.value is not None]
    items = items_of([(s.sample, s.cluster, s.value) for s in judged if s.value is not None])
    finished = [s.value for s in judged if s.value is not None and s.verdict in ("correct", "wrong")]
    failed = {(s.sample, s.repeat) for s in scores if s.verdict == "error"}
    failed |= {(r.sample, r.repeat) for r in (*step.answered, *step.ranked) if r.error is not None}
    known = bool(scores)
    return Accuracy(
        interval=score_interval(items) if items else unknown("none"),
        scored=len(judged) if known else None,
        items=len(items) if known else None,
        correct=verdicts["correct"] if judged else None,
        no_answer=verdicts["no_answer"] if judged else None,
        truncated=verdicts["truncated"] if judged else None,
        wrong=verdicts["wrong"] if judged else None,
        errors=len(failed),
        given_finished=sum(finished) / len(finished) if finished else None,
        flags=dict(Counter(flag for s in scores for flag in s.flags)),
        scorers=tuple(sorted({s.scorer for s in scores})),
    )


def tokens_of(step: StepRecords) -> Tokens:
    """Token sums of the step."""
    answers = [a for a in step.answered if a.error is None]
    done: list[Answered | Ranked] = [*answers, *(r for r in step.ranked if r.error is None)]
    output = total(a.output_tokens for a in answers) if answers else None
    think = [a.think_tokens for a in answers if a.think_tokens is not None]
    texts = [a.text for a in answers]
    return Tokens(
        prompt=total(r.prompt_tokens for r in done) if done else None,
        cached=total(a.cached_tokens for a in answers) if answers else None,
        output=output,
        think=sum(think) if think else None,
        output_mean=output / len(answers) if output is not None else None,
        characters=sum(len(_answer_text(t)) for t in texts if t) if answers and all(t is not None for t in texts) else None,
    )


def _answer_text(text: str) -> str:
    return text.rpartition("</think>")[2].strip()


def total(parts: Iterable[int | None]) -> int | None:
    """Sum; `None` when a part is unknown."""
    values = list(parts)
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None


def latency_of(step: StepRecords) -> Latency:
    """Percentiles over the requests that succeeded. A ranking has no first token: only its end-to-end time."""
    answers = [a for a in step.answered if a.error is None]
    ttft = [(a.first_ns - a.sched_ns) * MILLI for a in answers if a.first_ns is not None]
    ttfat = [(a.answer_ns - a.sched_ns) * MILLI for a in answers if a.answer_ns is not None]
    tpot = [t for a in answers if (t := tpot_ms(a)) is not None]
    e2e = [((a.last_ns or a.end_ns) - a.sched_ns) * MILLI for a in answers]
    e2e += [(r.end_ns - r.start_ns) * MILLI for r in step.ranked if r.error is None]
    return Latency(
        ttft_p50=percentile(ttft, 0.5),
        ttft_p95=percentile(ttft, 0.95),
        ttfat_p50=percentile(ttfat, 0.5),
        ttfat_p95=percentile(ttfat, 0.95),
        tpot_p50=percentile(tpot, 0.5),
        tpot_p95=percentile(tpot, 0.95),
        e2e_p50=percentile(e2e, 0.5),
        e2e_p95=percentile(e2e, 0.95),
        prefill_tokens_per_s=_prefill_speed(answers) if step.facts.concurrency == 1 else None,
    )


def tpot_ms(answer: Answered) -> float | None:
    """(last - first) / (tokens - 1); `None` under two tokens or where one of the three is unknown."""
    if answer.first_ns is None or answer.last_ns is None or answer.output_tokens is None or answer.output_tokens < 2:
        return None
    return (answer.last_ns - answer.first_ns) * MILLI / (answer.output_tokens - 1)


def _prefill_speed(answers: Sequence[Answered]) -> float | None:
    spans = [(a.prompt_tokens, a.cached_tokens or 0, a.first_ns - a.start_ns) for a in answers if a.first_ns is not None]
    seconds = sum(ns for _, _, ns in spans) / 1e9
    tokens = total(p - c if p is not None else None for p, c, _ in spans)
    return tokens / seconds if tokens is not None and seconds > 0 else None


def memory_of(step: StepRecords, series: Series) -> Memory:
    """The highest readings within the step; what a device did not tell is `None`, never 0."""
    if step.span is None:
        return Memory(vram_reserved=None, vram_needed=None, host=None, host_anon=None, host_file=None, host_needed=None)
    where = where_of(step.engine.device if step.engine else None)
    reserved, reason = _reserved(step, series, where)
    host = _host_peak(series, step.span, ("anon_bytes", "file_bytes", "shared_bytes"))
    needed = needed_bytes(step)
    return Memory(
        vram_reserved=reserved,
        vram_needed=needed if where == "gpu" else None,
        host=host,
        host_anon=_host_peak(series, step.span, ("anon_bytes",)),
        host_file=_host_peak(series, step.span, ("file_bytes",)),
        host_needed=needed if where == "cpu" else None,
        reason=reason,
    )


def _host_peak(series: Series, span: Window, fields: tuple[str, ...]) -> int | None:
    """Largest sum of the fields in one reading of the process tree; a reading that lacks one of them does not count."""
    sums = [
        sum(parts)
        for meter, device in series.with_field("anon_bytes")
        for tick in series.ticks(meter, device)
        if span.start_ns <= tick.time_ns <= span.end_ns
        and len(parts := [v for f in fields if (v := getattr(tick, f)) is not None]) == len(fields)
    ]
    return max(sums, default=None)


def _reserved(step: StepRecords, series: Series, where: Where | None) -> tuple[int | None, str]:
    """Highest memory of our processes, every device added; else how much the devices' use rose since before the worker."""
    if where != "gpu" or step.span is None:
        return None, ""
    ours = [
        series.column(m, d, "memory_bytes").within(step.span.start_ns, step.span.end_ns)
        for m, d in series.with_field("memory_bytes")
    ]
    if ours and all(len(c.values) for c in ours):
        return int(sum(c.values.max() for c in ours)), ""
    return _device_rise(step, series, step.span)


def _device_rise(step: StepRecords, series: Series, span: Window) -> tuple[int | None, str]:
    rise = 0
    devices = series.with_field("memory_used_bytes")
    for meter, device in devices:
        foreign = series.column(meter, device, "foreign_processes").values
        if len(foreign) and foreign.max() > 0:
            return None, f"memory of our processes is not told, and others use {device}"
        used = series.column(meter, device, "memory_used_bytes")
        during = used.within(span.start_ns, span.end_ns).values
        before = used.within(step.idle_before.start_ns, step.idle_before.end_ns).values if step.idle_before else during[:0]
        if not len(during) or not len(before):
            return None, f"memory of our processes is not told, and {device} was not read before the worker"
        rise += int(during.max() - before.min())
    return (rise, "rise of the devices' use since before the worker") if devices else (None, "no device memory was read")


def needed_bytes(step: StepRecords) -> int | None:
    """Weights, the cache that was used at its peak, and compute buffers; `None` where the engine leaves one of them untold."""
    engine = step.engine
    if engine is None:
        return None
    weights = engine.memory.get("weights", engine.weight_bytes)
    compute = max(
        [m["compute"] for m in (engine.memory, *(s.memory for s in step.states)) if "compute" in m],
        default=None,
    )
    used = max((s.cache_tokens_used for s in step.states if s.cache_tokens_used is not None), default=None)
    if used is None or engine.cache_bytes_per_token is None or weights is None or compute is None:
        return None
    return int(weights + used * engine.cache_bytes_per_token + compute)
