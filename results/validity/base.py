"""What a validity rule is: a small pure function over one step's records that says pass, fail, or why it cannot tell."""

from collections.abc import Callable, Sequence
from typing import Literal

import scipy.stats
from msgspec import Struct

from results.measure import Measured
from results.profiles import PROFILES, Profile, Severity
from results.series import Window
from results.store import StoreError
from results.views import CellRecords, StepRecords

Verdict = Literal["pass", "fail", "not_applicable", "unknown"]
Axis = Literal["all", "accuracy", "speed", "energy", "memory"]
Purpose = Literal["ranking", "energy", "memory"]

CONCERNS: dict[Purpose, frozenset[Axis]] = {
    "ranking": frozenset({"all", "accuracy", "speed"}),
    "energy": frozenset({"all", "energy"}),
    "memory": frozenset({"all", "memory"}),
}


class StepView(Struct, frozen=True, kw_only=True):
    """A step, its cell, and what it measured (`None` when it did not end: no rule is asked then)."""

    cell: CellRecords
    step: StepRecords
    measured: Measured | None

    @property
    def profile(self) -> Profile:
        if self.cell.profile not in PROFILES:
            raise StoreError(f"profile `{self.cell.profile}` is unknown; one of {', '.join(PROFILES)}")
        return PROFILES[self.cell.profile]

    @property
    def result(self) -> Measured:
        assert self.measured is not None, "rules are asked of finished steps only"
        return self.measured

    @property
    def span(self) -> Window:
        assert self.step.span is not None, "rules are asked of finished steps only"
        return self.step.span


class Check(Struct, frozen=True, kw_only=True):
    """What a rule found. `severity` and `threshold` only where they differ from the rule's own."""

    verdict: Verdict
    observed: str = ""
    sentence: str = ""
    severity: Severity | None = None
    threshold: str | None = None


class Rule(Struct, frozen=True, kw_only=True):
    """One line of docs/validity.md and the function that decides it."""

    id: str
    severity: Severity
    axis: Axis
    title: str
    threshold: str
    check: Callable[[StepView], Check]
    must_know: bool = False
    """In the strict profile an unknown verdict fails."""


class Finding(Struct, frozen=True, kw_only=True):
    """A rule's verdict on one step."""

    rule: str
    step: str
    severity: Severity
    axis: Axis
    verdict: Verdict
    observed: str
    threshold: str
    sentence: str


def passed(observed: str = "") -> Check:
    return Check(verdict="pass", observed=observed)


def failed(observed: str, sentence: str, severity: Severity | None = None, threshold: str | None = None) -> Check:
    return Check(verdict="fail", observed=observed, sentence=sentence, severity=severity, threshold=threshold)


def not_applicable(why: str) -> Check:
    return Check(verdict="not_applicable", sentence=why)


def not_known(why: str) -> Check:
    return Check(verdict="unknown", sentence=why)


def apply(rule: Rule, view: StepView) -> Finding:
    """Ask one rule; under a strict profile what must be known and is not fails."""
    check = rule.check(view)
    strict = check.verdict == "unknown" and rule.must_know and view.profile.strict
    return Finding(
        rule=rule.id,
        step=view.step.facts.name,
        severity=check.severity or rule.severity,
        axis=rule.axis,
        verdict="fail" if strict else check.verdict,
        observed="unknown" if strict else check.observed,
        threshold=check.threshold or rule.threshold,
        sentence=check.sentence,
    )


def exceeds(count: int, whole: int, limit: float, by_bound: bool) -> bool:
    """Whether a share is above its limit; by its exact one-sided lower 95 % bound where the profile says so."""
    if not whole or count / whole <= limit:
        return False
    return not by_bound or float(scipy.stats.beta.ppf(0.05, count, whole - count + 1)) > limit


def reasons(findings: Sequence[Finding], purpose: Purpose) -> tuple[str, ...]:
    """Sentences of the failures that keep a row out of that ranking."""
    kept = (f for f in findings if f.verdict == "fail" and f.severity in ("I", "R") and f.axis in CONCERNS[purpose])
    return tuple(f"{f.rule}: {f.sentence}" for f in kept)


def sentences(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Sentences of the warnings, and of failures that concern neither the ranking nor energy."""
    kept = (f for f in findings if f.verdict == "fail" and (f.severity == "W" or f.axis == "memory"))
    return tuple(f"{f.rule}: {f.sentence}" for f in kept)
