"""From raw answers to scores: joins a cell's records with the samples they belong to. Pure but for reading the records."""

from collections.abc import Iterable, Mapping

from bench.plan import CellPlan
from bench.render import StepPlan, TaskData, arranged_sample
from results.records import Answered, Event, Ranked, Scored, StepEnded, StepStarted
from tasks import Answer, Sample, Score


def score_cell(cell: CellPlan, data: Mapping[str, TaskData], events: Iterable[Event], seed: int) -> list[Scored]:
    """Scores of every finished step, in the order of the records. Warm-ups and speed steps have none."""
    steps = {step.facts.name: step for step in cell.steps}
    open_steps: dict[str, list[Answered | Ranked]] = {}
    scores: list[Scored] = []
    for event in events:
        match event:
            case StepStarted():
                open_steps[event.step] = []
            case Answered() | Ranked() if event.step in steps and event.step in open_steps:
                open_steps[event.step].append(event)
            case StepEnded() if event.step in steps:
                step = steps[event.step]
                scores += score_step(step, data[step.facts.task], open_steps.pop(event.step, []), seed)
            case _:
                pass
    return scores


def score_step(step: StepPlan, data: TaskData, records: Iterable[Answered | Ranked], seed: int) -> list[Scored]:
    """One score for each record of a step."""
    if data.task.kind == "speed":
        return []
    samples = {sample.id: sample for sample in data.samples}
    return [
        scored(step, data, arranged_sample(data, samples[r.sample], r.repeat, seed), r)
        for r in records
        if r.sample in samples
    ]


def scored(step: StepPlan, data: TaskData, sample: Sample, record: Answered | Ranked) -> Scored:
    """Judge one answer. A request that failed is an error and never an answer; a scorer that throws is an error, not a zero."""
    task = data.task
    if record.error is not None:
        score = Score(value=None, verdict="error", detail=record.error)
    else:
        try:
            score = task.score(sample, step.facts.scoring, answer_of(record))
        except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, RecursionError) as error:
            score = Score(value=None, verdict="error", detail=f"scorer failed: {type(error).__name__}: {error}")
    return Scored(
        step=record.step,
        sample=record.sample,
        repeat=record.repeat,
        value=score.value,
        verdict=score.verdict,
        answer=score.answer,
        target=sample.target if len(sample.target) <= 40 else None,
        cluster=sample.cluster or sample.id,
        tags=sample.tags,
        metrics=score.metrics,
        flags=score.flags,
        scorer=f"{task.name}/{task.version}",
        detail=score.detail,
    )


def answer_of(record: Answered | Ranked) -> Answer:
    if isinstance(record, Ranked):
        return Answer(
            logprobs=tuple(c.logprob for c in record.continuations),
            tokens=tuple(c.tokens for c in record.continuations),
        )
    return Answer(text=record.text or "", reasoning=record.reasoning, finish=record.finish)
