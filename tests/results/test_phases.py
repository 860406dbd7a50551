"""Reading and writing told apart by their joules, or why not."""

import itertools
import random

import pytest
from made_changes import gpu, step
from made_records import Run, S, answer, ranked

from results.phases import FEWEST_WINDOWS, Phases

READ_S, WRITE_S = 0.005, 0.1
READ_W, WRITE_W = 400.0, 200.0


def one_at_a_time(run: Run, count: int, seed: int = 1) -> None:
    """Requests of differing lengths, one after the other, on a card that draws more while it reads than while it writes."""
    draw, now, joules = random.Random(seed), 10.0, 0.0
    points = [(0.0, 0.0), (now, 0.0)]
    run.records = []
    for i in range(count):
        prompt, output = draw.randrange(100, 1000), draw.randrange(50, 150)
        first, end = now + prompt * READ_S, now + prompt * READ_S + output * WRITE_S
        joules += prompt * READ_S * READ_W
        points.append((first, joules))
        joules += output * WRITE_S * WRITE_W
        points.append((end, joules))
        times = {"first_ns": round(first * S), "answer_ns": round(first * S), "last_ns": round(end * S)}
        record = answer(
            f"q{i}",
            round(now * S),
            **times,
            end_ns=round(end * S),
            prompt_tokens=prompt,
            output_tokens=output,
        )
        run.records.append(record)
        now = end
    run.end_s = now
    gpu(energy_j=lambda t: counter(points, t))(run)
    step(items=count, samples=count, concurrency=1)(run)


def counter(points: list[tuple[float, float]], at_s: float) -> float:
    """Straight between the points, level after the last."""
    for (a_s, a_j), (b_s, b_j) in itertools.pairwise(points):
        if at_s <= b_s:
            return a_j + (b_j - a_j) * (at_s - a_s) / (b_s - a_s)
    return points[-1][1]


def phases(run: Run) -> Phases:
    return run.view().result.phases


def test_requests_one_at_a_time_are_fitted() -> None:
    run = Run()
    one_at_a_time(run, 40)
    found = phases(run)
    assert found.method == "regression"
    assert found.prefill_j == pytest.approx(READ_S * READ_W, rel=0.02)
    assert found.decode_j == pytest.approx(WRITE_S * WRITE_W, rel=0.02)


def test_few_windows_are_not_fitted() -> None:
    run = Run()
    one_at_a_time(run, 15)
    assert phases(run) == Phases(
        reason=f"15 windows of 5 s or more, {FEWEST_WINDOWS} are needed to tell reading from writing"
    )


def test_equal_requests_tell_nothing_apart() -> None:
    run = Run()
    run.end_s = 300.0
    step(items=30, samples=30)(run)
    run.records = [answer(f"q{i}", (10 + 8 * i) * S, end_ns=(17 + 8 * i) * S) for i in range(30)]
    gpu(energy_j=lambda t: 300.0 * t)(run)
    assert phases(run).reason == "every window has the same mixture of reading and writing"


def test_a_ranking_is_reading_alone() -> None:
    run = Run()
    gpu()(run)
    run.records = [ranked(f"q{i}", (10 + i) * S, end_ns=(11 + i) * S) for i in range(10)]
    found = phases(run)
    assert (found.method, found.decode_j) == ("prefill_only", None)
    assert found.prefill_j == pytest.approx(300.0 / 40)


def test_what_cannot_be_told_apart_says_why() -> None:
    run = Run()
    assert phases(run).reason == "power is an estimate (class E2), which knows no phases"
    gpu()(run)
    step(concurrency=4)(run)
    assert phases(run).reason == "requests overlap at this load: one is read while another is written"
    run.telemetry = []
    assert phases(run).reason == "no energy: no power meter covers it"
