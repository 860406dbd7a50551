"""Group B: was the work that was asked for the work that was done?"""

import numpy as np

from results.records import Answered
from results.validity.base import Check, Rule, StepView, exceeds, failed, not_applicable, not_known, passed
from results.windows import batch_limit

FEWEST_AUDITED = 10


def done(view: StepView) -> list[Answered]:
    """Generated answers of requests that succeeded."""
    return [a for a in view.step.answered if a.error is None]


def judged(view: StepView) -> bool:
    """Whether the step has answers that a scorer judges; a speed task has none."""
    return view.step.facts.kind != "speed"


def complete(view: StepView) -> Check:
    """B1"""
    records, early = view.step.records, view.step.ended_by_rule
    issued = early.answered if early else view.step.facts.samples
    failures = sum(r.error is not None for r in records)
    if len(records) != issued:
        return failed(f"{len(records)} of {issued}", f"{issued} requests were planned, {len(records)} came to an end")
    limit = 0.0 if judged(view) else 0.01
    if failures > limit * issued:
        return failed(f"{failures} of {issued} failed", f"{failures} of {issued} requests failed")
    return passed(f"{issued} of {issued}")


def counted(view: StepView) -> Check:
    """B2"""
    answers = done(view)
    if not answers:
        return not_applicable("nothing was generated")
    told = sum(a.token_source in ("engine", "usage") and a.output_tokens is not None for a in answers)
    retokenised = sum(a.token_source == "retokenised" for a in answers)
    if told >= 0.99 * len(answers):
        return passed(f"{told} of {len(answers)}")
    if told + retokenised >= 0.99 * len(answers):
        return failed(
            f"{retokenised} retokenised",
            "tokens were counted from the text, not told by the engine: speeds may be off",
            "W",
        )
    return failed(f"{told} of {len(answers)}", f"the engine told the tokens of {told} of {len(answers)} answers only")


def truncated(view: StepView) -> Check:
    """B4"""
    answers = done(view)
    if not answers or not judged(view):
        return not_applicable("no answer with an end of its own")
    cut = sum(a.finish == "length" for a in answers)
    seen, bound = f"{cut} of {len(answers)}", view.profile.by_bound
    if exceeds(cut, len(answers), 0.05, bound):
        return failed(
            seen, f"{seen} answers were cut at the token limit: their accuracy is the limit's, not the model's", "I"
        )
    if exceeds(cut, len(answers), 0.02, False):
        return failed(seen, f"{seen} answers were cut at the token limit", "W")
    return passed(seen)


def thinking(view: StepView) -> Check:
    """B5"""
    flags = [s.flags for s in view.step.scores if s.verdict not in ("truncated", "error")]
    thinks = any(a.think_tokens is not None for a in view.step.answered)
    if not thinks or not flags:
        return not_applicable("no thinking part")
    unclosed, empty = (sum(name in f for f in flags) for name in ("think_unclosed", "think_empty"))
    bound, n = view.profile.by_bound, len(flags)
    if exceeds(unclosed, n, 0.05, bound):
        return failed(f"{unclosed} of {n} unclosed", f"{unclosed} of {n} finished answers never closed their thinking")
    if exceeds(empty, n, 0.10, bound):
        return failed(
            f"{empty} of {n} empty", f"{empty} of {n} answers skipped thinking: not the protocol of a reasoning model"
        )
    if exceeds(empty, n, 0.02, False):
        return failed(f"{empty} of {n} empty", f"{empty} of {n} answers skipped thinking", "W")
    return passed(f"{n - unclosed} of {n} closed")


def loops(view: StepView) -> Check:
    """B6"""
    if not view.step.answered or not view.step.scores:
        return not_applicable("no generated answer was judged")
    looping, n = sum("loop" in s.flags for s in view.step.scores), len(view.step.scores)
    if exceeds(looping, n, 0.05, view.profile.by_bound):
        return failed(f"{looping} of {n}", f"{looping} of {n} answers repeat themselves endlessly", "I")
    if exceeds(looping, n, 0.01, False):
        return failed(f"{looping} of {n}", f"{looping} of {n} answers repeat themselves endlessly", "W")
    return passed(f"{looping} of {n}")


def sampling(view: StepView) -> Check:
    """B7"""
    engine, asked = view.step.engine, {**view.step.facts.sampling, "max_tokens": view.step.facts.max_tokens}
    if not view.step.answered:
        return not_applicable("nothing was generated")
    echoed = {k: v for k, v in (engine.settings if engine else {}).items() if k in asked and asked[k] is not None}
    if not echoed:
        return not_known("the engine does not echo its sampling settings")
    other = {k: v for k, v in echoed.items() if v != asked[k]}
    if other:
        text = ", ".join(f"{k}: asked {asked[k]}, used {v}" for k, v in sorted(other.items()))
        return failed(text, f"the engine sampled otherwise than planned ({text})")
    return passed(", ".join(sorted(echoed)))


def context(view: StepView) -> Check:
    """B8"""
    engine, limit = view.step.engine, view.step.facts.max_tokens
    longest = max((a.prompt_tokens for a in done(view) if a.prompt_tokens is not None), default=None)
    if not view.step.answered:
        return not_applicable("nothing was generated")
    if engine is None or engine.context is None or limit is None or longest is None:
        return not_known("the context, the token limit or the prompt's tokens are not told")
    seen = f"{longest} + {limit} of {engine.context}"
    if longest + limit > engine.context:
        return failed(
            seen, f"prompt and answer ({longest} + {limit} tokens) do not fit the context of {engine.context}"
        )
    return passed(seen)


def cache(view: StepView) -> Check:
    """B9"""
    prompt, cached = view.result.tokens.prompt, view.result.tokens.cached
    if not view.step.answered:
        return not_applicable("a ranking shares prefixes by design")
    if view.cell.facts.settings.get("prefix_caching"):
        return not_applicable("prefix caching is declared in the suite")
    if prompt is None or cached is None:
        return not_known("the engine does not tell cached tokens")
    share = cached / prompt if prompt else 0.0
    if share > 0.01:
        return failed(
            f"{share:.1%}", f"{share:.1%} of the prompt tokens came from a cache: prefill looks faster than it is"
        )
    return passed(f"{share:.1%}")


def asked_again(view: StepView) -> Check:
    """B10"""
    # MLPerf's TEST04 sends one sample again and again; here an item's first request is compared with the repeats that the step has anyway.
    # Items of the first batch are left out: they are read all at once. One odd item decides nothing (exact lower 95 % bound).
    if view.cell.facts.settings.get("prefix_caching"):
        return not_applicable("prefix caching is declared in the suite")
    first, later = _times_by_item(view)
    ratios = {item: float(np.median(later[item])) / first[item] for item in first.keys() & later.keys() if first[item]}
    if not later:
        return not_applicable("no item is asked twice")
    if len(ratios) < FEWEST_AUDITED:
        return not_known(f"{len(ratios)} items were asked again after the first batch, {FEWEST_AUDITED} are needed")
    sooner = sum(ratio < 0.9 for ratio in ratios.values())
    seen = f"median {float(np.median(list(ratios.values()))) - 1:+.0%}"
    if exceeds(sooner, len(ratios), 0.5, by_bound=True):
        return failed(
            seen,
            f"{sooner} of {len(ratios)} items had their first token over 10 % sooner when asked again: a cache answers",
        )
    return passed(seen)


def _times_by_item(view: StepView) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Nanoseconds from start to first text: of each item's first request, first batch left out, and of its later ones."""
    answers, first_batch = sorted(done(view), key=lambda a: a.start_ns), batch_limit(view.step)
    first: dict[str, float] = {}
    later: dict[str, list[float]] = {}
    for place, a in enumerate(answers):
        if a.first_ns is None:
            continue
        taken = float(a.first_ns - a.start_ns)
        if a.repeat:
            later.setdefault(a.sample, []).append(taken)
        elif place >= first_batch:
            first[a.sample] = taken
    return first, later


def speculation(view: StepView) -> Check:
    """B11"""
    engine, names = view.step.engine, drafting(view)
    if names:
        return failed(", ".join(names), "speculative decoding is on: times between tokens mean little")
    return passed("off") if engine else not_known("the engine tells no settings")


def drafting(view: StepView) -> list[str]:
    """Settings of speculative decoding that the engine says are on."""
    settings = view.step.engine.settings if view.step.engine else {}
    return [k for k, v in settings.items() if v and ("draft" in k or "speculative" in k)]


def preemptions(view: StepView) -> Check:
    """B12"""
    counts = [s.preemptions for s in view.step.states if s.preemptions is not None]
    if not counts:
        return not_known("the engine does not tell preemptions")
    new = max(counts) - min(counts)
    if new:
        return failed(f"{new}", f"{new} requests were preempted: more in flight than the cache holds")
    return passed("0")


RULES = (
    Rule(
        id="B1",
        severity="I",
        axis="all",
        title="every planned request came to an end; failures",
        threshold="all; 0 failed (speed tasks <= 1 %)",
        check=complete,
    ),
    Rule(
        id="B2",
        severity="I",
        axis="speed",
        title="tokens counted by the engine",
        threshold=">= 99 % (retokenised: W)",
        check=counted,
        must_know=True,
    ),
    Rule(
        id="B4",
        severity="I",
        axis="accuracy",
        title="answers cut at the token limit",
        threshold="> 2 % W, > 5 % I",
        check=truncated,
    ),
    Rule(
        id="B5",
        severity="I",
        axis="accuracy",
        title="thinking closed, thinking empty",
        threshold="closed >= 95 %; empty > 2 % W, > 10 % I",
        check=thinking,
    ),
    Rule(id="B6", severity="I", axis="accuracy", title="answers that loop", threshold="> 1 % W, > 5 % I", check=loops),
    Rule(
        id="B7",
        severity="I",
        axis="accuracy",
        title="sampling as planned",
        threshold="equal to the engine's echo",
        check=sampling,
    ),
    Rule(
        id="B8",
        severity="I",
        axis="accuracy",
        title="prompt and answer fit the context",
        threshold="prompt + limit <= context",
        check=context,
    ),
    Rule(
        id="B9",
        severity="I",
        axis="speed",
        title="no prompt cache unless declared",
        threshold="cached <= 1 % of prompt tokens",
        check=cache,
    ),
    Rule(
        id="B10",
        severity="I",
        axis="speed",
        title="an item asked again is not answered sooner",
        threshold="time to first token at most 10 % shorter, for half of the items",
        check=asked_again,
    ),
    Rule(id="B11", severity="W", axis="speed", title="speculative decoding", threshold="off", check=speculation),
    Rule(id="B12", severity="R", axis="speed", title="preemptions", threshold="0", check=preemptions),
)
