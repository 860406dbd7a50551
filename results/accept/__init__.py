"""A delivered machine against a written specification: every clause met, not met, or not to be decided with what was measured."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from results.accept import judge
from results.accept import spec as ask
from results.accept.judge import Finding, Judged, Reference, Steps, Verdict
from results.compare.pairing import Side, obstacles
from results.cost import Tariff
from results.load import LoadedCell, find_deployment, items, load, ranged_variants, tariff_for
from results.manifest import Manifest
from results.report.entries import machine_of
from results.store import RunDir, StoreError

__all__ = ["Accepted", "accept"]


class Accepted(Struct, frozen=True, kw_only=True):
    """What the page says. `verdict` is met when every clause is, not met when one is not, else undecided."""

    title: str
    title_zh: str
    buyer: str
    supplier: str
    reference: str
    run: str
    measurement_sha256: str
    spec_sha256: str
    created_utc: str
    judged_utc: str
    machine: str
    deployment: str
    model: str
    engine: str
    tariff: str
    tariff_is_example: bool
    synthetic_items: bool
    confidence: float
    clauses: tuple[Judged, ...]
    verdict: Verdict


def accept(spec_path: Path, run_path: Path, now: datetime | None = None) -> Accepted:
    """Judge a sealed run. Raises `StoreError` for a run that was edited or never finished, and for a specification that does not fit it."""
    spec, run = ask.load_spec(spec_path), RunDir(run_path)
    manifest = run.manifest()
    if edits := run.edits():
        raise StoreError(f"{run_path}: {edits[0]}; a run that is not whole cannot be accepted")
    seal = run.measurement_sha256()
    assert seal is not None, "a run without edits has a seal"
    tariff = tariff_for(manifest, spec_path.parent / spec.tariff if spec.tariff else None)
    cells = _Cells(run, manifest, tariff)
    judged = tuple(_clause(i, c, spec, spec_path.parent, cells) for i, c in enumerate(spec.clauses, 1))
    main = cells.get(spec.deployment)
    engine = next((v.step.engine for v in main.views if v.step.engine), None)
    return Accepted(
        title=spec.title,
        title_zh=spec.title_zh,
        buyer=spec.buyer,
        supplier=spec.supplier,
        reference=spec.reference,
        run=manifest.run,
        measurement_sha256=seal,
        spec_sha256=hashlib.sha256(spec_path.read_bytes()).hexdigest(),
        created_utc=manifest.created_utc,
        judged_utc=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        machine=machine_of(manifest.host),
        deployment=spec.deployment,
        model=main.facts.model + (f", {engine.quantisation}" if engine and engine.quantisation else ""),
        engine=f"{engine.engine} {engine.engine_version or ''}".strip() if engine else main.facts.backend,
        tariff=tariff.name,
        tariff_is_example=tariff.example and any(isinstance(c, ask.Cost) for c in spec.clauses),
        synthetic_items=any(v.step.facts.synthetic for v in main.views),
        confidence=spec.confidence,
        clauses=judged,
        verdict=_overall([j.verdict for j in judged]),
    )


def _overall(verdicts: Sequence[Verdict]) -> Verdict:
    if "not_met" in verdicts:
        return "not_met"
    return "undecided" if "undecided" in verdicts else "met"


class _Cells:
    """The cells that clauses ask about; the last one is held, since clauses mostly speak of one deployment."""

    def __init__(self, run: RunDir, manifest: Manifest, tariff: Tariff) -> None:
        self.manifest = manifest
        self.tariff = tariff
        self._run = run
        self._held: LoadedCell | None = None
        self._steps: tuple[Steps, ...] = ()

    def get(self, deployment: str) -> LoadedCell:
        facts = find_deployment(self.manifest, deployment)
        if self._held is None or self._held.facts.id != facts.id:
            self._held = next(load(self._run, self.manifest, [facts]))
            self._steps = _grouped(self._held, self.tariff)
        return self._held

    def steps(self, deployment: str) -> tuple[Steps, ...]:
        self.get(deployment)
        return self._steps


def _grouped(cell: LoadedCell, tariff: Tariff) -> tuple[Steps, ...]:
    """Repeats of one task under one load together."""
    found = ranged_variants(cell, tariff)
    groups: dict[tuple[str, str], list[int]] = {}
    for i, view in enumerate(cell.views):
        groups.setdefault((view.step.facts.task, view.step.facts.load), []).append(i)
    return tuple(
        Steps(
            name=cell.views[places[0]].step.facts.name,
            views=tuple(cell.views[i] for i in places),
            variants=tuple(found[i] for i in places),
        )
        for places in groups.values()
    )


def _clause(number: int, clause: ask.Clause, spec: ask.Spec, base: Path, cells: _Cells) -> Judged:
    deployment = clause.deployment or spec.deployment
    chosen = _chosen(number, clause, cells.steps(deployment), deployment)
    finding = _finding(clause, chosen, spec, base, cells, deployment)
    one = len(chosen) == 1 and not isinstance(clause, ask.Validity | ask.Evidence)
    return Judged(
        number=number,
        kind=str(type(clause).__struct_config__.tag),
        asked=judge.asked(clause),
        found=finding.found,
        verdict=finding.verdict,
        decides=finding.decides,
        deployment=clause.deployment or "",
        load=chosen[0].views[0].step.facts.load if one else "",
    )


def _chosen(number: int, clause: ask.Clause, steps: Sequence[Steps], deployment: str) -> tuple[Steps, ...]:
    """The steps that a clause speaks of; those about one task need exactly one load."""
    task, load_name = getattr(clause, "task", None), getattr(clause, "load", None)
    of_task = [s for s in steps if task is None or s.views[0].step.facts.task == task]
    if not of_task:
        known = ", ".join(dict.fromkeys(s.views[0].step.facts.task for s in steps))
        raise StoreError(f"clause {number}: {deployment} was not asked `{task}`; it was asked {known}")
    found = [s for s in of_task if load_name is None or s.views[0].step.facts.load == load_name]
    loads = ", ".join(s.views[0].step.facts.load for s in of_task)
    if not found:
        raise StoreError(f"clause {number}: `{task}` was not measured under load `{load_name}`; it was under {loads}")
    single = not isinstance(clause, ask.Memory | ask.PowerCap | ask.Validity | ask.Evidence)
    if single and len(found) > 1:
        raise StoreError(f"clause {number}: `{task}` was measured under {loads}; name one of them with `load`")
    return tuple(found)


def _finding(
    clause: ask.Clause, steps: Sequence[Steps], spec: ask.Spec, base: Path, cells: _Cells, deployment: str
) -> Finding:
    judges_itself = isinstance(clause, ask.Validity | ask.Evidence | ask.PowerCap)
    for one in steps:
        hindered = judge.stopped(one) or judge.unusable(one, *judge.AXES.get(type(clause), ()))
        if hindered and (hindered.verdict == "not_met" or not judges_itself):
            return hindered
    match clause:
        case ask.Accuracy():
            return judge.accuracy(clause, steps[0], spec.confidence)
        case ask.NonInferior():
            reference = _reference(clause, steps[0], base, cells, deployment)
            return judge.non_inferior(clause, steps[0], reference, spec.confidence)
        case ask.FirstToken():
            return judge.first_token(clause, steps[0], spec.confidence)
        case ask.UserSpeed():
            return judge.user_speed(clause, steps[0], spec.confidence)
        case ask.Throughput():
            return judge.throughput(clause, steps[0], spec.confidence)
        case ask.Memory():
            return judge.memory(clause, steps)
        case ask.PowerCap():
            return judge.power(clause, steps)
        case ask.Cost():
            return judge.cost(clause, steps[0], cells.tariff)
        case ask.Validity():
            return judge.validity(clause, steps)
        case ask.Evidence():
            return judge.evidence(clause, steps)


def _reference(clause: ask.NonInferior, steps: Steps, base: Path, cells: _Cells, deployment: str) -> Reference:
    """The reference's item scores under the same load, and why they may not be compared."""
    subject = _side(cells.get(deployment), steps)
    if clause.reference_run is None:
        other = _Cells(cells._run, cells.manifest, cells.tariff)
    else:
        run = RunDir(base / clause.reference_run)
        other = _Cells(run, run.manifest(), cells.tariff)
    load_name = steps.views[0].step.facts.load
    found = [
        s
        for s in other.steps(clause.reference)
        if (s.views[0].step.facts.task, s.views[0].step.facts.load) == (clause.task, load_name)
    ]
    if not found:
        raise StoreError(f"the reference {clause.reference} was not asked `{clause.task}` under load {load_name}")
    side = _side(other.get(clause.reference), found[0])
    return Reference(items=items(found[0].views), obstacles=obstacles(side, subject))


def _side(cell: LoadedCell, steps: Steps) -> Side:
    return Side(manifest=cell.manifest, path=cell.path, cell=cell.records, views=steps.views, rows=steps.rows)
