"""When may a number be used? Every rule is a small pure function; the list below is all there is.

Invalid rows stay in the data with their reasons; they are left out of the frontier and of rankings.
"""

from collections.abc import Iterable

from results.manifest import CellFacts, Manifest
from results.measure import measure
from results.records import Event, Scored, Telemetry
from results.validity import accuracy, identity, latency, memory, power, workload
from results.validity.base import Finding, Rule, StepView, apply, reasons, sentences
from results.views import CellRecords, read_cell

RULES: tuple[Rule, ...] = (
    *identity.RULES,
    *workload.RULES,
    *latency.RULES,
    *power.RULES,
    *memory.RULES,
    *accuracy.RULES,
)

__all__ = ["RULES", "Finding", "StepView", "judge", "judge_step", "reasons", "sentences", "step_views"]


def step_views(cell: CellRecords) -> tuple[StepView, ...]:
    """Each measured step with what it measured, as the rules see it; warm-ups are left out."""
    return tuple(
        StepView(cell=cell, step=step, measured=measure(step, cell.series))
        for step in cell.steps
        if not step.facts.warmup
    )


def judge_step(view: StepView) -> tuple[Finding, ...]:
    """Every rule's verdict on one step; none on a step that did not end."""
    return tuple(apply(rule, view) for rule in RULES) if view.measured is not None else ()


def judge(
    manifest: Manifest,
    cell_facts: CellFacts,
    events: Iterable[Event],
    telemetry: Iterable[Telemetry],
    scores: Iterable[Scored],
) -> tuple[Finding, ...]:
    """Every rule's verdict on every finished step of a cell."""
    cell = read_cell(manifest, cell_facts, events, telemetry, scores)
    return tuple(finding for view in step_views(cell) for finding in judge_step(view))
