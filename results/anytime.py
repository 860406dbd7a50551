"""Tests that stay true however often they are looked at, for steps that may end before their last question.

A fixed-n p-value is true for a number of items that was chosen beforehand. Where the answers themselves decide when to stop, the exact
sequential McNemar e-value takes its place (a beta mixture over the share of wins among discordant items). Differences are first less
second: 1, -1 or 0 for each item, in the order they were asked. The interval that goes with it is `results.stats.bounded_mean`.
"""

import math
from collections.abc import Sequence
from typing import Literal

import scipy.special

from results.manifest import StoppingRule
from results.stats import bounded_mean

Decision = Literal["different", "futile", "go on"]


def log_e_value(only_first: int, only_second: int) -> float:
    """Natural logarithm of the exact sequential McNemar e-value: 2^m B(b+1/2, c+1/2) / B(1/2, 1/2), m = b + c.

    A test martingale under equal shares: whatever the stopping time, P(it ever reaches 1/alpha) <= alpha.
    """
    b, c = only_first, only_second
    return float((b + c) * math.log(2.0) + scipy.special.betaln(b + 0.5, c + 0.5) - scipy.special.betaln(0.5, 0.5))


def e_value(only_first: int, only_second: int) -> float:
    return math.exp(min(log_e_value(only_first, only_second), 700.0))


def decide(differences: Sequence[float], rule: StoppingRule) -> Decision:
    """What the rule says after these items.

    Futility never claims a difference; its interval is anytime-valid so that "within the margin" is a claim that holds too.
    """
    b, c = differences.count(1.0), differences.count(-1.0)
    if log_e_value(b, c) >= -math.log(rule.alpha):
        return "different"
    if rule.futility_margin is None or len(differences) < rule.fewest_items:
        return "go on"
    found = bounded_mean(differences, -1.0, 1.0, 1 - rule.alpha)
    within = found.lo is not None and found.hi is not None and max(-found.lo, found.hi) < rule.futility_margin
    return "futile" if within else "go on"


def sequential_p(differences: Sequence[float]) -> float:
    """Two-sided, anytime-valid p of equal shares: 1 / the largest e-value on the way, at most 1."""
    b = c = 0
    largest = 0.0
    for difference in differences:
        b, c = b + (difference > 0), c + (difference < 0)
        largest = max(largest, log_e_value(b, c))
    return math.exp(-largest)
