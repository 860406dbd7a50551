"""How full a machine is and how long requests wait at it: a birth-death chain from the measured closed-loop curve. Pure.

With n requests inside one leaves at rate X(n), the requests per second that were measured with n in flight; from the largest measured
number N on the others wait and the rate stays X(N). Requests come at random (Poisson) at rate a:

    p(n) = p(0) * prod_{i=1..n} a / X(min(i, N))        E[N] = sum n p(n)        R = E[N] / a  (Little)

Who waits does so for an exponential time of rate X(N) - a: P(wait > t) = P(n >= N) exp(-(X(N) - a) t). X(n) = n m gives the M/M/N queue
with Erlang's C as P(n >= N), and N = 1 the M/M/1 queue; the tests compare with both.

Worked example: X(1) = 1/s, a = 0.5/s: p(0) = 0.5, one request inside on average, R = 2 s.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from results.stats import Floats


class Chain(Struct, frozen=True, kw_only=True):
    """One line for each draw. Where more comes than can be served, `waits` is 1 and `inside` infinite."""

    states: Floats
    """p(0) to p(N - 1)."""
    waits: Floats
    """P(n >= N): a request that comes has to wait."""
    inside: Floats
    """E[N]."""
    drain: Floats
    """X(N) - a, requests per second; 0 where the queue never empties."""

    @property
    def idle(self) -> Floats:
        found: Floats = self.states[:, 0]
        return found


def chain(arrivals: Floats, curve: Floats) -> Chain:
    """`arrivals`: requests per second, one for each draw; `curve`: X(1) to X(N), a line for each draw."""
    most = curve.shape[1]
    load = arrivals / curve[:, -1]
    stable = load < 1
    with np.errstate(divide="ignore"):
        steps = np.log(arrivals)[:, None] - np.log(curve)
    logs = np.concatenate((np.zeros((len(load), 1)), np.cumsum(steps, axis=1)), axis=1)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))  # all alike too large; it goes out with the sum
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = np.where(stable, weights[:, -1] / (1 - load), np.inf)
        whole = weights[:, :-1].sum(axis=1) + tail
        states = np.where(stable[:, None], weights[:, :-1] / whole[:, None], 0.0)
        queued = weights[:, -1] * (most / (1 - load) + load / (1 - load) ** 2)
        inside = np.where(stable, (weights[:, :-1] @ np.arange(most) + queued) / whole, np.inf)
    return Chain(
        states=states,
        waits=np.where(stable, 1 - states.sum(axis=1), 1.0),
        inside=inside,
        drain=np.where(stable, curve[:, -1] - arrivals, 0.0),
    )


def between(loads: Sequence[int]) -> Floats:
    """Weights that make values at the measured loads into values at 1 to N: straight lines between neighbours.

    Below the smallest measured load n requests leave at n / smallest of its rate: a request is not slower with fewer beside it.
    """
    places = np.arange(1, loads[-1] + 1)
    weights = np.array([np.interp(places, loads, np.eye(len(loads))[i]) for i in range(len(loads))])
    weights[0, : loads[0]] = places[: loads[0]] / loads[0]
    return weights


def in_time(state: Chain, starts: Floats, after_waiting: Floats, limit_s: float) -> Floats:
    """Share of the requests of which the first text (or whatever `starts` tells of) comes within the limit.

    `starts`: the share within the limit for a request that finds 0 to N - 1 others, a line for each draw; `after_waiting`: seconds that
    it takes once the wait is over, as quantiles of what was measured at N.
    """
    left_s = np.maximum(0.0, limit_s - after_waiting)
    waited = np.mean(1 - np.exp(-state.drain[:, None] * left_s), axis=1)
    found: Floats = np.sum(state.states * starts, axis=1) + state.waits * waited
    return found
