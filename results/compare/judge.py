"""Two sides of one step compared: accuracy item by item, figures as ratios, answers that flipped. Pure."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, structs

from results.compare.metrics import Doubts, Ratio, cost_ratios, doubts, ratios
from results.compare.pairing import Differs, Side
from results.load import items
from results.montecarlo import Variant, simulate
from results.paired import Comparison, NonInferiority, compare, holm, non_inferiority, pair
from results.records import Scored
from results.summary import ended_because
from results.validity.base import Finding
from results.validity.pairs import judge_pair

MARGIN = 0.02
"""Largest loss of accuracy that still counts as "not worse": 2 points, unless `--margin` says otherwise."""
ALPHA = 0.05

AccuracyVerdict = Literal["same", "better", "worse", "no_difference", "inconclusive", "withheld", "unknown"]


class Level(Struct, frozen=True, kw_only=True):
    """What a comparison is held against, said beforehand."""

    margin: float = MARGIN
    confidence: float = 0.95
    """One-sided, of the claim "not worse by more than the margin"."""


class Accuracy(Struct, frozen=True, kw_only=True):
    """Candidate less base on the items that both have scores of, in shares (0.01 is a point)."""

    base: float | None
    candidate: float | None
    items: int
    left_out: int
    """Items with a score on one side only, for an error on the other."""
    comparison: Comparison
    adjusted_p: float | None
    """Holm over all step pairs of this comparison."""
    non_inferiority: NonInferiority
    verdict: AccuracyVerdict
    reason: str = ""


class Said(Struct, frozen=True, kw_only=True):
    """One side of a flip. `text` is `None` where none was kept, or the options were ranked."""

    value: float
    verdict: str
    answer: str | None
    text: str | None


class Flip(Struct, frozen=True, kw_only=True):
    """An answer whose score is not the same on both sides."""

    sample: str
    repeat: int
    target: str | None
    base: Said
    candidate: Said


class StepPair(Struct, frozen=True, kw_only=True):
    """One task under one load on both sides."""

    task: str
    load: str
    scoring: str
    metric: str
    base_step: str
    candidate_step: str
    repeats: tuple[int, int]
    same: bool
    """Both sides are the same records."""
    accuracy: Accuracy | None
    """`None` where nothing is scored."""
    ratios: tuple[Ratio, ...]
    flips: tuple[Flip, ...]
    allowed: tuple[str, ...] = ()
    """Obstacles that were allowed by name."""
    notes: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    """What is to be said of the sides that their own answers could end."""


class Ended(Struct, frozen=True, kw_only=True):
    """A step that ended well on one side at most, so that there is nothing to compare."""

    task: str
    load: str
    base: str
    candidate: str
    """Outcome and its reason, or `ok`."""


class CellPair(Struct, frozen=True, kw_only=True):
    """Two deployments with all steps that they have in common."""

    base: str
    candidate: str
    differences: tuple[Differs, ...]
    steps: tuple[StepPair, ...]
    not_compared: tuple[Ended, ...]
    only_base: tuple[str, ...]
    only_candidate: tuple[str, ...]


class Compared(Struct, frozen=True, kw_only=True):
    """The whole comparison."""

    base: str
    candidate: str
    level: Level
    family: tuple[str, ...]
    """The tests that Holm's adjustment is over: accuracy of each step pair, declared before any is looked at."""
    adjusted: Finding
    """Rule F7: every p that is shown is of that family, and adjusted."""
    cells: tuple[CellPair, ...]
    only_base: tuple[str, ...]
    only_candidate: tuple[str, ...]
    tariff: str
    notes: tuple[str, ...] = ()


class Pricing(Struct, frozen=True, kw_only=True):
    """The two rows with their prices, and why the two costs cannot be divided, if so."""

    base: Variant
    candidate: Variant
    apart: str = ""


def judge_step_pair(
    base: Side, candidate: Side, pricing: Pricing, level: Level, allowed: tuple[str, ...] = ()
) -> StepPair:
    """Everything of one pair. Verdicts on accuracy stand only after `adjust`."""
    same = base.path.resolve() == candidate.path.resolve() and base.facts.name == candidate.facts.name
    together = judge_pair(base.views[0], candidate.views[0])
    against = doubts(base, candidate, together)
    costs = _costs(pricing, against, same)
    facts = base.facts
    return StepPair(
        task=facts.task,
        load=facts.load,
        scoring=facts.scoring
        if facts.scoring == candidate.facts.scoring
        else f"{facts.scoring} / {candidate.facts.scoring}",
        metric=facts.metric,
        base_step=facts.name,
        candidate_step=candidate.facts.name,
        repeats=(len(base.views), len(candidate.views)),
        same=same,
        accuracy=_accuracy(base, candidate, against, level, same),
        ratios=(*ratios(base, candidate, against, same), *costs),
        flips=() if same else flips(base, candidate),
        allowed=allowed,
        notes=tuple(f"{f.rule}: {f.sentence}" for f in together if f.verdict == "fail" and f.rule not in ("F1", "F4")),
        early=tuple(sentence for side in (base, candidate) for sentence in _early(side)),
    )


def _early(side: Side) -> tuple[str, ...]:
    """Where an end of its own was possible the interval and p are those that hold at any stopping time."""
    name = side.cell.facts.deployment
    found = []
    for view in side.views:
        stopped, facts = view.step.stopped, view.step.facts
        if stopped is not None:
            why = ended_because(stopped, facts.stopping)
            found.append(f"{name}, {facts.name}: ended early after {stopped.items} of {facts.items} items, {why}")
        elif view.step.sequential:
            found.append(f"{name}, {facts.name}: could have ended early and was run whole")
    return tuple(found)


def _costs(pricing: Pricing, against: Doubts, same: bool) -> tuple[Ratio, ...]:
    if pricing.base.row.cost_per_1k_samples is None and pricing.candidate.row.cost_per_1k_samples is None:
        return ()
    drawn = simulate((pricing.base, pricing.candidate))
    return cost_ratios((pricing.base.row, pricing.candidate.row), drawn, against, same, pricing.apart)


def _accuracy(base: Side, candidate: Side, against: Doubts, level: Level, same: bool) -> Accuracy | None:
    one, two = items(base.views), items(candidate.views)
    if not one and not two:
        return None
    pairs = pair(two, one)
    verdict: AccuracyVerdict = "same" if same else "withheld" if against.accuracy else "inconclusive"
    return Accuracy(
        base=_mean(pairs.second),
        candidate=_mean(pairs.first),
        items=len(pairs.ids),
        left_out=len({i.id for i in one} ^ {i.id for i in two}),
        comparison=compare(pairs),
        adjusted_p=None,
        non_inferiority=non_inferiority(pairs, level.margin, 1 - level.confidence),
        verdict=verdict if pairs.ids else "unknown",
        reason="the same records"
        if same
        else "; ".join(against.accuracy)
        if pairs.ids
        else "no item has a score on both sides",
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def flips(base: Side, candidate: Side) -> tuple[Flip, ...]:
    """Every answer (repeat by repeat) whose score differs, those that got worse first."""
    one, two = _said(base), _said(candidate)
    found = [
        Flip(sample=key[1], repeat=key[2], target=one[key][1], base=one[key][0], candidate=two[key][0])
        for key in one
        if key in two and one[key][0].value != two[key][0].value
    ]
    return tuple(sorted(found, key=lambda f: f.candidate.value - f.base.value))


def _said(side: Side) -> dict[tuple[int, str, int], tuple[Said, str | None]]:
    """By repeat of the step, sample and repeat of the sample."""
    found = {}
    for number, view in enumerate(side.views):
        texts = {(a.sample, a.repeat): a.text for a in view.step.answered}
        for score in view.step.scores:
            if score.value is not None:
                text = texts.get((score.sample, score.repeat))
                found[number, score.sample, score.repeat] = (_one_said(score, text), score.target)
    return found


def _one_said(score: Scored, text: str | None) -> Said:
    return Said(value=score.value or 0.0, verdict=score.verdict, answer=score.answer, text=text)


def adjust(cells: Sequence[CellPair], margin: float) -> tuple[tuple[CellPair, ...], tuple[str, ...]]:
    """Holm over the accuracy of every step pair, then the verdicts; returns the family's names too."""
    p_values = {name: p for name, (p, _) in tests_of(cells).items()}
    adjusted = holm(p_values)
    judged = tuple(
        structs.replace(
            cell,
            steps=tuple(
                structs.replace(s, accuracy=_verdict(s.accuracy, adjusted.get(family_name(cell, s)), margin))
                for s in cell.steps
            ),
        )
        for cell in cells
    )
    return judged, tuple(p_values)


def tests_of(cells: Sequence[CellPair]) -> dict[str, tuple[float, float | None]]:
    """Each p that a reader sees, with its adjusted p."""
    return {
        family_name(cell, step): (p, step.accuracy.adjusted_p)
        for cell in cells
        for step in cell.steps
        if step.accuracy and not step.same and (p := step.accuracy.comparison.p_value) is not None
    }


def family_name(cell: CellPair, step: StepPair) -> str:
    return f"{cell.base} / {cell.candidate}: {step.base_step}"


def _verdict(accuracy: Accuracy | None, adjusted: float | None, margin: float) -> Accuracy | None:
    """Better or worse by the adjusted p; no difference when the whole 95 % interval lies within the margin."""
    if accuracy is None or accuracy.verdict != "inconclusive":
        return structs.replace(accuracy, adjusted_p=adjusted) if accuracy else None
    found = accuracy.comparison.difference
    verdict: AccuracyVerdict = "inconclusive"
    if adjusted is not None and adjusted < ALPHA and found.value:
        verdict = "better" if found.value > 0 else "worse"
    elif found.lo is not None and found.hi is not None and -margin <= found.lo and found.hi <= margin:
        verdict = "no_difference"
    return structs.replace(accuracy, adjusted_p=adjusted, verdict=verdict)
