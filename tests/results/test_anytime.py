"""What may be said of a step that its own answers could end."""

import math

import pytest

from results.anytime import decide, log_e_value, sequential_p
from results.manifest import StoppingRule
from results.paired import compare, non_inferiority, pair, significance
from results.stats import Item, anytime, betting_p, bounded_mean, items_of, score_interval

RULE = StoppingRule(baseline="whole", baseline_cell="whole-000000", look_every=1)


def items(values: list[float], early: bool, clusters: list[str] | None = None) -> tuple[Item, ...]:
    names = [f"q{i}" for i in range(len(values))]
    return items_of(list(zip(names, clusters or names, values, strict=True)), early)


def test_e_value_by_hand() -> None:
    # 2 * B(3/2, 1/2) / B(1/2, 1/2) = 1; 4 * B(5/2, 1/2) / B(1/2, 1/2) = 1.5
    assert math.exp(log_e_value(1, 0)) == pytest.approx(1.0)
    assert math.exp(log_e_value(2, 0)) == pytest.approx(1.5)
    assert math.exp(log_e_value(1, 1)) == pytest.approx(0.5)


def test_a_difference_is_decided_as_soon_as_the_evidence_is_there() -> None:
    assert decide([1.0] * 6, RULE) == "go on"  # 2^6 * C(12, 6) / 4^6 = 14.4
    assert decide([1.0] * 7, RULE) == "different"  # 2^7 * C(14, 7) / 4^7 = 26.8
    assert decide([-1.0] * 7, RULE) == "different"


def test_without_evidence_it_goes_on_and_is_futile_only_if_told() -> None:
    alike = [0.0] * 400
    told = StoppingRule(baseline="whole", baseline_cell="whole-000000", futility_margin=0.02)
    assert decide(alike, RULE) == "go on"
    assert decide(alike, told) == "futile"
    assert decide(alike[:100], told) == "go on"
    assert decide([0.0] * 49, StoppingRule(baseline="w", baseline_cell="w-0", futility_margin=0.9)) == "go on"


def test_the_p_value_remembers_the_strongest_evidence_on_the_way() -> None:
    assert sequential_p([]) == 1.0
    assert sequential_p([1.0] * 7) == pytest.approx(1 / 26.8125)
    assert sequential_p([1.0] * 7 + [-1.0] * 7) == pytest.approx(1 / 26.8125)


def test_limits_by_betting_hold_the_mean_and_are_wider_than_those_of_a_fixed_number() -> None:
    values = [1.0, 0.0, 1.0, 1.0] * 50
    found, fixed = bounded_mean(values), score_interval(items(values, early=False))
    assert found.value == 0.75
    assert found.lo is not None
    assert found.hi is not None
    assert fixed.lo is not None
    assert fixed.hi is not None
    assert 0 < found.lo < fixed.lo < 0.75 < fixed.hi < found.hi < 1


def test_limits_for_nothing_one_value_and_values_all_alike() -> None:
    assert bounded_mean([]).lo is None
    assert (bounded_mean([1.0]).lo, bounded_mean([1.0]).hi) == (0.0, 1.0)
    none_right = bounded_mean([0.0] * 60)
    assert (none_right.value, none_right.lo) == (0.0, 0.0)
    assert none_right.hi == pytest.approx(0.1125, abs=0.001)


def test_limits_of_differences_turn_with_their_sign() -> None:
    forth, back = (
        bounded_mean([1.0, 0.0, -1.0, 0.0, 0.0] * 40, -1, 1),
        bounded_mean([-1.0, 0.0, 1.0, 0.0, 0.0] * 40, -1, 1),
    )
    assert forth.lo == pytest.approx(-(back.hi or 0.0))
    assert forth.hi == pytest.approx(-(back.lo or 0.0))


def test_a_question_asked_twice_is_one_piece_of_evidence() -> None:
    once = anytime([1.0, 0.0] * 40, [str(i) for i in range(80)])
    twice = anytime([v for v in [1.0, 0.0] * 40 for _ in range(2)], [str(i // 2) for i in range(160)])
    assert (twice.value, twice.n, twice.method) == (0.5, 80, "anytime_clustered")
    assert (twice.lo, twice.hi) == (once.lo, once.hi)


def test_the_interval_of_such_a_step_is_never_that_of_a_fixed_number() -> None:
    values = [1.0, 0.0, 1.0, 1.0] * 20
    assert score_interval(items(values, early=True)).method == "anytime"
    assert score_interval(items(values, early=False)).method == "wilson"


def test_comparing_such_a_step_uses_what_holds_at_any_stopping_time() -> None:
    whole = items([1.0] * 300, early=False)
    cut = items([0.0] * 12 + [1.0] * 88, early=True)
    found = compare(pair(cut, whole))
    assert (found.test, found.difference.method, found.difference.n) == ("sequential_mcnemar", "anytime", 100)
    assert found.p_value == pytest.approx(math.exp(-log_e_value(0, 12)))
    assert found.detectable is None
    assert found.mcnemar_p is None
    limits = non_inferiority(pair(cut, whole), 0.02)
    assert limits.more_items is None
    assert limits.lower is not None
    assert limits.lower < -0.12


def test_pairs_stand_in_the_order_of_the_side_that_could_end_early() -> None:
    cut = items([0.0, 1.0, 1.0], early=True)
    whole = tuple(reversed(items([1.0, 1.0, 0.0, 1.0], early=False)))
    pairs = pair(whole, cut)
    assert pairs.ids == ("q0", "q1", "q2")
    assert (pairs.first, pairs.second) == ((1.0, 1.0, 0.0), (0.0, 1.0, 1.0))
    assert pairs.differences == tuple(-d for d in pair(cut, whole).differences)


def test_repeated_and_graded_answers_of_such_a_step_are_tested_by_betting() -> None:
    alike = pair(items([0.5, 0.7], early=True), items([0.4, 0.7], early=False))
    assert significance(alike) == (1.0, "betting")
    assert compare(alike).difference.method == "anytime"
    better = [0.75, 1.0, 0.5, 0.75] * 20
    found = compare(pair(items(better, early=True), items([v - 0.5 for v in better], early=False)))
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.difference.lo is not None
    assert found.difference.lo > 0


def test_the_p_of_betting_and_its_limits_say_the_same() -> None:
    for shift in (0.0, 0.05, 0.1, 0.2):
        values = [shift + v for v in (0.1, -0.1, 0.2, -0.2)] * 30
        found = bounded_mean(values, -1.0, 1.0)
        assert found.lo is not None
        assert (betting_p(values, -1.0, 1.0) < 0.05) == (found.lo > 0)
