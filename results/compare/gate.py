"""Thresholds that a candidate must keep: passed, breached, or not decided, each with its reason. Pure but for reading the file.

Passed when the unfavourable end of the interval keeps the threshold, breached when the favourable end does not, else inconclusive.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from results.compare.judge import CellPair, Compared, StepPair
from results.compare.metrics import Ratio, throughput
from results.store import StoreError

Share = Annotated[float, Meta(ge=0, le=1)]
Growth = Annotated[float, Meta(ge=0)]
Verdict = Literal["passed", "breached", "inconclusive"]


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gate file. What is not named is not asked."""

    max_accuracy_drop: Share | None = None
    """In shares: 0.02 is two points."""
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95
    """One-sided, of the accuracy; give it to `compare_runs` too. Ratios keep their 95 % intervals."""
    max_slowdown: Share | None = None
    """Loss of throughput: 0.1 is a tenth."""
    max_memory_growth: Growth | None = None
    max_energy_growth: Growth | None = None
    max_cost_growth: Growth | None = None
    fail_on_inconclusive: bool = True


MEMORY = ("vram_needed_bytes", "host_needed_bytes", "vram_reserved_bytes", "host_memory_bytes")
"""What stands for memory: what the load needed, else what was taken."""


class Check(Struct, frozen=True, kw_only=True):
    """One threshold on one step pair."""

    where: str
    threshold: str
    verdict: Verdict
    sentence: str


class Gated(Struct, frozen=True, kw_only=True):
    """All checks of a gate, and whether it lets pass."""

    passed: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences of what was breached or could not be decided."""
        return tuple(f"{c.where}: {c.verdict}: {c.sentence}" for c in self.checks if c.verdict != "passed")


def load_gate(path: Path) -> Gate:
    """Read a gate file; every mistake is a `StoreError` that names the file and the place."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read ({error.strerror}); give a gate file (see docs/compare.md)"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not valid TOML: {error}") from error
    try:
        gate = msgspec.convert(raw, Gate)
    except msgspec.ValidationError as error:
        raise StoreError(f"{path}: {error}") from error
    if all(getattr(gate, n) is None for n in gate.__struct_fields__ if n.startswith("max_")):
        raise StoreError(
            f"{path}: no threshold; set at least one of max_accuracy_drop, max_slowdown, max_memory_growth ..."
        )
    return gate


def apply_gate(compared: Compared, gate: Gate) -> Gated:
    """Every threshold on every step pair; a step that ended on the base only is a breach."""
    checks = [check for cell in compared.cells for check in _cell(cell, gate)]
    bad = ("breached", "inconclusive") if gate.fail_on_inconclusive else ("breached",)
    return Gated(passed=not any(c.verdict in bad for c in checks), checks=tuple(checks))


def _cell(cell: CellPair, gate: Gate) -> list[Check]:
    lost = [
        Check(
            where=f"{cell.candidate} {e.task}@{e.load}",
            threshold="the step ends",
            verdict="breached" if e.base == "ok" else "inconclusive",
            sentence=f"base {e.base}, candidate {e.candidate}",
        )
        for e in cell.not_compared
    ]
    return lost + [
        check for step in cell.steps for check in _step(f"{cell.candidate} {step.candidate_step}", step, gate)
    ]


def _step(where: str, step: StepPair, gate: Gate) -> list[Check]:
    found = []
    if gate.max_accuracy_drop is not None and step.accuracy is not None:
        found.append(_accuracy(where, step, gate.max_accuracy_drop, gate.confidence))
    asked = (
        ("max_slowdown", gate.max_slowdown, throughput(step.ratios)),
        ("max_memory_growth", gate.max_memory_growth, _first(step, MEMORY)),
        ("max_energy_growth", gate.max_energy_growth, _first(step, ("energy_per_sample_j",))),
        ("max_cost_growth", gate.max_cost_growth, _first(step, ("cost_per_1k_samples",))),
    )  # fmt: skip
    return found + [_ratio(where, name, limit, ratio) for name, limit, ratio in asked if limit is not None]


def _first(step: StepPair, names: tuple[str, ...]) -> Ratio | None:
    by_name = {r.metric: r for r in step.ratios}
    return next((by_name[n] for n in names if n in by_name), None)


def _accuracy(where: str, step: StepPair, limit: float, confidence: float) -> Check:
    """By the one-sided limits of the comparison, which was made on the gate's level."""
    accuracy = step.accuracy
    assert accuracy is not None
    limits, threshold = accuracy.non_inferiority, f"accuracy drop at most {100 * limit:.3g} points"
    if accuracy.verdict == "same":
        return Check(where=where, threshold=threshold, verdict="passed", sentence=accuracy.reason)
    if accuracy.verdict == "withheld" or limits.difference is None or limits.lower is None or limits.upper is None:
        return Check(
            where=where, threshold=threshold, verdict="inconclusive", sentence=accuracy.reason or "no interval"
        )
    verdict: Verdict = "passed" if limits.lower >= -limit else "breached" if limits.upper < -limit else "inconclusive"
    low, high = 100 * limits.lower, 100 * limits.upper
    sentence = f"{100 * limits.difference:+.1f} points, one-sided {confidence:.0%} limits {low:+.1f} and {high:+.1f}"
    return Check(where=where, threshold=threshold, verdict=verdict, sentence=sentence)


def _ratio(where: str, name: str, limit: float, ratio: Ratio | None) -> Check:
    """A slowdown is a loss of a figure of which more is better; growth is of one of which less is."""
    what = name.removeprefix("max_").replace("_", " ")
    threshold = f"{what} at most {limit:.1%}"
    if ratio is None:
        return Check(where=where, threshold=threshold, verdict="inconclusive", sentence=f"{what}: not measured")
    if ratio.verdict == "withheld" or ratio.lo is None or ratio.hi is None:
        return Check(
            where=where, threshold=threshold, verdict="inconclusive", sentence=f"{ratio.metric}: {ratio.reason}"
        )
    edge = 1 - limit if ratio.better == "higher" else 1 + limit
    kept, broken = (
        (ratio.lo >= edge, ratio.hi < edge) if ratio.better == "higher" else (ratio.hi <= edge, ratio.lo > edge)
    )
    verdict: Verdict = "passed" if kept else "breached" if broken else "inconclusive"
    sentence = f"{ratio.metric} {_change(ratio.ratio)} ({_change(ratio.lo)} to {_change(ratio.hi)})"
    return Check(where=where, threshold=threshold, verdict=verdict, sentence=sentence)


def _change(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{100 * (ratio - 1):+.1f} %"
