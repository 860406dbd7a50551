"""Rules that need two steps: may these two be compared, and on what?"""

from collections.abc import Callable

from msgspec import Struct

from results.profiles import Severity
from results.validity.base import Axis, Check, Finding, StepView, failed, not_applicable, not_known, passed
from results.validity.workload import judged


class PairRule(Struct, frozen=True, kw_only=True):
    """One line of docs/validity.md and the function that decides it for two steps."""

    id: str
    severity: Severity
    axis: Axis
    title: str
    threshold: str
    check: Callable[[StepView, StepView], Check]


def judge_pair(first: StepView, second: StepView) -> tuple[Finding, ...]:
    """Every pair rule's verdict on two finished steps."""
    return tuple(_apply(rule, first, second) for rule in PAIR_RULES)


def _apply(rule: PairRule, first: StepView, second: StepView) -> Finding:
    check = rule.check(first, second)
    return Finding(
        rule=rule.id,
        step=f"{first.step.facts.name} / {second.step.facts.name}",
        severity=check.severity or rule.severity,
        axis=rule.axis,
        verdict=check.verdict,
        observed=check.observed,
        threshold=check.threshold or rule.threshold,
        sentence=check.sentence,
    )


def same_model(first: StepView, second: StepView) -> Check:
    """A2"""
    if first.cell.facts.deployment != second.cell.facts.deployment:
        return not_applicable("different deployments")
    engines = first.step.engine, second.step.engine
    if engines[0] is None or engines[1] is None or None in (engines[0].weights_sha256, engines[1].weights_sha256):
        return not_known("the weights of one of the two were not hashed")
    names = ("weights_sha256", "tokenizer_sha256", "chat_template_sha256")
    other = [n.removesuffix("_sha256") for n in names if getattr(engines[0], n) != getattr(engines[1], n)]
    if other:
        return failed(", ".join(other), f"one deployment, and different {', '.join(other)}")
    return passed("equal")


def same_length(first: StepView, second: StepView) -> Check:
    """B3"""
    one, two = first.result.tokens.output_mean, second.result.tokens.output_mean
    if not one or not two:
        return not_applicable("nothing was generated")
    seen = f"{one:.0f} and {two:.0f} tokens"
    if abs(one / two - 1) > 0.10:
        return failed(seen, f"answers are {seen} long: compare requests, not tokens")
    return passed(seen)


def same_warmth(first: StepView, second: StepView) -> Check:
    """D8"""
    one, two = (_start_temperature(view) for view in (first, second))
    if one is None or two is None:
        return not_applicable("no temperature was read")
    seen = f"{one:.0f} and {two:.0f} C"
    if abs(one - two) > 3:
        return failed(seen, f"the steps began at {seen}: warm silicon draws more")
    return passed(seen)


def _start_temperature(view: StepView) -> float | None:
    """The warmest accelerator as the step began."""
    series, start_ns = view.cell.series, view.span.start_ns
    found = [series.column(m, d, "temperature_c").at(start_ns) for m, d in series.with_field("temperature_c")]
    return max((t for t in found if t is not None), default=None)


def same_evidence(first: StepView, second: StepView) -> Check:
    """D12"""
    one, two = first.result.energy, second.result.energy
    if one.value_j is None or two.value_j is None:
        return not_applicable("the energy of one is unknown")
    labels = [(e.evidence, e.boundary) for e in (one, two)]
    if labels[0] != labels[1]:
        seen = " and ".join(f"{evidence} of {boundary}" for evidence, boundary in labels)
        return failed(seen, f"energy of different classes or boundaries ({seen}) is not ranked")
    return passed(f"{one.evidence} of {one.boundary}")


def same_scope(first: StepView, second: StepView) -> Check:
    """D14"""
    one, two = _scopes(first), _scopes(second)
    if not one or not two:
        return not_applicable("no scope is told")
    if one != two:
        seen = f"{', '.join(one)} and {', '.join(two)}"
        return failed(seen, f"power of different scope ({seen}) is not compared")
    return passed(", ".join(one))


def _scopes(view: StepView) -> tuple[str, ...]:
    told = {view.cell.series.meters[m].scope for m in view.result.energy.meters}
    return tuple(sorted(scope for scope in told if scope is not None))


def same_items(first: StepView, second: StepView) -> Check:
    """F1"""
    one, two = first.step.facts, second.step.facts
    if not judged(first) or not judged(second):
        return not_applicable("a speed task has no score")
    differing = [
        n
        for n in ("task", "task_version", "data_sha256", "prompt_sha256", "scoring", "permuted")
        if getattr(one, n) != getattr(two, n)
    ]
    answers = [{(s.sample, s.repeat) for s in view.step.scores} for view in (first, second)]
    if answers[0] != answers[1] and not _ended_early(first, second):
        differing.append(f"answered items ({len(answers[0] ^ answers[1])} in one only)")
    if differing:
        return failed(", ".join(differing), f"not the same questions: {', '.join(differing)}")
    return passed(f"{len(answers[0] & answers[1])} answers")


def _ended_early(first: StepView, second: StepView) -> bool:
    """Whether what one side did not answer is what its stopping rule spared it; those that both have are compared."""
    one, two = ({(s.sample, s.repeat) for s in (*v.step.scores, *v.step.ahead)} for v in (first, second))
    return (one <= two or second.step.ended_by_rule is not None) and (
        two <= one or first.step.ended_by_rule is not None
    )


def same_silence(first: StepView, second: StepView) -> Check:
    """F3"""
    rates = [
        view.result.accuracy.no_answer / view.result.accuracy.scored
        for view in (first, second)
        if view.result.accuracy.scored and view.result.accuracy.no_answer is not None
    ]
    if len(rates) < 2:
        return not_applicable("nothing was judged")
    seen = f"{rates[0]:.1%} and {rates[1]:.1%}"
    if abs(rates[0] - rates[1]) > 0.02:
        return failed(seen, f"no answer was found in {seen}: part of the difference may be the format's")
    return passed(seen)


def same_scorer(first: StepView, second: StepView) -> Check:
    """F4"""
    one, two = first.result.accuracy.scorers, second.result.accuracy.scorers
    if not one or not two:
        return not_applicable("nothing was judged")
    if one != two:
        return failed(f"{', '.join(one)} and {', '.join(two)}", f"judged by {', '.join(one)} and by {', '.join(two)}")
    return passed(", ".join(one))


PAIR_RULES = (
    PairRule(
        id="A2",
        severity="I",
        axis="all",
        title="one deployment, the same files",
        threshold="equal hashes",
        check=same_model,
    ),
    PairRule(
        id="B3",
        severity="R",
        axis="speed",
        title="answers of the same length",
        threshold="means within 10 %",
        check=same_length,
    ),
    PairRule(
        id="D8",
        severity="R",
        axis="energy",
        title="equally warm at the start",
        threshold="within 3 C",
        check=same_warmth,
    ),
    PairRule(
        id="D12",
        severity="I",
        axis="energy",
        title="same class and boundary of energy",
        threshold="equal",
        check=same_evidence,
    ),
    PairRule(
        id="D14",
        severity="I",
        axis="energy",
        title="same scope of accelerator power",
        threshold="equal",
        check=same_scope,
    ),
    PairRule(
        id="F1",
        severity="I",
        axis="accuracy",
        title="same items, prompts and permutations",
        threshold="equal",
        check=same_items,
    ),
    PairRule(
        id="F3",
        severity="I",
        axis="accuracy",
        title="equally often no answer",
        threshold="within 2 points",
        check=same_silence,
    ),
    PairRule(
        id="F4", severity="I", axis="accuracy", title="same version of the scorer", threshold="equal", check=same_scorer
    ),
)
