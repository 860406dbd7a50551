"""Group F: does the score mean what it says?"""

import math
from collections import defaultdict

import numpy as np

from results.anytime import e_value
from results.judging import KAPPA_FLOOR, agreement, kin, said, withheld
from results.manifest import StoppingRule
from results.records import Stopped
from results.validity.base import Check, Rule, StepView, exceeds, failed, not_applicable, not_known, passed
from results.validity.workload import judged

FEWEST_PER_POSITION = 10


def all_scored(view: StepView) -> Check:
    """F1"""
    if not judged(view):
        return not_applicable("a speed task has no score")
    facts, early, scored = view.step.facts, view.step.ended_by_rule, len(view.step.scores)
    wanted = early.items if early else facts.items
    planned = wanted * facts.samples // facts.items
    if not scored:
        return failed("0", "the answers were not scored")
    items = len({s.sample for s in view.step.scores})
    if scored != planned or items != wanted:
        return failed(
            f"{scored} of {planned}", f"{scored} of {planned} answers to {items} of {wanted} items were scored"
        )
    return passed(f"{scored} of {planned}")


def answers_each(view: StepView) -> Check:
    """F2"""
    temperature = view.step.facts.sampling.get("temperature")
    thinks = any(a.think_tokens is not None for a in view.step.answered)
    if not thinks or not judged(view) or not isinstance(temperature, (int, float)) or temperature == 0:
        return not_applicable("not a sampled reasoning model")
    each = view.step.facts.samples / max(1, view.step.facts.items)
    if each < 4:
        text = f"{each:g} answers to each item of a sampled reasoning model; 4 tell the run's own scatter (single-sample result)"
        return failed(f"{each:g}", text, view.profile.short)
    return passed(f"{each:g}")


def answered(view: StepView) -> Check:
    """F3"""
    accuracy = view.result.accuracy
    if not accuracy.scored or accuracy.no_answer is None:
        return not_applicable("nothing was judged")
    seen = f"{accuracy.no_answer} of {accuracy.scored}"
    if exceeds(accuracy.no_answer, accuracy.scored, 0.05, view.profile.by_bound):
        return failed(seen, f"no answer could be found in {seen}", "I")
    if exceeds(accuracy.no_answer, accuracy.scored, 0.02, False):
        return failed(seen, f"no answer could be found in {seen}", "W")
    return passed(seen)


def one_scorer(view: StepView) -> Check:
    """F4"""
    scorers = view.result.accuracy.scorers
    if not scorers:
        return not_applicable("nothing was judged")
    if len(scorers) > 1:
        return failed(", ".join(scorers), f"answers were judged by different versions: {', '.join(scorers)}")
    return passed(scorers[0])


def interval(view: StepView) -> Check:
    """F5"""
    accuracy = view.result.accuracy
    if not accuracy.items:
        return not_applicable("nothing was judged")
    if accuracy.interval.lo is None or accuracy.interval.hi is None:
        return failed("none", "no interval can be given: too few independent items")
    return passed(f"{accuracy.interval.lo:.3f} to {accuracy.interval.hi:.3f}, {accuracy.interval.method}")


def clusters(view: StepView) -> Check:
    """F6"""
    scores = view.step.scores
    if not scores:
        return not_applicable("nothing was judged")
    if any(not s.cluster for s in scores):
        return failed("no cluster", "the items' clusters are not declared")
    items, groups = len({s.sample for s in scores}), len({s.cluster for s in scores})
    if groups < items and "clustered" not in view.result.accuracy.interval.method:
        return failed(
            view.result.accuracy.interval.method, f"{items} items in {groups} clusters, and the interval ignores it"
        )
    return passed(f"{groups} clusters of {items} items")


def early_end(view: StepView) -> Check:
    """F8"""
    stopped, rule = view.step.stopped, view.step.facts.stopping
    if stopped is None:
        return passed("run whole") if rule else not_applicable("the plan has no rule for an early end")
    seen = f"{stopped.decision} after {stopped.items} of {view.step.facts.items} items, e-value {stopped.e_value:.3g}"
    if rule is None:
        return failed(seen, "the step was ended early, and the plan holds no rule for it")
    if broken := broken_rule(stopped, rule):
        return failed(seen, f"the early end is not what the plan's rule allows: {broken}")
    return passed(seen)


def broken_rule(stopped: Stopped, rule: StoppingRule) -> str:
    """What of a recorded early end contradicts its rule, computed again from its counts; empty where nothing does."""
    b, c = stopped.only_candidate, stopped.only_baseline
    margin, limits = rule.futility_margin, (stopped.lo, stopped.hi)
    if stopped.items % rule.look_every or stopped.items < rule.fewest_items:
        return f"{stopped.items} items are none of its looks"
    if not b + c <= stopped.pairs <= stopped.items:
        return f"{b} and {c} discordant of {stopped.pairs} pairs in {stopped.items} items do not fit"
    if not math.isclose(stopped.e_value, e_value(b, c), rel_tol=1e-6):
        return f"{b} and {c} discordant items give an e-value of {e_value(b, c):.3g}, not {stopped.e_value:.3g}"
    if stopped.decision == "different" and stopped.e_value < 1 / rule.alpha:
        return f"an e-value of {stopped.e_value:.3g} is below {1 / rule.alpha:g}"
    if stopped.decision == "futile" and (margin is None or any(x is None or abs(x) >= margin for x in limits)):
        return "the interval does not lie within its margin"
    return ""


def position(view: StepView) -> Check:
    """F9"""
    if view.step.facts.kind != "choice":
        return not_applicable("no options")
    by_target: dict[str, list[float]] = defaultdict(list)
    for score in view.step.scores:
        if score.target is not None and score.value is not None:
            by_target[score.target].append(score.value)
    if len(by_target) < 2 or len(by_target) > 10 or min(len(v) for v in by_target.values()) < FEWEST_PER_POSITION:
        return not_known("too few answers for each position of the right option")
    recalls = {name: float(np.mean(values)) for name, values in by_target.items()}
    spread = float(np.std(list(recalls.values()))) * 100
    seen = f"RStd {spread:.1f} pp"
    if spread > 5:
        parts = ", ".join(f"{name} {recall:.0%}" for name, recall in sorted(recalls.items()))
        return failed(seen, f"recall depends on the position of the right option ({parts})")
    return passed(seen)


def knows_its_language(view: StepView) -> Check:
    """F10"""
    told = [s.self_test for s in view.step.scores if s.self_test is not None]
    if not told:
        if view.step.facts.kind == "summary" and view.step.scores:
            return not_known("the scorer did not record what it gives a reference itself")
        return not_applicable("no text is compared by its words")
    if min(told) < 1 - 1e-9:
        bad = sum(t < 1 - 1e-9 for t in told)
        text = f"{bad} of {len(told)} references score less than 1 against themselves, down to {min(told):.2f}"
        return failed(f"{min(told):.2f}", f"{text}: the scorer does not know their words")
    return passed(f"1.00 in {len(told)}")


def errors_are_errors(view: StepView) -> Check:
    """F11"""
    if not view.step.scores:
        return not_applicable("nothing was judged")
    wrong = [s.sample for s in view.step.scores if (s.verdict == "error") != (s.value is None)]
    if wrong:
        return failed(f"{len(wrong)} scores", f"an error has a score or a verdict has none, e.g. `{wrong[0]}`")
    return passed("kept apart")


def judge_agrees(view: StepView) -> Check:
    """F12"""
    judged = view.cell.judged.get(view.step.facts.name)
    if judged is None:
        return not_applicable("no judge was asked")
    found = agreement(judged)
    if judged.reason or found is None:
        return not_known(f"the summaries were not judged: {judged.reason}")
    if why := withheld(judged):
        return failed(said(found), f"the figures of `{judged.judge}` are withheld: {why}")
    if kin(judged) is None:
        return not_known("the names do not tell whether judge and judged are of one family")
    return passed(said(found))


def provenance(view: StepView) -> Check:
    """F13"""
    facts = view.step.facts
    if not judged(view):
        return not_applicable("a speed task has no score")
    if facts.public:
        return failed(
            "public", "the items were public before the models were trained: levels are no evidence of clinical ability"
        )
    if facts.synthetic:
        return failed("synthetic", "the items were written for this project and not reviewed by a clinician")
    return passed("neither public nor synthetic")


RULES = (
    Rule(
        id="F1", severity="I", axis="accuracy", title="every planned answer scored", threshold="all", check=all_scored
    ),
    Rule(
        id="F2",
        severity="I",
        axis="accuracy",
        title="answers to each item of a sampled reasoning model",
        threshold=">= 4 (smoke: W)",
        check=answers_each,
    ),
    Rule(id="F3", severity="I", axis="accuracy", title="no answer found", threshold="> 2 % W, > 5 % I", check=answered),
    Rule(id="F4", severity="I", axis="accuracy", title="one version of the scorer", threshold="1", check=one_scorer),
    Rule(id="F5", severity="I", axis="accuracy", title="interval given", threshold="present", check=interval),
    Rule(
        id="F6",
        severity="I",
        axis="accuracy",
        title="clusters declared and used",
        threshold="clustered where shared",
        check=clusters,
    ),
    Rule(
        id="F8",
        severity="I",
        axis="accuracy",
        title="early end only by the plan's rule",
        threshold="e-value >= 1 / alpha, or interval within the margin, at a look of the plan",
        check=early_end,
    ),
    Rule(
        id="F9",
        severity="W",
        axis="accuracy",
        title="bias to a position of the options",
        threshold="RStd <= 5 pp",
        check=position,
    ),
    Rule(
        id="F10",
        severity="I",
        axis="accuracy",
        title="the scorer knows the language's words",
        threshold="a text scores 1 against itself",
        check=knows_its_language,
    ),
    Rule(
        id="F11",
        severity="I",
        axis="accuracy",
        title="errors of a metric are errors, not zeros",
        threshold="no score",
        check=errors_are_errors,
    ),
    Rule(
        id="F12",
        severity="W",
        axis="accuracy",
        title="a judge agrees with labelled statements and is of another family",
        threshold=f"kappa's lower 95 % limit >= {KAPPA_FLOOR:g} on 72 of them; else its figures are withheld",
        check=judge_agrees,
    ),
    Rule(
        id="F13",
        severity="W",
        axis="accuracy",
        title="origin of the items",
        threshold="neither public nor synthetic",
        check=provenance,
    ),
)
