"""The frontier and how sure it is."""

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray
from test_cost import ROW
from test_montecarlo import variant

from results.frontier import Axes, Point, dominance, eligible, frontier, frontier_probability
from results.montecarlo import simulate

CHEAP, MIDDLE, DEAR = Point(name="cheap", x=1, y=0.5), Point(name="middle", x=2, y=0.6), Point(name="dear", x=3, y=0.9)
BEATEN = Point(name="beaten", x=2.5, y=0.55)


def test_the_frontier_is_what_nothing_beats_from_cheap_to_dear() -> None:
    assert frontier([DEAR, BEATEN, CHEAP, MIDDLE]) == ("cheap", "middle", "dear")


def test_equal_points_are_both_on_the_frontier() -> None:
    assert frontier([CHEAP, structs.replace(CHEAP, name="twin")]) == ("cheap", "twin")


@pytest.mark.parametrize(
    "change", [{"valid": False}, {"kind": "estimated"}, {"kind": "predicted"}, {"kind": "published"}, {"y": None}]
)
def test_only_measured_and_valid_points_are_on_it_or_push_others_off(change: dict[str, object]) -> None:
    wonder = structs.replace(CHEAP, name="wonder", x=0.1, y=1.0)
    assert frontier([wonder, CHEAP]) == ("wonder",)
    assert not eligible(structs.replace(wonder, **change))
    assert frontier([structs.replace(wonder, **change), CHEAP]) == ("cheap",)


def test_other_axes_have_their_own_good_ends() -> None:
    fast = Axes(x_better="high", y_better="low")
    assert frontier([Point(name="slow", x=1, y=9), Point(name="quick", x=5, y=3)], fast) == ("quick",)
    assert frontier([]) == ()


def test_probability_to_be_on_the_frontier_is_the_share_of_draws() -> None:
    x = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    y = np.array([[0.5, 0.5, 0.5, 0.5], [0.6, 0.4, 0.6, 0.5]])
    assert frontier_probability(["a", "b"], x, y) == {"a": 1.0, "b": 0.5}


def test_a_draw_without_a_value_is_off_the_frontier_and_beats_nobody() -> None:
    x = np.array([[1.0, np.nan], [2.0, 2.0], [np.nan, np.nan]])
    y = np.array([[0.9, 0.9], [0.5, 0.5], [0.9, 0.9]])
    assert frontier_probability(["a", "b", "c"], x, y) == {"a": 0.5, "b": 0.5, "c": None}


def test_pairs_are_tied_unless_one_dominates_in_nine_draws_of_ten() -> None:
    rng = np.random.default_rng(0)
    x = np.array([rng.normal(1, 0.01, 1000), rng.normal(2, 0.01, 1000), rng.normal(2, 0.01, 1000)])
    y = np.array([rng.normal(0.9, 0.01, 1000), rng.normal(0.5, 0.01, 1000), rng.normal(0.5, 0.01, 1000)])
    found = dominance(["good", "bad", "poor"], x, y)
    assert [(s.first, s.second, s.verdict) for s in found] == [
        ("good", "bad", "first"),
        ("good", "poor", "first"),
        ("bad", "poor", "tied"),
    ]


def answers(rng: np.random.Generator, discordant: float | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right or wrong on 120 items with the same chance for both: independent, or alike but for a share that goes to either."""
    difficulty = rng.beta(2, 1.5, 120)
    first = (rng.random(120) < difficulty).astype(float)
    if discordant is None:
        return first, (rng.random(120) < difficulty).astype(float)
    apart, coin = rng.random(120) < discordant, (rng.random(120) < 0.5).astype(float)
    return np.where(apart, coin, first), np.where(apart, 1 - coin, first)


def calls_a_winner(rng: np.random.Generator, told_speed: bool, discordant: float | None) -> bool:
    """Two variants that are truly alike: the same chance on each item, the same speed, each measured with its own noise."""
    made = []
    for name, right in zip("ab", answers(rng, discordant), strict=True):
        speed = rng.normal(1.0, 0.03)
        row = structs.replace(ROW, seconds=360.0 / speed)
        one = variant(name, right.tolist(), row)
        limits = (94.12, 105.88) if told_speed else (None, None)  # 1.96 x 3 %
        measured = structs.replace(
            one.row, steady_output_tokens_per_s_lo=limits[0], steady_output_tokens_per_s_hi=limits[1]
        )
        made.append(structs.replace(one, row=measured))
    drawn = simulate(made, draws=1000, seed=int(rng.integers(2**31)))
    standings = dominance(drawn.names, drawn.cost_per_1k_samples, drawn.accuracy)
    return any(s.verdict != "tied" for s in standings)


@pytest.mark.slow
@pytest.mark.parametrize("told_speed", [True, False])
@pytest.mark.parametrize("discordant", [None, 0.01, 0.02, 0.05, 0.15])
def test_two_variants_that_are_truly_tied_rarely_have_a_winner(told_speed: bool, discordant: float | None) -> None:
    rng = np.random.default_rng(20261122)
    called = sum(calls_a_winner(rng, told_speed, discordant) for _ in range(400))
    assert called <= 20


@pytest.mark.parametrize("axes", [Axes("low", "high"), Axes("high", "high")])
def test_the_frontier_of_each_draw_is_that_of_comparing_all_pairs(axes: Axes) -> None:
    dice = np.random.default_rng(3)
    for _ in range(30):
        x, y = dice.integers(0, 4, (2, 6, 50)).astype(float)
        x[dice.random(x.shape) < 0.1] = np.nan
        found = frontier_probability([str(i) for i in range(6)], x, y, axes)
        counted = dict.fromkeys(found, 0)
        for column in range(50):
            points = [
                Point(name=str(i), x=None if np.isnan(x[i, column]) else x[i, column], y=y[i, column]) for i in range(6)
            ]
            for name in frontier(points, axes):
                counted[name] += 1
        assert found == {name: count / 50 for name, count in counted.items()}
