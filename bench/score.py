"""From raw answers to scores: joins a cell's records with the samples they belong to. Pure but for reading the records."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.backends import RankRequest, Request
from bench.plan import CellPlan
from bench.render import StepPlan, TaskData, arranged_sample
from results.records import Answered, Event, Ranked, Scored, StepEnded, StepStarted
from tasks import Answer, Sample, Score, Task

Together = Callable[[Sequence[tuple[Sample, Answer]]], Sequence[Score]]
SCORER_ERRORS = (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, RecursionError, AssertionError)


def score_cell(cell: CellPlan, data: Mapping[str, TaskData], events: Iterable[Event], seed: int) -> list[Scored]:
    """Scores of every finished step, in the order of the records; of one that was ended early in the order of the plan, since what
    is said of it rests on its first items. Warm-ups and speed steps have none."""
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
                records = open_steps.pop(event.step, [])
                if event.stopped:
                    records = in_planned_order(step, records)
                scores += score_step(step, data[step.facts.task], records, seed)
            case _:
                pass
    return scores


def score_step(step: StepPlan, data: TaskData, records: Iterable[Answered | Ranked], seed: int) -> list[Scored]:
    """One score for each record of a step."""
    if data.task.kind == "speed":
        return []
    samples = {sample.id: sample for sample in data.samples}
    asked = [
        (arranged_sample(data, samples[record.sample], record.repeat, seed), record)
        for record in records
        if record.sample in samples
    ]
    if data.task.together is not None:
        return _scored_together(data.task, data.task.together, asked)
    return [scored(step, data, sample, record) for sample, record in asked]


def in_planned_order(step: StepPlan, records: Iterable[Answered | Ranked]) -> list[Answered | Ranked]:
    asked: list[Request | RankRequest] = [*step.job.requests, *step.job.ranks]
    places = {(r.id, r.repeat): i for i, r in enumerate(asked)}
    return sorted(records, key=lambda r: places.get((r.sample, r.repeat), len(places)))


def scored(step: StepPlan, data: TaskData, sample: Sample, record: Answered | Ranked) -> Scored:
    """Judge one answer. A request that failed is an error and never an answer; a scorer that throws is an error, not a zero."""
    task = data.task
    if record.error is not None:
        score = Score(value=None, verdict="error", detail=record.error)
    else:
        try:
            score = task.score(sample, step.facts.scoring, answer_of(record))
        except SCORER_ERRORS as error:
            score = Score(value=None, verdict="error", detail=f"scorer failed: {type(error).__name__}: {error}")
    return _line(task, sample, record, score)


def _scored_together(task: Task, together: Together, asked: Sequence[tuple[Sample, Answered | Ranked]]) -> list[Scored]:
    """As `scored`, for a task that judges all answers of a step at once: each repeat by itself."""
    lines: dict[int, Scored] = {}
    for repeat in sorted({record.repeat for _, record in asked}):
        places = [i for i, (_, record) in enumerate(asked) if record.repeat == repeat]
        good = [i for i in places if asked[i][1].error is None]
        try:
            scores = together([(asked[i][0], answer_of(asked[i][1])) for i in good]) if good else ()
        except SCORER_ERRORS as error:
            why = f"scorer failed: {type(error).__name__}: {error}"
            scores = [Score(value=None, verdict="error", detail=why) for _ in good]
        made = dict(zip(good, scores, strict=True))
        for i in places:
            sample, record = asked[i]
            failed = Score(value=None, verdict="error", detail=record.error or "")
            lines[i] = _line(task, sample, record, made.get(i, failed))
    return [lines[i] for i in range(len(asked))]


def _line(task: Task, sample: Sample, record: Answered | Ranked, score: Score) -> Scored:
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
        self_test=score.self_test,
    )


def answer_of(record: Answered | Ranked) -> Answer:
    if isinstance(record, Ranked):
        return Answer(
            logprobs=tuple(c.logprob for c in record.continuations),
            tokens=tuple(c.tokens for c in record.continuations),
        )
    return Answer(text=record.text or "", reasoning=record.reasoning, finish=record.finish)
