"""Joules of reading a prompt token and of writing an output token apart, where a measurement can tell them apart.

Two ways are sound. A step that only reads (likelihood) is its own measurement. Where one request runs at a time, neighbouring requests are
put together into windows of at least 5 s, and E = r x prompt tokens + w x output tokens is fitted to at least 20 of them, for their lengths
differ by nature; both figures are gross, idle draw included. Windows around single phases are never opened: sensors are slower than phases
(arXiv 2312.02741). Where requests overlap one reads while another writes in the same step of the engine, and nothing tells their joules
apart; a model of the draw is not a measurement and is not fitted.

Worked example: windows (1000 in, 10 out, 30 J), (500 in, 60 out, 70 J) ... fit r = 0.02 J, w = 1 J.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.stats
from msgspec import Struct

from results.energy import Energy, like, window_energy
from results.records import Answered
from results.series import Series, Window
from results.stats import Floats
from results.views import StepRecords
from results.windows import evaluated_prompts, prompt_pieces, tokens_in

FEWEST_WINDOWS = 20
SHORTEST_WINDOW_S = 5.0
WIDEST = 0.25
"""Half of the 95 % interval over the figure itself; beyond it the two are not told apart."""


class Phases(Struct, frozen=True, kw_only=True):
    """Joules for each token; `None` with the reason."""

    prefill_j: float | None = None
    decode_j: float | None = None
    method: Literal["prefill_only", "regression"] | None = None
    reason: str = ""


class _Part(Struct, frozen=True):
    """One window of the fit."""

    prompt_tokens: float
    output_tokens: float
    joules: float


def phases_of(step: StepRecords, series: Series, whole: Energy, steady: Window | None) -> Phases:
    """Of one finished step; `whole` is its energy, `steady` its steady state."""
    if whole.value_j is None:
        return Phases(reason=f"no energy: {whole.reason}")
    if step.ranked and not step.answered:
        return _reading_only(step, series, whole, steady)
    if step.facts.concurrency != 1:
        return Phases(reason="requests overlap at this load: one is read while another is written")
    if whole.estimated:
        return Phases(reason=f"power is an estimate (class {whole.evidence}), which knows no phases")
    if whole.evidence == "M2":
        return Phases(reason="a node sensor is slower than the windows")
    parts = _parts(step, series, whole)
    return parts if isinstance(parts, Phases) else fit(parts)


def _reading_only(step: StepRecords, series: Series, whole: Energy, steady: Window | None) -> Phases:
    pieces = prompt_pieces(step.ranked)
    if steady is None or pieces is None:
        return Phases(reason="no steady state, or prompt tokens that were not counted")
    tokens = tokens_in(pieces, steady)
    energy = like(whole, window_energy(series, steady.start_ns, steady.end_ns, step.where))
    if energy.value_j is None or tokens <= 0:
        return Phases(reason=f"no energy of the steady state: {energy.reason}")
    return Phases(prefill_j=energy.value_j / tokens, method="prefill_only", reason="nothing is generated")


def _parts(step: StepRecords, series: Series, whole: Energy) -> list[_Part] | Phases:
    """Requests in order of time, put together until a window is long enough; the rest at the end is left out."""
    done = sorted(step.answered, key=lambda a: a.start_ns)
    if any(a.error is not None or a.prompt_tokens is None or a.output_tokens is None for a in done):
        return Phases(reason="a request failed or its tokens were not counted")
    parts: list[_Part] = []
    group: list[Answered] = []
    for answer in done:
        group.append(answer)
        if (answer.end_ns - group[0].start_ns) / 1e9 < SHORTEST_WINDOW_S:
            continue
        energy = window_energy(series, group[0].start_ns, answer.end_ns, step.where)
        if energy.value_j is None or energy.meters != whole.meters:
            return Phases(reason=f"the energy of a window is unknown: {energy.reason or 'other meters'}")
        prompt = evaluated_prompts(group)
        if prompt is None:
            return Phases(reason="tokens from a cache were told for some requests only")
        parts.append(_Part(float(sum(prompt)), float(sum(a.output_tokens or 0 for a in group)), energy.value_j))
        group = []
    return parts


def fit(parts: Sequence[_Part]) -> Phases:
    """Least squares without a constant: at one request at a time the idle draw is part of either phase."""
    if len(parts) < FEWEST_WINDOWS:
        return Phases(
            reason=f"{len(parts)} windows of {SHORTEST_WINDOW_S:g} s or more, {FEWEST_WINDOWS} are needed to tell reading from writing"
        )
    tokens = np.array([[p.prompt_tokens, p.output_tokens] for p in parts])
    joules = np.array([p.joules for p in parts])
    if np.linalg.matrix_rank(tokens) < 2:
        return Phases(reason="every window has the same mixture of reading and writing")
    found = np.linalg.lstsq(tokens, joules, rcond=None)[0]
    half = _half_widths(tokens, joules - tokens @ found)
    worst = float(np.max(np.where(found > 0, half / np.where(found > 0, found, 1.0), np.inf)))
    if worst > WIDEST:
        return Phases(reason=f"reading and writing cannot be told apart to {WIDEST:.0%}: the lengths differ too little")
    return Phases(prefill_j=float(found[0]), decode_j=float(found[1]), method="regression")


def _half_widths(tokens: Floats, residuals: Floats) -> Floats:
    """Of the 95 % t intervals of both coefficients."""
    free = len(residuals) - tokens.shape[1]
    variance = float(residuals @ residuals) / free
    errors: Floats = np.sqrt(variance * np.diag(np.linalg.inv(tokens.T @ tokens)))
    return errors * float(scipy.stats.t.ppf(0.975, free))
