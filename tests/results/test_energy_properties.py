"""What must hold of energy and tokens whatever the readings: parts add up, nothing depends on when the machine was started."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from results.energy import counter_energy, integral_energy
from results.series import Column, Window
from results.windows import pieces_of, tokens_in

STEADY = settings(
    derandomize=True, database=None, deadline=None, max_examples=100, suppress_health_check=list(HealthCheck)
)
S = 10**9
readings = st.lists(st.tuples(st.integers(1, 2_900), st.floats(1.0, 2_000.0)), min_size=8, max_size=40)
"""Milliseconds since the reading before, and watts until it."""


def columns(steps: list[tuple[int, float]], boot_ns: int) -> tuple[Column, Column]:
    """Power at each reading, and a counter of a draw that is level between two readings."""
    times = boot_ns + np.cumsum([ms * 1_000_000 for ms, _ in steps], dtype=np.int64)
    watts = np.array([w for _, w in steps])
    seconds = np.diff(times, prepend=times[0]) / 1e9
    return Column(times, watts), Column(times, 1e6 + np.cumsum(watts * seconds))


def cuts(times: Column, shares: list[float]) -> list[int]:
    first, last = int(times.times_ns[0]), int(times.times_ns[-1])
    return [first + int((last - first) * share) for share in sorted(shares)]


@STEADY
@given(readings, st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3, unique=True))
def test_the_energies_of_two_neighbouring_windows_add_up(steps: list[tuple[int, float]], shares: list[float]) -> None:
    power, counter = columns(steps, 10**15)
    a, b, c = cuts(power, shares)
    assume(a < b < c)
    for of, column in ((integral_energy, power), (counter_energy, counter)):
        whole, left, right = (of(column, *window).value_j for window in ((a, c), (a, b), (b, c)))
        assert whole is not None
        assert left is not None
        assert right is not None
        assert left + right == pytest.approx(whole, rel=1e-6, abs=1e-3)
        assert left > 0
        assert right > 0


@STEADY
@given(readings, st.lists(st.floats(0.01, 0.99), min_size=2, max_size=2, unique=True), st.integers(0, 10**17))
def test_energy_does_not_depend_on_when_the_machine_was_started(
    steps: list[tuple[int, float]], shares: list[float], boot_ns: int
) -> None:
    found = []
    for boot in (0, boot_ns):
        power, counter = columns(steps, boot)
        a, b = cuts(power, shares)
        assume(a < b)
        found.append((integral_energy(power, a, b).value_j, counter_energy(counter, a, b).value_j))
    assert found[0] == pytest.approx(found[1], rel=1e-6, abs=1e-3)


@STEADY
@given(readings, st.lists(st.floats(0.01, 0.99), min_size=2, max_size=2, unique=True))
def test_energy_lies_between_the_least_and_the_most_that_was_drawn(
    steps: list[tuple[int, float]], shares: list[float]
) -> None:
    power, counter = columns(steps, 0)
    a, b = cuts(power, shares)
    assume(b - a > 1000)
    low, high = (f(power.values) * (b - a) / 1e9 for f in (np.min, np.max))
    for part in (integral_energy(power, a, b), counter_energy(counter, a, b)):
        assert part.value_j is not None
        assert low * (1 - 1e-6) - 1e-6 <= part.value_j <= high * (1 + 1e-6) + 1e-6


pieces = st.lists(st.tuples(st.integers(0, 50 * S), st.integers(0, 20 * S), st.floats(0.0, 500.0)), max_size=20)


@STEADY
@given(pieces, st.lists(st.integers(-S, 80 * S), min_size=3, max_size=3, unique=True))
def test_tokens_of_neighbouring_windows_add_up_and_none_is_lost(
    made: list[tuple[int, int, float]], edges: list[int]
) -> None:
    given_pieces = pieces_of((start, start + length, tokens) for start, length, tokens in made)
    a, b, c = sorted(edges)
    parts = [tokens_in(given_pieces, Window(x, y)) for x, y in itertools.pairwise((a, b, c))]
    assert sum(parts) == pytest.approx(tokens_in(given_pieces, Window(a, c)), abs=1e-6)
    everything = tokens_in(given_pieces, Window(-2 * S, 100 * S))
    assert everything == pytest.approx(given_pieces.tokens.sum(), abs=1e-6)
