"""Steady state, tokens inside a window, the draw at rest."""

import numpy as np
import pytest
from made_records import GUESS, MS, STEP, S, answer, ranked, ticks
from msgspec import structs

from results.energy import window_energy
from results.manifest import StepFacts
from results.records import Answered, Ranked
from results.series import Series, Window
from results.stats import Interval
from results.views import StepRecords
from results.windows import (
    Stationarity,
    batch_limit,
    idle_power,
    most_in_flight,
    output_pieces,
    pieces_of,
    prompt_pieces,
    slope_interval,
    stationarity,
    steady_window,
    throughput,
    tokens_in,
)


def step(answered: list[Answered], facts: StepFacts = STEP, ranked: list[Ranked] | None = None) -> StepRecords:
    return StepRecords(
        facts=facts, start_ns=0, span=Window(0, 100 * S), answered=tuple(answered), ranked=tuple(ranked or ())
    )


def test_steady_state_at_concurrency_one_is_from_the_first_token_to_the_last() -> None:
    found = steady_window(step([answer(f"q{i}", i * 2 * S) for i in range(3)]))
    assert found == Window(100 * MS, 4 * S + 1100 * MS)


def test_steady_state_begins_with_b_first_tokens_and_ends_with_n_minus_b_minus_1_finished() -> None:
    two = structs.replace(STEP, concurrency=2)
    records = [answer(f"q{i}", i * S) for i in range(8)]
    # second first token at 1.1 s; 8 - 2 - 1 = 5 finished: the fifth ends at 4 + 1.1 s
    assert steady_window(step(records, two)) == Window(1100 * MS, 5100 * MS)


def test_too_few_requests_have_no_steady_state() -> None:
    two = structs.replace(STEP, concurrency=2)
    assert steady_window(step([answer(f"q{i}", i * S) for i in range(5)], two)) is None
    assert steady_window(step([answer("q", 0)])) is None
    assert steady_window(structs.replace(step([answer(f"q{i}", i * S) for i in range(8)]), span=None)) is None


def test_failed_requests_are_no_part_of_the_steady_state() -> None:
    good = [answer(f"q{i}", i * 2 * S) for i in range(3)]
    bad = answer("bad", 50 * S, error="broken", first_ns=None)
    assert steady_window(step([*good, bad])) == steady_window(step(good))


def test_a_ranking_is_steady_between_its_first_start_and_last_end() -> None:
    found = steady_window(step([], ranked=[ranked(f"q{i}", i * S) for i in range(4)]))
    assert found == Window(0, 3500 * MS)


def test_the_batch_of_an_open_load_is_what_was_in_flight() -> None:
    open_load = structs.replace(STEP, concurrency=None, rate_per_s=2.0)
    assert batch_limit(step([answer(f"q{i}", i * 500 * MS) for i in range(6)], open_load)) == 3
    assert most_in_flight([(0, 10), (10, 20)]) == 1
    assert most_in_flight([]) == 0


def test_tokens_inside_a_window_are_interpolated_within_each_request() -> None:
    # first token at 0.1 s, ten more evenly until 1.1 s
    pieces = output_pieces([answer("q", 0)])
    assert pieces is not None
    assert tokens_in(pieces, Window(600 * MS, 2 * S)) == pytest.approx(5.0)
    assert tokens_in(pieces, Window(0, 100 * MS)) == pytest.approx(1.0)
    assert tokens_in(pieces, Window(0, 2 * S)) == pytest.approx(11.0)
    assert tokens_in(pieces_of([]), Window(0, S)) == 0.0


def test_tokens_are_exact_on_a_machine_that_has_been_up_for_years() -> None:
    up = 10**17
    pieces = output_pieces([answer("q", up)])
    assert pieces is not None
    assert tokens_in(pieces, Window(up + 600 * MS, up + 700 * MS)) == pytest.approx(1.0, abs=1e-9)


def test_an_unknown_count_makes_the_sum_unknown() -> None:
    assert output_pieces([answer("q", 0), answer("p", 0, output_tokens=None)]) is None
    assert prompt_pieces([answer("q", 0), answer("p", 0, prompt_tokens=None)]) is None


def test_cached_prompt_tokens_were_not_evaluated() -> None:
    found = prompt_pieces([answer("q", 0, cached_tokens=20), ranked("p", 0)])
    assert found is not None
    assert (found.start_ns.tolist(), found.end_ns.tolist()) == ([0, 0], [100 * MS, 500 * MS])
    assert found.tokens.tolist() == [30.0, 40.0]


def test_throughput_of_an_even_stream_has_no_spread() -> None:
    even = pieces_of([(0, 10 * S, 100.0)])
    assert throughput(even, Window(0, 10 * S)) == Interval(
        value=pytest.approx(10.0), lo=pytest.approx(10.0), hi=pytest.approx(10.0), n=10, method="batch_means"
    )
    level = stationarity(even, Window(0, 10 * S))
    assert level.spread == pytest.approx(0.0, abs=1e-9)


def test_a_stream_that_slows_down_is_not_steady() -> None:
    slowing = pieces_of((i * S, (i + 1) * S, 100.0 - 5 * i) for i in range(10))
    found = stationarity(slowing, Window(0, 10 * S))
    assert found.drifts
    assert found.spread == pytest.approx((97.5 - 57.5) / 77.5)
    assert stationarity(pieces_of([]), Window(0, S)) == Stationarity(spread=None, drifts=None)


def test_slope_of_a_level_line() -> None:
    assert slope_interval(np.arange(5.0), np.ones(5)) == (0.0, 0.0)


def test_power_at_rest_ends_where_the_work_begins_and_leaves_other_attempts_out() -> None:
    first, second = ticks(GUESS, 0, 5, power_w=40.0), ticks(GUESS, 60, 80, power_w=lambda t: 10.0 if t < 70 else 30.0)
    series = Series([*first, *second])
    load = window_energy(series, 71 * S, 79 * S, "cpu")
    assert idle_power(series, Window(0, 69 * S), load, "before") == pytest.approx(10.0)
    assert idle_power(series, Window(0, 69 * S), load, "after") == pytest.approx(40.0)
    assert idle_power(series, None, load, "before") is None
    assert idle_power(series, Window(20 * S, 30 * S), load, "before") is None
