"""The measuring process: start a worker per cell, keep its records, read the meters meanwhile, survive its death."""

import contextlib
import queue
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from bench.checkout import Checkout
from bench.job import EXIT_BAD_MODEL, EXIT_OUT_OF_MEMORY, EXIT_TIMED_OUT, Job
from bench.models import commit_at
from bench.plan import CellPlan
from bench.process import Worker, default_python, worker_environment
from bench.render import TaskData
from bench.score import in_planned_order, score_cell, score_step
from bench.stopping import Outcomes, Stopper
from bench.turns import Table, Turns
from hardware import Meter, MeterInfo, Reading, Sampler, WatchedProcess, resident_share
from results.records import (
    Answered,
    CellEnded,
    CellStarted,
    EngineState,
    Event,
    Loaded,
    Outcome,
    Ranked,
    Scored,
    StepEnded,
    StepStarted,
    Tick,
)
from results.records import MeterInfo as MeterRecord
from results.store import CellDir, Lines

LOG_TAIL_BYTES = 2000
OUT_OF_MEMORY_WORDS = re.compile(
    r"out of memory|cannot allocate memory|failed to allocate|MemoryError|std::bad_alloc|unable to allocate",
    re.IGNORECASE,
)

LOOK_S = 0.5
"""How often a cell that takes turns looks whether it waits for another, and whether the run was ended."""
CLOCK_GAP_NS = 60_000_000_000
"""Between two attempts whose distance in time is not known: more than any window reaches over."""
HARMLESS_ANSWER = re.compile(r"[A-J]{1,10}|[-+]?[0-9.]{1,8}|yes|no|maybe")
"""What a suite that keeps no text still keeps of an answer."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    load_timeout_s: float
    stall_timeout_s: float
    idle_s: float


class Privacy(msgspec.Struct, frozen=True, kw_only=True):
    """What of prompts and answers may reach the disk."""

    store_text: bool = True
    redact: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        return self.store_text and not self.redact

    def keep(self, text: str | None) -> str | None:
        if text is None or not self.store_text:
            return None
        for pattern in self.redact:
            text = re.sub(pattern, "[redacted]", text)
        return text


class Watcher:
    """What the command line shows of a run; this one shows nothing."""

    def cell(self, cell: CellPlan) -> None: ...
    def judge(self, cell: CellPlan) -> None: ...
    def event(self, cell: CellPlan, event: Event) -> None: ...
    def reading(self, reading: Reading) -> None: ...


Told = Callable[[str, tuple[Answered | Ranked, ...]], None]


def forget(step: str, answers: tuple[Answered | Ranked, ...]) -> None:
    """Nobody needs them."""


class CellRun(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one cell needs to be run."""

    cell: CellPlan
    data: Mapping[str, TaskData]
    out: CellDir
    limits: Limits
    privacy: Privacy
    seed: int
    fingerprint: Callable[[], dict[str, str]]
    """Of the environment, taken at the start and at the end."""
    told: Told = forget
    """Where text may not be kept: called with what was answered in a step that ended, since the disk will not tell later."""
    code: Checkout = Checkout()
    baseline: Mapping[str, Outcomes] = {}
    """By step: what those that may end early are judged against; a step that is not here is run whole."""
    table: Table | None = None
    """Where this cell's worker takes turns with those of others."""


def run_cell(run: CellRun, open_meters: Callable[[WatchedProcess], tuple[Meter, ...]], watcher: Watcher) -> Outcome:
    """Run what is missing of a cell. `KeyboardInterrupt` ends the worker, is recorded, and is raised again.

    `interrupted` is returned where a step was ended early and others are left: the next call runs them, as after any interruption.
    """
    done = frozenset(run.out.finished_steps())
    job_bytes = msgspec.json.encode(_job(run, done))
    run.out.make()
    if run.privacy.plain:
        run.out.drop_scores()  # whoever finds scores beside an ended cell may rely on them
    before = run.fingerprint()
    with contextlib.ExitStack() as stack:
        shift_ns = _clock_shift_ns(run.out)
        events = stack.enter_context(Lines(run.out.path / "events.jsonl", shift_ns))
        ticks = stack.enter_context(Lines(run.out.path / "telemetry.jsonl", shift_ns))
        log = _open_log(run, stack)
        _write_job(run, msgspec.json.encode(_job(run, frozenset())) if done else job_bytes)
        watched = WatchedProcess()
        meters = open_meters(watched)
        for meter in meters:
            ticks.append(_meter_record(meter.describe()))
        keep = _keep_reading(ticks, watcher)
        stack.enter_context(Sampler(meters, keep))
        time.sleep(run.limits.idle_s)
        recorder = Recorder(run, events, watcher)
        try:
            outcome, detail = _attend(
                run, recorder, watched, log, None if run.privacy.plain and not done else job_bytes
            )
        except KeyboardInterrupt:
            _end(run, events, "interrupted", "interrupted by the user", before)
            raise
        watched.pid = None
        time.sleep(run.limits.idle_s)
        ticks.sync()  # a cell that is on disk as ended must not lose its telemetry to a power cut
        _end(run, events, outcome, detail, before)
    if run.privacy.plain:
        run.out.write_scores(score_cell(run.cell, run.data, run.out.events(), run.seed))
    return outcome


def _job(run: CellRun, done: frozenset[str]) -> Job:
    return msgspec.structs.replace(run.cell.job(done), turns=str(run.table.path) if run.table else None)


def _clock_shift_ns(out: CellDir) -> int:
    """0, but where what is recorded lies in the future: the machine was restarted since, and its monotonic clock with it."""
    last_ns = out.last_ns()
    behind_ns = last_ns - time.monotonic_ns() if last_ns is not None else -1
    return behind_ns + CLOCK_GAP_NS if behind_ns >= 0 else 0


class Recorder:
    """Writes every record as it comes. Where text may not be kept, answers wait in memory until their step is scored."""

    def __init__(self, run: CellRun, events: Lines, watcher: Watcher) -> None:
        self._run, self._events, self._watcher = run, events, watcher
        self._decoder = msgspec.json.Decoder(Event)
        self._unscored: list[Answered | Ranked] = []
        self._steps = {step.facts.name: step for step in run.cell.steps}
        self._stoppers = {
            name: Stopper(step, run.data[step.facts.task], step.facts.stopping, run.baseline[name], run.seed)
            for name, step in self._steps.items()
            if step.facts.stopping and name in run.baseline
        }
        self.stopped: str | None = None
        """Name of the step that has just been ended early; the worker is of no more use."""
        self.clock_shift_s = events.shift_ns / 1e9
        self.loaded = False
        self.last_sign = time.monotonic()
        """Of progress; an engine that only goes on telling its state has hung."""

    def write(self, event: Event) -> None:
        self._events.append(event)
        self._watcher.event(self._run.cell, event)

    def take(self, line: bytes) -> None:
        event = self._decoder.decode(line)
        if not isinstance(event, EngineState):
            self.last_sign = time.monotonic()
        if isinstance(event, Loaded):
            self.loaded = True
        self._keep(event)
        stopper = self._stoppers.get(event.step) if isinstance(event, (StepStarted, Answered, Ranked)) else None
        if stopper and (ended := stopper.take(event)):
            self._keep(ended)
            self.stopped = ended.step

    def _keep(self, event: Event) -> None:
        if self._run.privacy.plain:
            self.write(event)
            return
        match event:
            case StepStarted():
                self._unscored = []
            case Answered() | Ranked():
                self._unscored.append(event)
                event = _without_text(event, self._run.privacy)
            case StepEnded() if event.step in self._steps:
                self._score(event)
                self._run.told(event.step, tuple(self._unscored))
            case _:
                pass
        self.write(event)

    def _score(self, ended: StepEnded) -> None:
        """Before the step counts as finished, so that a finished step always has its scores."""
        step = self._steps[ended.step]
        kept = [s for s in self._run.out.scores() if s.step != ended.step]
        records = in_planned_order(step, self._unscored) if ended.stopped else self._unscored
        made = score_step(step, self._run.data[step.facts.task], records, self._run.seed)
        self._run.out.write_scores(kept + [_without_answer(s, self._run.privacy) for s in made])


def _attend(
    run: CellRun, recorder: Recorder, watched: WatchedProcess, log: BinaryIO | int, job_bytes: bytes | None
) -> tuple[Outcome, str]:
    """Start the worker, take its lines until it ends or falls silent for too long, and leave no process behind."""
    attempt = 1 + sum(isinstance(e, CellStarted) for e in run.out.events())
    python = run.cell.deployment.python if run.cell.deployment.backend != "vllm" else None
    job_path = "-" if job_bytes is not None else str(run.out.path / "job.json")
    kills_before = oom_kills()
    in_page_cache, commit = _page_cache_share(run.cell), commit_at(run.cell.deployment)
    worker = Worker(python or default_python(), job_path, job_bytes, log, worker_environment())
    try:
        watched.pid = worker.pid
        recorder.write(
            CellStarted(
                time_ns=time.monotonic_ns(),
                attempt=attempt,
                pid=worker.pid,
                page_cache_share=in_page_cache,
                model_commit=commit,
                source_commit=run.code.commit,
                source_changed=run.code.changed,
                clock_shift_s=recorder.clock_shift_s,
            )
        )
        while True:
            patience_s = run.limits.stall_timeout_s if recorder.loaded else run.limits.load_timeout_s
            if run.table and run.table.halt.is_set():
                raise KeyboardInterrupt
            if run.table and Turns(run.table.path, run.cell.facts.id).waits():
                recorder.last_sign = time.monotonic()
            left_s = recorder.last_sign + patience_s - time.monotonic()
            wait_s = min(left_s, LOOK_S) if run.table else left_s
            try:
                line = worker.lines.get(timeout=max(0.0, wait_s))
            except queue.Empty:
                if wait_s < left_s:
                    continue
                where = "while running" if recorder.loaded else "while loading"
                return "timeout", f"no sign of progress for {patience_s:g} s {where}"
            if line is None:
                code = worker.wait(30.0)
                return outcome_of(code, run.out.path / "worker.log", oom_kills() > kills_before)
            recorder.take(line)
            if recorder.stopped is not None:
                return _after_stop(run, recorder.stopped)
    finally:
        worker.end()


def _after_stop(run: CellRun, step: str) -> tuple[Outcome, str]:
    left = run.cell.job(frozenset(run.out.finished_steps())).steps
    if left:
        return "interrupted", f"{step} was ended early by its stopping rule; the rest follows with a new worker"
    return "ok", ""


def _page_cache_share(cell: CellPlan) -> float | None:
    """Asked just before the worker starts: whoever hashed the file before has read it into memory."""
    path = str(getattr(cell.settings, "model_path", ""))
    return resident_share(Path(path)) if path and Path(path).exists() else None


def outcome_of(code: int | None, log: Path, killed_for_memory: bool) -> tuple[Outcome, str]:
    """What an exit code means. A kill by the kernel for want of memory is told from any other."""
    if code == 0:
        return "ok", ""
    if code == EXIT_OUT_OF_MEMORY:
        return "oom", "the engine could not get the memory it needs"
    if code == -9 and killed_for_memory:
        return "oom", "killed by the kernel: out of memory"
    tail = log_tail(log)
    if code == EXIT_TIMED_OUT:
        return "timeout", tail.strip().splitlines()[-1] if tail.strip() else "the engine hangs"
    if code == EXIT_BAD_MODEL:
        return "crashed", tail.strip().splitlines()[-1] if tail.strip() else "the engine cannot use this model"
    if code is None:
        return "timeout", "the worker closed its records but did not end"
    if OUT_OF_MEMORY_WORDS.search(tail):
        return "oom", "the log's end speaks of memory that could not be had"
    return "crashed", f"signal {-code}" if code < 0 else f"exit code {code}"


def oom_kills() -> int:
    """The kernel's count of processes it killed for memory in our control group; 0 where it does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/sys/fs/cgroup/memory.events").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _end(run: CellRun, events: Lines, outcome: Outcome, detail: str, before: dict[str, str]) -> None:
    from hardware import changes, digest

    after = run.fingerprint()
    record = CellEnded(
        time_ns=time.monotonic_ns(),
        outcome=outcome,
        detail=detail,
        log_tail=log_tail(run.out.path / "worker.log") if outcome != "ok" else "",
        fingerprint_start=digest(before),
        fingerprint_end=digest(after),
        changed=changes(before, after),
        records_sha256=events.sha256,
    )
    events.append(record)
    events.sync()


def _open_log(run: CellRun, stack: contextlib.ExitStack) -> BinaryIO | int:
    """The worker's own words; nowhere at all when no text may be kept, since engines print prompts."""
    if not run.privacy.plain:
        import subprocess

        return subprocess.DEVNULL
    path = run.out.path / "worker.log"
    path.touch(mode=0o600)
    return stack.enter_context(path.open("ab"))


def _write_job(run: CellRun, job_bytes: bytes) -> None:
    from results.store import write_atomically

    if run.privacy.plain:
        write_atomically(run.out.path / "job.json", job_bytes)
        return
    bare = {
        "cell": run.cell.facts.id,
        "steps": [s.facts for s in run.cell.steps],
        "text": "not kept (store_text or redact)",
    }
    write_atomically(run.out.path / "job.json", msgspec.json.encode(bare))


def _keep_reading(ticks: Lines, watcher: Watcher) -> Callable[[Reading], None]:
    def keep(reading: Reading) -> None:
        ticks.append(Tick(**msgspec.structs.asdict(reading)))
        watcher.reading(reading)

    return keep


def _meter_record(info: MeterInfo) -> MeterRecord:
    return MeterRecord(**msgspec.structs.asdict(info))


def _without_text(event: Answered | Ranked, privacy: Privacy) -> Answered | Ranked:
    """A failure stays a failure, but its message may quote a prompt."""
    import hashlib

    if event.error is not None:
        event = msgspec.structs.replace(event, error=privacy.keep(event.error) or "failed; the message is not kept")
    if isinstance(event, Ranked):
        return event

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    return msgspec.structs.replace(
        event,
        text=privacy.keep(event.text),
        reasoning=privacy.keep(event.reasoning),
        text_sha256=digest(event.text or ""),
        reasoning_sha256=digest(event.reasoning) if event.reasoning else None,
    )


def _without_answer(score: Scored, privacy: Privacy) -> Scored:
    """Where no text is kept, option letters, numbers and yes/no stay; anything else, however short, could be a name."""

    def short(text: str | None) -> str | None:
        if privacy.store_text or text is None:
            return privacy.keep(text)
        return msgspec.structs.replace(privacy, store_text=True).keep(text) if HARMLESS_ANSWER.fullmatch(text) else None

    return msgspec.structs.replace(
        score, answer=short(score.answer), target=short(score.target), detail=privacy.keep(score.detail) or ""
    )


def log_tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
