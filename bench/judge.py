"""Ask a judge about the summaries of a run when all of its cells have ended (docs/judge.md).

The judge is a deployment like any other and runs in the same kind of worker, but nothing of it is measured. It answers the labelled
statements that ship, then the statements of every finished summary step; its records stand in the run's `judge/` folder, and what it
said of a step is appended to the events of that step's cell.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from bench.catalogue import Recipe, find
from bench.checkout import checkout
from bench.config import ConfigError, Load, Suite, TaskOptions, engine_settings
from bench.job import JobStep
from bench.plan import CellPlan, can_rank, cell_of
from bench.render import Asking, StepPlan, TaskData, render_step
from bench.runner import CellRun, Limits, Privacy, Watcher, run_cell
from bench.score import answer_of, score_cell
from bench.summaries import NOT_HERE, Answers, Told, finished, language_of
from hardware import describe_host, fingerprint
from results.manifest import StepFacts
from results.records import Answered, Judged, LabelJudged, Loaded, Outcome, Scored, StatementJudged
from results.store import Lines, RunDir
from tasks import Language, Sample
from tasks.judging import (
    JUDGING,
    ORDERS,
    Label,
    is_judged,
    label_questions,
    labelled,
    questions,
    statements,
    verdict,
    vote,
)

if TYPE_CHECKING:
    from bench.session import Prepared

IN_FLIGHT = 8
"""Questions asked at once of a judge that writes its answers; rankings fill the engine's batch by themselves."""
STATEMENTS_EXPECTED = 6
"""Rough: sentences of a summary, for the estimate of the time that judging takes."""

Settle = Callable[[CellPlan], CellPlan]


class Judging(msgspec.Struct, frozen=True, kw_only=True):
    """A finished summary step with the questions about it; none where its summaries state nothing or are not there."""

    cell: CellPlan
    facts: StepFacts
    language: Language
    data: TaskData | None = None
    plan: StepPlan | None = None
    summaries: int = 0
    why_not: str = ""

    @property
    def name(self) -> str:
        """Of the judge's own step."""
        return f"{self.cell.facts.id}/{self.facts.name}"


def expected(suite: Suite, data: Mapping[str, TaskData]) -> CellPlan | None:
    """The judge's cell as far as it is known before there is an answer: the labelled statements of the languages it is needed in.

    Raises `ConfigError` when the suite has nothing to judge.
    """
    if suite.judge is None:
        return None
    languages = list(dict.fromkeys(d.task.language for d in data.values() if is_judged(d.task)))
    if not languages:
        raise ConfigError(
            f"suite `{suite.name}`: [judge] is given and no task is judged; add note_summary_en or note_summary_zh, or leave it out"
        )
    settings, entry = engine_settings(suite.judge), find(suite.judge)
    return cell_of(suite, suite.judge, settings, entry, tuple(_labels(suite, language)[1] for language in languages))


def expected_seconds(judge: CellPlan, cells: Sequence[CellPlan]) -> float | None:
    """Rough: a statement of a summary takes as long as a labelled one."""
    labels, seconds = sum(s.facts.samples for s in judge.steps), judge.facts.prediction.seconds
    summaries = sum(s.facts.samples for c in cells if not c.facts.skipped for s in c.steps if s.facts.kind == "summary")
    return seconds * (1 + summaries * STATEMENTS_EXPECTED * ORDERS / labels) if seconds is not None else None


def judge(prepared: "Prepared", run: RunDir, told: Answers, settle: Settle, watcher: Watcher) -> None:
    """Judge every finished summary step that is not judged yet.

    `settle` puts the judge's weights on disk. A judge that cannot be had, dies or hangs leaves its reason at the steps; the run's own
    figures stay what they are. When the run is resumed it is asked again, unless its memory did not suffice.
    """
    wanted = tuple(_wanted(prepared, run, told))
    missing = [w for w in wanted if not _is_judged(run, w)]
    if missing:
        outcome, detail = _ask(prepared, run, wanted, settle, watcher)
        _record(prepared, run, missing, f"the judge ended as {outcome}" + (f": {detail}" if detail else ""))


def judge_again(prepared: "Prepared", run: RunDir) -> None:
    """From its raw answers, where there are any: votes and verdicts of this version."""
    if prepared.judge is None or not run.judge().path.exists():
        return
    wanted = tuple(_wanted(prepared, run, {}))
    data, plan = _whole(prepared, wanted)
    run.judge().write_scores(score_cell(plan, data, run.judge().events(), prepared.suite.seed))
    _record(prepared, run, [w for w in wanted if _is_judged(run, w)], "its answers are not there any more")


def _ask(
    prepared: "Prepared", run: RunDir, wanted: Sequence[Judging], settle: Settle, watcher: Watcher
) -> tuple[Outcome, str]:
    """Run the judge's worker for what it has not answered yet."""
    data, plan = _whole(prepared, wanted)
    folder = run.judge()
    done, ended = frozenset(folder.finished_steps()), folder.ended()
    if plan.facts.skipped:
        return "skipped", plan.facts.skipped
    privacy = Privacy(store_text=prepared.suite.store_text, redact=prepared.suite.redact)
    if all(s.facts.name in done for s in plan.steps):  # killed between the last answer and its being written down
        if privacy.plain:
            folder.write_scores(score_cell(plan, data, folder.events(), prepared.suite.seed))
        return "ok", ""
    if ended and ended.outcome == "oom":
        return "oom", ended.detail
    try:
        settled = settle(plan)
    except ConfigError as error:
        return "skipped", str(error)
    watcher.judge(settled)
    suite = prepared.suite
    job = CellRun(
        cell=settled,
        data=data,
        out=folder,
        limits=Limits(load_timeout_s=suite.load_timeout_s, stall_timeout_s=suite.stall_timeout_s, idle_s=0.0),
        privacy=privacy,
        seed=suite.seed,
        fingerprint=lambda: fingerprint(describe_host()),
        code=checkout(),
    )
    outcome = run_cell(job, lambda _: (), watcher)
    ended = folder.ended()
    return outcome, ended.detail if ended else ""


def _labels(suite: Suite, language: Language) -> tuple[TaskData, StepPlan]:
    return _step(suite, f"labels_{language}", language, label_questions(language))


def _step(suite: Suite, name: str, language: Language, samples: tuple[Sample, ...]) -> tuple[TaskData, StepPlan]:
    """Questions as a step of the judge's cell; without a warm-up, since nobody times it."""
    assert suite.judge is not None
    entry, load = find(suite.judge), Load(concurrency=IN_FLIGHT)
    asking = Asking(
        recipe=entry.recipe if entry else Recipe(),
        sampling=suite.judge.sampling,
        can_rank=can_rank(engine_settings(suite.judge)),
    )
    options = TaskOptions(scoring=suite.judge.scoring, samples_per_item=1)
    digest = hashlib.sha256(msgspec.json.encode(samples)).hexdigest()
    data = TaskData(JUDGING[language], options, samples, digest)
    facts, job = render_step(data, asking, load, 0, suite.seed)
    return data, StepPlan(
        facts=msgspec.structs.replace(facts, name=name, task=name),
        job=msgspec.structs.replace(job, name=name),
        warmup=JobStep(name=f"warmup:{name}", load=load, seed=suite.seed),
    )


def _whole(prepared: "Prepared", wanted: Iterable[Judging]) -> tuple[dict[str, TaskData], CellPlan]:
    """The judge's cell with all its questions; those answered before are among them, so that their scores stay."""
    planned = prepared.judge
    assert planned is not None
    data = {s.facts.name: _labels(prepared.suite, language_of(s.facts))[0] for s in planned.steps}
    data |= {w.name: w.data for w in wanted if w.data}
    steps = (*planned.steps, *(w.plan for w in wanted if w.plan))
    return data, msgspec.structs.replace(planned, steps=steps, idle_s=0.0)


def _wanted(prepared: "Prepared", run: RunDir, told: Answers) -> Iterator[Judging]:
    """Every finished summary step of the run with the questions about it."""
    for found in finished(prepared, run, told, is_judged):
        bare = Judging(cell=found.cell, facts=found.facts, language=found.language)
        if found.answers is None:
            yield msgspec.structs.replace(bare, why_not=NOT_HERE)
            continue
        bare = msgspec.structs.replace(bare, summaries=len(found.answers))
        asked = _questions(prepared, found, found.answers)
        if asked:
            data, plan = _step(prepared.suite, bare.name, found.language, asked)
            bare = msgspec.structs.replace(bare, data=data, plan=plan)
        yield bare


def _questions(prepared: "Prepared", told: Told, answers: Sequence[Answered]) -> tuple[Sample, ...]:
    notes = {sample.id: sample.input for sample in prepared.data[told.facts.task].samples}
    return tuple(
        question
        for a in answers
        if a.sample in notes
        for number, statement in enumerate(statements(answer_of(a), told.language))
        for question in questions(told.language, f"{a.sample}/{a.repeat}/{number}", notes[a.sample], statement)
    )


def _is_judged(run: RunDir, judging: Judging) -> bool:
    events = run.cell(judging.cell.facts.id).events()
    return any(isinstance(e, Judged) and e.step == judging.facts.name and not e.reason for e in events)


def _record(prepared: "Prepared", run: RunDir, judged: Sequence[Judging], why_not: str) -> None:
    """Append what the judge said of each step to the events of its cell, or why it said nothing."""
    folder, suite, planned = run.judge(), prepared.suite, prepared.judge
    assert suite.judge is not None
    assert planned is not None
    done, by_step = frozenset(folder.finished_steps()), defaultdict[str, list[Scored]](list)
    for score in folder.scores():
        by_step[score.step].append(score)
    engine = next((e.engine for e in reversed(list(folder.events())) if isinstance(e, Loaded)), None)
    candidates = _names(prepared, run)
    for w in judged:
        labels = next(s.facts for s in planned.steps if s.facts.language == w.language)
        heard = labels.name in done and (w.plan is None or w.name in done)
        record = Judged(
            time_ns=time.monotonic_ns(),
            step=w.facts.name,
            judge=planned.facts.deployment,
            names=_named(planned.facts.family, suite.judge.model, suite.judge.file, engine.model if engine else None),
            candidates=candidates,
            engine=engine.engine if engine else None,
            engine_version=engine.engine_version if engine else None,
            weights_sha256=engine.weights_sha256 if engine else None,
            scoring=labels.scoring,
            version=JUDGING[w.language].version,
            language=w.language,
            prompt_sha256=w.plan.facts.prompt_sha256 if w.plan else None,
            labels_sha256=labels.data_sha256,
            labels=_labels_judged(w.language, by_step[labels.name]) if heard else (),
            statements=_statements_judged(by_step[w.name]) if heard else (),
            summaries=w.summaries,
            reason=w.why_not or ("" if heard else why_not),
        )
        with Lines(run.cell(w.cell.facts.id).path / "events.jsonl") as events:
            events.append(record)
            events.sync()


def _names(prepared: "Prepared", run: RunDir) -> tuple[str, ...]:
    """What is known of who is judged: every deployment of the run."""
    found: list[str] = []
    for cell in prepared.cells:
        loaded = [e.engine.model for e in run.cell(cell.facts.id).events() if isinstance(e, Loaded)]
        found += _named(cell.facts.family, cell.deployment.model, cell.deployment.file, *loaded[-1:])
    return tuple(dict.fromkeys(found))


def _named(*names: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def _verdicts(scores: Iterable[Scored]) -> dict[str, str]:
    """By the name of the statement: what its three votes come to."""
    votes = defaultdict[str, list[Label | None]](list)
    for score in scores:
        letter = None if score.verdict == "error" else vote(score.sample, score.answer)
        votes[score.sample.rpartition("~")[0]].append(letter)
    return {name: verdict(found) for name, found in votes.items()}


def _labels_judged(language: Language, scores: Iterable[Scored]) -> tuple[LabelJudged, ...]:
    said = _verdicts(scores)
    return tuple(
        LabelJudged(id=row.id, note=row.note, label=row.label, verdict=said.get(row.id, "error"))
        for row in labelled(language)
    )


def _statements_judged(scores: Iterable[Scored]) -> tuple[StatementJudged, ...]:
    found = []
    for name, said in _verdicts(scores).items():
        sample, repeat, number = name.rsplit("/", 2)
        found.append(StatementJudged(sample=sample, repeat=int(repeat), statement=int(number), verdict=said))
    return tuple(found)
