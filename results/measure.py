"""What one step measured: accuracy, tokens, times, memory, energy. Each a frozen value made from the step's records."""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from results.energy import Energy, cross_check, like, window_energy
from results.memory import Memory, memory_of
from results.phases import Phases, phases_of
from results.records import Answered, Ranked
from results.series import Series, Window
from results.stats import Interval, Percentile, items_of, percentile, score_interval, unknown
from results.views import StepRecords
from results.windows import (
    Stationarity,
    evaluated_prompts,
    idle_power,
    output_pieces,
    prompt_pieces,
    stationarity,
    steady_window,
    throughput,
    tokens_in,
)

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
    evaluated: int | None
    """Of the prompt, those that did not come from a cache."""
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


def accuracy_of(step: StepRecords) -> Accuracy:
    """Verdict counts and the mean score with its interval; an error has no score and is never a zero."""
    scores = (*step.scores, *step.ahead)
    verdicts = Counter(s.verdict for s in scores)
    judged = [s for s in step.scores if s.value is not None]
    items = items_of([(s.sample, s.cluster, s.value) for s in judged if s.value is not None], step.sequential)
    finished = [s.value for s in judged if s.value is not None and s.verdict in ("correct", "wrong")]
    failed = {(s.sample, s.repeat) for s in scores if s.verdict == "error"}
    failed |= {(r.sample, r.repeat) for r in step.records if r.error is not None}
    known = bool(scores)
    return Accuracy(
        interval=score_interval(items) if items else unknown("none"),
        scored=sum(s.value is not None for s in scores) if known else None,
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
    evaluated = evaluated_prompts(done) if done else None
    return Tokens(
        prompt=total(r.prompt_tokens for r in done) if done else None,
        evaluated=sum(evaluated) if evaluated is not None else None,
        cached=total(a.cached_tokens for a in answers) if answers else None,
        output=output,
        think=sum(think) if think else None,
        output_mean=output / len(answers) if output is not None else None,
        characters=sum(len(_answer_text(t)) for t in texts if t)
        if answers and all(t is not None for t in texts)
        else None,
    )


def _answer_text(text: str) -> str:
    """What follows the thinking part; nothing while that is unclosed."""
    final = text.rpartition("</think>")[2]
    return "" if "<think>" in final else final.strip()


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
    begun = [a for a in answers if a.first_ns is not None]
    seconds = sum((a.first_ns or 0) - a.start_ns for a in begun) / 1e9
    tokens = evaluated_prompts(begun)
    return sum(tokens) / seconds if tokens is not None and seconds > 0 else None


class Steady(Struct, frozen=True, kw_only=True):
    """The steady part of a step. Tokens are those that appeared inside it, not those of requests that finished in it."""

    window: Window
    output: Interval
    """Output tokens per second, batch-means interval; unknown for rankings."""
    prompt: Interval
    output_tokens: float | None
    level: Stationarity
    energy: Energy


class Measured(Struct, frozen=True, kw_only=True):
    """All that one finished step measured."""

    seconds: float
    accuracy: Accuracy
    tokens: Tokens
    latency: Latency
    memory: Memory
    energy: Energy
    cross_check: float | None
    """|counter - integral| / counter of the worst device."""
    steady: Steady | None
    phases: Phases
    idle_before_w: float | None
    idle_loaded_w: float | None
    idle_after_w: float | None


def measure(step: StepRecords, series: Series) -> Measured | None:
    """Everything of one step; `None` when it did not end."""
    if step.span is None:
        return None
    energy = window_energy(series, step.span.start_ns, step.span.end_ns, step.where)
    steady = _steady(step, series, energy)
    return Measured(
        seconds=step.span.seconds,
        accuracy=accuracy_of(step),
        tokens=tokens_of(step),
        latency=latency_of(step),
        memory=memory_of(step, series),
        energy=energy,
        cross_check=cross_check(series, step.span.start_ns, step.span.end_ns, energy.meters),
        steady=steady,
        phases=phases_of(step, series, energy, steady.window if steady else None),
        idle_before_w=idle_power(series, step.idle_before, energy, "before"),
        idle_loaded_w=idle_power(series, step.idle_loaded, energy, "before"),
        idle_after_w=idle_power(series, step.idle_after, energy, "after"),
    )


def _steady(step: StepRecords, series: Series, whole: Energy) -> Steady | None:
    window = steady_window(step)
    if window is None:
        return None
    output = output_pieces(step.answered) if step.answered else None
    prompt = prompt_pieces(step.records)
    main = output if output is not None else prompt
    return Steady(
        window=window,
        output=throughput(output, window) if output is not None else unknown("batch_means"),
        prompt=throughput(prompt, window) if prompt is not None else unknown("batch_means"),
        output_tokens=tokens_in(output, window) if output is not None else None,
        level=stationarity(main, window) if main is not None else Stationarity(spread=None, drifts=None),
        energy=like(whole, window_energy(series, window.start_ns, window.end_ns, step.where)),
    )
