"""A cell's records put in order: attempts, loads, and for each step the records that count.

`StepStarted` voids what the step wrote before (a run that was cut and resumed), so the last start of a step is the one that counts.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from results.energy import Where, where_of
from results.manifest import CellFacts, Manifest, StepFacts
from results.records import (
    Answered,
    CellEnded,
    CellStarted,
    Compared,
    EngineInfo,
    EngineState,
    Event,
    Judged,
    Loaded,
    MemoryProbed,
    Ranked,
    Scored,
    StepEnded,
    StepStarted,
    Stopped,
    Telemetry,
)
from results.series import Series, Window, between


class StepRecords(Struct, frozen=True, kw_only=True):
    """What counts of one step. `span` is `None` until the step has ended."""

    facts: StepFacts
    start_ns: int | None = None
    span: Window | None = None
    answered: tuple[Answered, ...] = ()
    ranked: tuple[Ranked, ...] = ()
    states: tuple[EngineState, ...] = ()
    scores: tuple[Scored, ...] = ()
    """Of a step that was ended early: of the items that were judged at the end, in the order of the plan."""
    ahead: tuple[Scored, ...] = ()
    """Of a step that was ended early: of later items, answered before some of the judged ones. Counted, and part of no estimate."""
    stopped: Stopped | None = None
    attempt: CellStarted | None = None
    """The start of the worker that ran this step."""
    loaded: Loaded | None = None
    """The load that this step ran on."""
    idle_before: Window | None = None
    """From the first reading of the attempt to the start of the worker: nothing of ours runs."""
    idle_loaded: Window | None = None
    """From the end of loading to the first step: the model is in memory, no request."""
    idle_after: Window | None = None
    """From the end of the worker to the last reading of the attempt."""

    @property
    def records(self) -> tuple[Answered | Ranked, ...]:
        """Everything that came to an end, generated and ranked."""
        return (*self.answered, *self.ranked)

    @property
    def engine(self) -> EngineInfo | None:
        return self.loaded.engine if self.loaded else None

    @property
    def where(self) -> Where | None:
        """Which part of the machine does the work; `None` where the engine does not say."""
        return where_of(self.engine.device if self.engine else None)

    @property
    def sequential(self) -> bool:
        """Its own answers had a say in how many there are, whether or not they ended it: a fixed-n interval would claim too much."""
        return self.facts.stopping is not None or self.stopped is not None

    @property
    def ended_by_rule(self) -> Stopped | None:
        """The early end, where the plan had a rule for one."""
        return self.stopped if self.facts.stopping else None


class CellRecords(Struct, frozen=True, kw_only=True):
    """One cell of one run. `series` holds its telemetry."""

    run: str
    created_utc: str = ""
    profile: str
    host: dict[str, Any]
    facts: CellFacts
    series: Series
    started: tuple[CellStarted, ...]
    loads: tuple[Loaded, ...]
    ended: CellEnded | None
    """Of the last attempt; `None` while it runs, or when the parent was killed."""
    probed: MemoryProbed | None = None
    """The last search for the smallest memory."""
    judged: dict[str, Judged] = {}
    """By step: what a judge made of its summaries, last."""
    compared: dict[str, Compared] = {}
    """By step: what an encoder made of them, last."""
    steps: tuple[StepRecords, ...]
    """Measured steps and warm-ups, in the order of the plan."""

    @property
    def outcome(self) -> str:
        if self.facts.skipped is not None:
            return "skipped"
        return self.ended.outcome if self.ended else "interrupted"


class _Step:
    """What is gathered of a step while the records are read."""

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self.end_ns: int | None = None
        self.stopped: Stopped | None = None
        self.answered: list[Answered] = []
        self.ranked: list[Ranked] = []


class _Gathered:
    """What is gathered of a cell while its records are read."""

    def __init__(self) -> None:
        self.steps: dict[str, _Step] = {}
        self.started: list[CellStarted] = []
        self.loads: list[Loaded] = []
        self.states: list[EngineState] = []
        self.ends: list[CellEnded] = []
        self.probed: MemoryProbed | None = None
        self.judged: dict[str, Judged] = {}
        self.compared: dict[str, Compared] = {}

    def take(self, event: Event) -> None:
        match event:
            case Answered(step=step) if step in self.steps:  # nearly all of them, so it is asked first
                self.steps[step].answered.append(event)
            case Ranked(step=step) if step in self.steps:
                self.steps[step].ranked.append(event)
            case StepStarted(step=step, time_ns=time_ns):
                self.steps[step] = _Step(time_ns)
            case StepEnded(step=step, time_ns=time_ns) if step in self.steps:
                self.steps[step].end_ns = time_ns
                self.steps[step].stopped = event.stopped
            case CellStarted():
                self.started.append(event)
            case Loaded():
                self.loads.append(event)
            case EngineState():
                self.states.append(event)
            case CellEnded():
                self.ends.append(event)
            case MemoryProbed():
                self.probed = event
            case Judged():
                self.judged[event.step] = event
            case Compared():
                self.compared[event.step] = event
            case _:
                pass  # a record of a step that never started: cut out of the middle of a file


def read_cell(
    manifest: Manifest,
    facts: CellFacts,
    events: Iterable[Event],
    telemetry: Iterable[Telemetry],
    scores: Iterable[Scored],
) -> CellRecords:
    """Put one cell's records in order."""
    gathered = _Gathered()
    for event in events:
        gathered.take(event)
    by_step: dict[str, list[Scored]] = {}
    for score in scores:
        by_step.setdefault(score.step, []).append(score)
    series = Series(telemetry)
    started = tuple(sorted(gathered.started, key=lambda s: s.time_ns))
    last_start_ns = started[-1].time_ns if started else 0
    ended = next((e for e in reversed(gathered.ends) if e.time_ns >= last_start_ns), None)
    return CellRecords(
        run=manifest.run,
        created_utc=manifest.created_utc,
        profile=manifest.profile,
        host=manifest.host,
        facts=facts,
        series=series,
        started=started,
        loads=tuple(gathered.loads),
        ended=ended,
        probed=gathered.probed,
        judged=gathered.judged,
        compared=gathered.compared,
        steps=tuple(_step(step, gathered, by_step.get(step.name, []), series) for step in facts.steps),
    )


def _step(facts: StepFacts, gathered: _Gathered, scores: list[Scored], series: Series) -> StepRecords:
    found = gathered.steps.get(facts.name)
    if found is None:
        return StepRecords(facts=facts)
    before, loaded, after = _idle(gathered, found.start_ns, series)
    span = Window(found.start_ns, found.end_ns) if found.end_ns is not None else None
    until_ns = found.end_ns if found.end_ns is not None else found.start_ns
    judged = found.stopped.items * facts.samples // facts.items if found.stopped else len(scores)
    return StepRecords(
        facts=facts,
        start_ns=found.start_ns,
        span=span,
        answered=tuple(found.answered),
        ranked=tuple(found.ranked),
        states=tuple(s for s in gathered.states if found.start_ns <= s.time_ns <= until_ns),
        scores=tuple(scores[:judged]),
        ahead=tuple(scores[judged:]),
        stopped=found.stopped,
        attempt=max((s for s in gathered.started if s.time_ns <= found.start_ns), key=_start, default=None),
        loaded=next((x for x in reversed(gathered.loads) if x.end_ns <= found.start_ns), None),
        idle_before=before,
        idle_loaded=loaded,
        idle_after=after,
    )


def _start(attempt: CellStarted) -> int:
    return attempt.time_ns


def _idle(gathered: _Gathered, at_ns: int, series: Series) -> tuple[Window | None, Window | None, Window | None]:
    """Idle windows of the attempt in which the step started: bare before, loaded, bare after.

    The sampler runs for a while before the worker is started (`CellStarted`) and after it has gone.
    """
    telemetry = series.span_ns()
    starts = sorted(s.time_ns for s in gathered.started)
    begin_ns = max((t for t in starts if t <= at_ns), default=None)
    if telemetry is None or begin_ns is None:
        return None, None, None
    next_ns = min((t for t in starts if t > at_ns), default=telemetry[1])
    marks = [e.time_ns for e in gathered.ends] + [s.end_ns or s.start_ns for s in gathered.steps.values()]
    since_ns = max([telemetry[0], *(m for m in marks if m < begin_ns)])
    gone_ns = _gone_ns(gathered, at_ns, next_ns, series)
    loaded = next((x for x in gathered.loads if begin_ns <= x.end_ns <= at_ns), None)
    first_step_ns = min((s.start_ns for s in gathered.steps.values() if begin_ns <= s.start_ns <= at_ns), default=at_ns)
    return (
        between(since_ns, begin_ns),
        between(loaded.end_ns, first_step_ns) if loaded else None,
        between(gone_ns, min(next_ns, telemetry[1])) if gone_ns is not None else None,
    )


def _gone_ns(gathered: _Gathered, at_ns: int, next_ns: int, series: Series) -> int | None:
    """When the attempt's worker had gone: after its last step, and after the last reading that still saw a process of it.

    `None` where the attempt has no end or processes were not read.
    """
    last_ns = max(
        (s.end_ns for s in gathered.steps.values() if s.end_ns is not None and at_ns <= s.end_ns <= next_ns),
        default=None,
    )
    watched = series.with_field("processes")
    if last_ns is None or not watched:
        return None
    seen = [series.column(*key, "processes").within(last_ns, next_ns) for key in watched]
    alive = [int(c.times_ns[c.values > 0][-1]) for c in seen if (c.values > 0).any()]
    return max(alive, default=last_ns)
