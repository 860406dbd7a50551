"""Tasks whose scorer sees all answers of a step at once."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.catalogue import Recipe
from bench.config import Load, SamplingOptions, TaskOptions
from bench.render import Asking, StepPlan, load_tasks, render_step
from bench.score import score_step
from results.records import Continuation, Ranked, Scored
from tasks import TASKS, Answer, Rank, Sample, Score, Task

PAIR = tuple(Sample(id=f"{d}/{k}", input=f"{d}{k}", target="", cluster=d) for d in "ab" for k in (0, 1))


def task(together: object) -> Task:
    return msgspec.structs.replace(
        TASKS["clinical_qa_en"],
        name="pairs",
        load=lambda path: PAIR,
        prompt=lambda sample, scoring: Rank(context=sample.input, continuations=(" x",)),
        together=together,
    )


def first_wins(pairs: Sequence[tuple[Sample, Answer]]) -> Sequence[Score]:
    """Right when the document's first context has the higher log-likelihood."""
    found = {sample.id: answer.logprobs[0] for sample, answer in pairs}
    right = {s.cluster: found.get(f"{s.cluster}/0", 0.0) > found.get(f"{s.cluster}/1", 0.0) for s, _ in pairs}
    return [Score(value=float(right[s.cluster]), verdict="correct" if right[s.cluster] else "wrong") for s, _ in pairs]


def scores(together: object, logprobs: dict[tuple[str, int], float | None]) -> list[Scored]:
    data = load_tasks({"pairs": TaskOptions()}, {"pairs": task(together)}, None, 0, Path())["pairs"]
    facts, job = render_step(data, Asking(recipe=Recipe(), sampling=SamplingOptions()), Load(concurrency=1), 0, 0)
    step = StepPlan(facts=facts, job=job, warmup=job)
    records = [
        Ranked(
            step=step.facts.name,
            sample=sample,
            repeat=repeat,
            start_ns=0,
            end_ns=1,
            continuations=() if value is None else (Continuation(value, 1),),
            error="no memory" if value is None else None,
        )
        for (sample, repeat), value in logprobs.items()
    ]
    return score_step(step, data, records, 0)


def test_answers_are_judged_together_and_come_back_in_their_order() -> None:
    made = scores(first_wins, {("b/0", 0): -9.0, ("a/1", 0): -5.0, ("a/0", 0): -1.0, ("b/1", 0): -2.0})
    assert [(s.sample, s.verdict, s.cluster) for s in made] == [
        ("b/0", "wrong", "b"),
        ("a/1", "correct", "a"),
        ("a/0", "correct", "a"),
        ("b/1", "wrong", "b"),
    ]


def test_repeats_are_judged_apart() -> None:
    made = scores(first_wins, {("a/0", 0): -1.0, ("a/1", 0): -2.0, ("a/0", 1): -3.0, ("a/1", 1): -2.0})
    assert [s.verdict for s in made] == ["correct", "correct", "wrong", "wrong"]


def test_a_failed_request_is_an_error_and_not_shown_to_the_scorer() -> None:
    made = scores(first_wins, {("a/0", 0): None, ("a/1", 0): -2.0})
    assert [(s.verdict, s.detail) for s in made] == [("error", "no memory"), ("correct", "")]


def test_a_scorer_that_throws_makes_errors_and_no_zeros() -> None:
    def throws(pairs: Sequence[tuple[Sample, Answer]]) -> Sequence[Score]:
        raise ValueError("odd")

    made = scores(throws, {("a/0", 0): -1.0})
    assert [(s.value, s.verdict, s.detail) for s in made] == [(None, "error", "scorer failed: ValueError: odd")]
