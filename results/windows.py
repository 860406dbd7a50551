"""Where a step is in its steady state, what was produced in it, and how much is drawn at rest.

Steady state of a batch of B and N requests (ML.ENERGY benchmark): from the moment B requests have produced a first token to the moment
N-B-1 have finished. Tokens of a request are taken to appear evenly between its first and its last one.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import scipy.stats
from msgspec import Struct

from results.energy import MAX_GAP_S, Energy, mean_power
from results.records import Answered, Ranked
from results.series import Series, Times, Window, between
from results.stats import Floats, Interval, batch_means
from results.views import StepRecords

SUB_WINDOWS = 5
BATCHES = 10


class Pieces(Struct, frozen=True):
    """Tokens that came evenly between two instants, a place for each such stretch."""

    start_ns: Times
    end_ns: Times
    tokens: Floats


def pieces_of(stretches: Iterable[tuple[int, int, float]]) -> Pieces:
    """From (start, end, tokens) of each stretch."""
    starts, ends, tokens = tuple(zip(*stretches, strict=True)) or ((), (), ())
    return Pieces(np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), np.array(tokens, dtype=float))


class Stationarity(Struct, frozen=True, kw_only=True):
    """`spread` is (largest - smallest) / mean of five sub-windows; `drifts` when the slope's 95 % interval excludes zero."""

    spread: float | None
    drifts: bool | None


def batch_limit(step: StepRecords) -> int:
    """B: the declared concurrency; where the load is open or a ranking, as many as were ever in flight together."""
    if step.facts.concurrency and not step.ranked:
        return step.facts.concurrency
    return most_in_flight([(r.start_ns, r.end_ns) for r in step.records])


def most_in_flight(spans: Sequence[tuple[int, int]]) -> int:
    """The largest number of requests under way at one instant; one that ends as another begins is not counted with it."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def steady_window(step: StepRecords) -> Window | None:
    """The steady state; `None` with too few requests for one (2B + 2, or two at B = 1), or when the step did not end."""
    if step.span is None:
        return None
    firsts, lasts = _milestones(step)
    limit, count = batch_limit(step), len(lasts)
    if limit <= 1:
        return between(firsts[0], lasts[-1]) if count >= 2 else None
    if count < 2 * limit + 2:
        return None
    return between(firsts[limit - 1], lasts[count - limit - 2])


def _milestones(step: StepRecords) -> tuple[list[int], list[int]]:
    """First-token and finishing times, each in order; a ranking gives its result at its end and begins at its start."""
    if step.ranked:
        done = [r for r in step.ranked if r.error is None]
        return sorted(r.start_ns for r in done), sorted(r.end_ns for r in done)
    answered = [a for a in step.answered if a.error is None and a.first_ns is not None]
    return sorted(a.first_ns or 0 for a in answered), sorted(a.last_ns or a.end_ns for a in answered)


def output_pieces(answered: Sequence[Answered]) -> Pieces | None:
    """Output tokens of every request that succeeded, the first by itself; `None` when the count of one is unknown."""
    done = [a for a in answered if a.error is None]
    if any(a.output_tokens is None for a in done):
        return None
    wrote = [(a.first_ns or a.end_ns, a.last_ns or a.end_ns, a.output_tokens) for a in done if a.output_tokens]
    firsts = [(first_ns, first_ns, 1.0) for first_ns, _, _ in wrote]
    return pieces_of(firsts + [(first_ns, last_ns, tokens - 1.0) for first_ns, last_ns, tokens in wrote])


def evaluated_prompts(done: Sequence[Answered | Ranked]) -> list[int] | None:
    """Prompt tokens of each request less those from a cache; an engine that never tells of a cache is taken to have none.

    `None` when a prompt was not counted, or when cached tokens were told for some requests and not for others.
    """
    counted = [r.prompt_tokens for r in done if r.prompt_tokens is not None]
    cached = [r.cached_tokens if isinstance(r, Answered) else 0 for r in done]
    told = [c for c, r in zip(cached, done, strict=True) if c is not None and isinstance(r, Answered)]
    if len(counted) < len(done) or (told and None in cached):
        return None
    return [prompt - (hit or 0) for prompt, hit in zip(counted, cached, strict=True)]


def prompt_pieces(records: Sequence[Answered | Ranked]) -> Pieces | None:
    """Prompt tokens evaluated, spread from the start of a request to its first token or its result."""
    done = [r for r in records if r.error is None]
    tokens = evaluated_prompts(done)
    if tokens is None:
        return None
    ends_ns = [(r.first_ns or r.end_ns) if isinstance(r, Answered) else r.end_ns for r in done]
    return pieces_of((r.start_ns, end_ns, float(n)) for r, end_ns, n in zip(done, ends_ns, tokens, strict=True))


def tokens_until(pieces: Pieces, times_ns: Sequence[int]) -> Floats:
    """Tokens that had appeared by each of the times."""
    if not len(pieces.tokens):
        return np.zeros(len(times_ns))
    origin = int(pieces.start_ns[0])  # nanoseconds since boot do not fit a float exactly
    start, length = (pieces.start_ns - origin).astype(float), (pieces.end_ns - pieces.start_ns).astype(float)
    lasts, divisor = length > 0, np.where(length > 0, length, 1.0)
    totals = []
    for time_ns in times_ns:
        passed = float(time_ns - origin) - start
        share = np.where(lasts, np.clip(passed / divisor, 0.0, 1.0), passed >= 0)
        totals.append(float(np.sum(share * pieces.tokens)))
    return np.array(totals)


def tokens_in(pieces: Pieces, window: Window) -> float:
    """Tokens that appeared inside the window, fractions of requests included."""
    before, after = tokens_until(pieces, [window.start_ns, window.end_ns])
    return float(after - before)


def rates(pieces: Pieces, window: Window, parts: int) -> Floats:
    """Tokens per second in each of so many equal parts of the window."""
    edges = [window.start_ns + (window.end_ns - window.start_ns) * i // parts for i in range(parts + 1)]
    lengths_s = np.array([(end - start) / 1e9 for start, end in pairwise(edges)])
    found: Floats = np.diff(tokens_until(pieces, edges)) / lengths_s
    return found


def throughput(pieces: Pieces, window: Window) -> Interval:
    """Tokens per second over the window with a batch-means interval (10 batches), since neighbouring seconds depend on each other."""
    return batch_means([float(r) for r in rates(pieces, window, BATCHES)])


def stationarity(pieces: Pieces, window: Window) -> Stationarity:
    """Whether the rate stays the same through the window."""
    means = rates(pieces, window, SUB_WINDOWS)
    if not means.mean() > 0:
        return Stationarity(spread=None, drifts=None)
    batches = rates(pieces, window, BATCHES)
    low, high = slope_interval(np.arange(len(batches), dtype=float), batches)
    return Stationarity(spread=float(np.ptp(means) / means.mean()), drifts=not low <= 0 <= high)


def slope_interval(x: Floats, y: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """t interval of a straight line's slope; a perfectly level line gives (0, 0)."""
    if np.ptp(y) == 0:
        return 0.0, 0.0
    fit = scipy.stats.linregress(x, y)
    half = float(scipy.stats.t.ppf(0.5 + confidence / 2, len(x) - 2)) * float(fit.stderr)
    return float(fit.slope) - half, float(fit.slope) + half


def idle_power(series: Series, window: Window | None, like: Energy, side: str) -> float | None:
    """Mean watts at rest by the meters of `like`; `None` without at least two readings of each device.

    `side` says which end of the window touches the work (`before`: its end, `after`: its start); readings beyond a gap belong to
    another attempt.
    """
    if window is None or not like.meters:
        return None
    info = series.meters[like.meters[0]]
    field = (
        "power_w" if any(len(series.column(info.meter, d, "power_w").times_ns) for d in info.devices) else "energy_j"
    )
    times = series.column(info.meter, info.devices[0], field).within(window.start_ns, window.end_ns).times_ns
    if len(times) < 2:
        return None
    runs = np.split(times, np.flatnonzero(np.diff(times) > MAX_GAP_S * 1e9) + 1)
    run = runs[-1] if side == "before" else runs[0]
    # Other devices are read some milliseconds apart: keep inside what all of them have.
    if len(run) < 4:
        return mean_power(series, int(run[0]), int(run[-1]), like) if len(run) > 1 else None
    return mean_power(series, int(run[1]), int(run[-2]), like)
