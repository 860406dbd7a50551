"""One run from suite to sealed folder: read the data, find the weights, plan, run cell by cell, report."""

import fcntl
import os
import resource
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import msgspec

from bench import judge, models, similarity
from bench.checkout import checkout
from bench.config import (
    BackendSettings,
    ConfigError,
    LlamaCppSettings,
    RecordedSettings,
    Suite,
    engine_settings,
    suite_from,
)
from bench.lm_eval_adapter import lm_eval_tasks
from bench.plan import CellPlan, Resolved, expand, most_in_flight, place, with_weights
from bench.process import ended_as_by_the_user
from bench.render import TaskData, load_tasks
from bench.runner import CellRun, Limits, Privacy, Watcher, forget, run_cell
from bench.score import score_cell
from bench.sizing import predict
from bench.turns import Table, Turns, set_table
from hardware import Host, MeterOptions, WatchedProcess, describe_host, fingerprint, open_meters, options_from
from results.manifest import CellFacts, Manifest
from results.records import SCHEMA, Answered, CellEnded, MemoryProbed, Outcome, Ranked
from results.store import CellDir, Lines, RunDir, new_run_dir
from tasks import TASKS

VERSIONED = (
    "llama-cpp-python",
    "transformers",
    "torch",
    "vllm",
    "msgspec",
    "httpx",
    "numpy",
    "scipy",
    "rouge-score",
    "jieba",
    "lm-eval",
    "datasets",
)


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says over the suite."""

    only: str = "*"
    limit: int | None = None
    seed: int | None = None
    download: bool = False
    meters: Mapping[str, Any] | None = None
    """Instead of the suite's."""
    weights_elsewhere: bool = False
    """The plan is for another machine: what lies on this disk says nothing of it."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A suite with its data read and its cells planned; nothing has been loaded or made."""

    suite: Suite
    data: Mapping[str, TaskData]
    cells: tuple[CellPlan, ...]
    host: Host
    base: Path
    meters: MeterOptions = MeterOptions()
    judge: CellPlan | None = None
    """Who is asked about the summaries when all cells have ended."""


def prepare(suite: Suite, base: Path, wishes: Wishes, host: Host | None = None) -> Prepared:
    """Plan a suite for this machine, or for a described one. `base` is where relative paths begin."""
    from fnmatch import fnmatchcase

    from bench.shortfall import warned

    chosen = tuple(d for d in suite.deployments if fnmatchcase(d.name, wishes.only))
    if not chosen:
        names = ", ".join(d.name for d in suite.deployments)
        raise ConfigError(f"--only {wishes.only}: no deployment of `{suite.name}` has such a name; there are {names}")
    suite = msgspec.structs.replace(
        suite,
        deployments=chosen,
        limit=wishes.limit if wishes.limit is not None else suite.limit,
        seed=wishes.seed if wishes.seed is not None else suite.seed,
        meters=suite.meters if wishes.meters is None else dict(wishes.meters),
        stopping=suite.stopping if suite.stopping and suite.stopping.against in {d.name for d in chosen} else None,
    )
    meters = options_from(suite.meters, f"suite `{suite.name}`, [meters]")
    known = TASKS | lm_eval_tasks(suite.task_options(), base, wishes.download)
    data = load_tasks(suite.task_options(), known, suite.limit, suite.seed, base, wishes.download)
    machine = host or describe_host()
    to_come = wishes.download or wishes.weights_elsewhere
    placed = (place(c, _locate(c, base, to_come, machine)) for c in expand(suite, data))
    cells = tuple(warned(c, data, suite.profile) for c in placed)
    if suite.similarity and not any(similarity.is_compared(d.task) for d in data.values()):
        raise ConfigError(f"suite `{suite.name}`: [similarity] is given and no task has summaries; leave it out")
    judging = judge.expected(suite, data)
    if judging:
        judging = place(judging, _locate(judging, base, to_come, machine))
    return Prepared(suite=suite, data=data, cells=cells, host=machine, base=base, meters=meters, judge=judging)


def _locate(cell: CellPlan, base: Path, to_come: bool, host: Host) -> Resolved:
    """Where the weights are and whether they fit; a model that cannot be had skips its cell and no other. `to_come`: they may be missing
    as yet."""
    try:
        weights = models.locate(cell.deployment, base, download=to_come)
        missing = None
    except ConfigError as error:
        weights, missing = None, str(error)
    settings = _settings(cell, weights, base)
    missing = missing or _beyond(settings, weights)
    return Resolved(weights=weights, missing=missing, prediction=predict(cell, settings, weights, host))


def _beyond(settings: BackendSettings, weights: models.Weights | None) -> str | None:
    """llama.cpp would say so too, after it has loaded the weights."""
    if weights is None or not isinstance(settings, LlamaCppSettings):
        return None
    trained = weights.metadata.get(f"{weights.metadata.get('general.architecture')}.context_length")
    if not isinstance(trained, int) or settings.context <= trained:
        return None
    return f"`context` {settings.context} is longer than the {trained} tokens that the model was made for; lower it"


def _settings(cell: CellPlan, weights: models.Weights | None, base: Path) -> BackendSettings:
    """What the worker is told: where the weights are, and relative paths made whole."""
    settings = with_weights(engine_settings(cell.deployment), weights, most_in_flight(cell.steps))
    if isinstance(settings, RecordedSettings):
        return msgspec.structs.replace(settings, path=str(base / settings.path))
    return settings


def start(prepared: Prepared, out: Path, name: str | None) -> RunDir:
    """Make the run's folder and write its manifest. Raises `ConfigError` when no cell can be run at all."""
    skipped = [c.facts.skipped for c in prepared.cells]
    if all(skipped):
        raise ConfigError(f"nothing to run: {skipped[0]}")
    run = new_run_dir(out, name or prepared.suite.name)
    run.write_manifest(_manifest(prepared, run.path.name))
    return run


def reopen(run: RunDir, wishes: Wishes) -> Prepared:
    """Plan a run again from its manifest, for resuming or scoring. Raises `ConfigError` when data or code no longer fit it."""
    manifest = run.manifest()
    base = Path(str(manifest.host.get("base", ".")))
    prepared = prepare(suite_from(manifest.suite, str(run.path)), base, wishes)
    recorded = {cell.id: cell for cell in manifest.cells}
    for cell in prepared.cells:
        before = recorded.get(cell.facts.id)
        if before is None or _asked(before) != _asked(cell.facts):
            raise ConfigError(
                f"{run.path}: cell `{cell.facts.deployment}` is planned otherwise than when the run was started "
                "(its data, prompts or settings changed); start a new run"
            )
    if prepared.judge and manifest.judge and _asked(prepared.judge.facts) != _asked(manifest.judge):
        raise ConfigError(f"{run.path}: the judge is planned otherwise than when the run was started; start a new run")
    return prepared


def _asked(cell: CellFacts) -> tuple[str, list[str]]:
    """Which cell, and what it is asked; how it is warmed up may differ."""
    return cell.id, [step.prompt_sha256 for step in cell.steps if not step.warmup]


def execute(
    prepared: Prepared, run: RunDir, wishes: Wishes, watcher: Watcher, together: bool = False
) -> dict[str, Outcome]:
    """Run every cell that has not ended well; returns each cell's outcome. The run is sealed when all have ended.

    `together`: all cells are loaded at the same time and take turns, step by step; the watcher is then told by several threads.
    """
    outcomes: dict[str, Outcome] = {}
    told: dict[tuple[str, str], tuple[Answered | Ranked, ...]] = {}
    if not prepared.suite.store_text or prepared.suite.redact:
        no_core_dumps()
    with Lock(run), ended_as_by_the_user():
        run.unseal()
        if together:
            outcomes = _in_turns(prepared, run, wishes, watcher, told)
        for cell in prepared.cells if not together else ():
            watcher.cell(cell)
            outcomes[cell.facts.id] = _one(prepared, run, cell, wishes, watcher, told)
        if prepared.judge:
            judge.judge(prepared, run, told, lambda plan: _settled(prepared, plan, wishes), watcher)
        if prepared.suite.similarity:
            similarity.compare(prepared, run, told, wishes.download)
        if len(prepared.cells) == len(run.manifest().cells):
            run.seal()
    return outcomes


def _in_turns(
    prepared: Prepared,
    run: RunDir,
    wishes: Wishes,
    watcher: Watcher,
    told: dict[tuple[str, str], tuple[Answered | Ranked, ...]],
) -> dict[str, Outcome]:
    """Every cell in a thread of its own. An interruption reaches all of them, is recorded by each, and is raised again."""
    with tempfile.TemporaryDirectory(prefix="bedside-turns-") as folder:
        table = Table(path=Path(folder) / "turns.json", halt=threading.Event())
        set_table(table.path, [cell.facts.id for cell in prepared.cells])

        def sit(cell: CellPlan) -> Outcome:
            watcher.cell(cell)
            try:
                return _one(prepared, run, cell, wishes, watcher, told, table)
            finally:
                Turns(table.path, cell.facts.id).leave()

        with ThreadPoolExecutor(len(prepared.cells)) as pool:
            seats = {cell.facts.id: pool.submit(sit, cell) for cell in prepared.cells}
            try:
                wait(seats.values())
            except KeyboardInterrupt:
                table.halt.set()
                raise
        return {name: seat.result() for name, seat in seats.items()}


def no_core_dumps() -> None:
    """A crash would write prompts and answers from memory to the disk; every process that is started takes this over."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def _one(
    prepared: Prepared,
    run: RunDir,
    cell: CellPlan,
    wishes: Wishes,
    watcher: Watcher,
    told: dict[tuple[str, str], tuple[Answered | Ranked, ...]],
    table: Table | None = None,
) -> Outcome:
    folder = run.cell(cell.facts.id)
    ended = folder.ended()
    suite = prepared.suite
    privacy = Privacy(store_text=suite.store_text, redact=suite.redact)
    if ended and ended.outcome in ("ok", "oom"):
        if privacy.plain and not folder.has_scores():  # killed between the last record and its judging
            folder.write_scores(score_cell(cell, prepared.data, folder.events(), suite.seed))
        if suite.smallest_memory and ended.outcome == "ok" and not _probed(folder):
            _probe(prepared, cell, folder, wishes, watcher)
        return ended.outcome
    folder.make()
    if cell.facts.skipped:
        return _skip(run, cell, cell.facts.skipped)
    try:
        settled = _settled(prepared, cell, wishes)
    except ConfigError as error:
        return _skip(run, cell, str(error))

    def remember(step: str, answers: tuple[Answered | Ranked, ...]) -> None:
        told[cell.facts.id, step] = answers

    job = CellRun(
        cell=settled,
        data=prepared.data,
        out=folder,
        limits=Limits(load_timeout_s=suite.load_timeout_s, stall_timeout_s=suite.stall_timeout_s, idle_s=suite.idle_s),
        privacy=privacy,
        seed=suite.seed,
        fingerprint=lambda: fingerprint(describe_host()),
        told=remember if prepared.judge or suite.similarity else forget,
        code=checkout(),  # now: the worker reads the code from the disk when it starts
        baseline=_baseline(run, cell),
        table=table,
    )

    def open_all(watched: WatchedProcess) -> Any:
        return open_meters(watched, prepared.meters)

    outcome = run_cell(job, open_all, watcher)
    while outcome == "interrupted":  # by itself: a step was ended early, and others are left
        outcome = run_cell(job, open_all, watcher)
    if suite.smallest_memory and outcome == "ok":
        _probe(prepared, cell, folder, wishes, watcher)
    return outcome


def _baseline(run: RunDir, cell: CellPlan) -> dict[str, dict[str, float]]:
    """Scores of the baseline's whole steps, by step and item, for the steps of this cell that may end early."""
    rules = {step.facts.name: step.facts.stopping for step in cell.steps if step.facts.stopping}
    if not rules:
        return {}
    folder = run.cell(next(iter(rules.values())).baseline_cell)
    found: dict[str, dict[str, float]] = {name: {} for name in rules if name in folder.finished_steps()}
    for score in folder.scores():
        if score.step in found and score.value is not None:
            found[score.step][score.sample] = score.value
    return found


def _settled(prepared: Prepared, cell: CellPlan, wishes: Wishes) -> CellPlan:
    """The cell with its weights on disk. Raises `ConfigError` when they cannot be had."""
    weights = models.resolve(cell.deployment, prepared.base, download=wishes.download)
    return msgspec.structs.replace(cell, settings=_settings(cell, weights, prepared.base))


def _probed(folder: CellDir) -> bool:
    return any(isinstance(event, MemoryProbed) for event in folder.events())


def _probe(prepared: Prepared, cell: CellPlan, folder: CellDir, wishes: Wishes, watcher: Watcher) -> None:
    """After the measurement, so that it shares the machine with nothing that is measured."""
    from bench import smallest

    suite = prepared.suite
    options = smallest.ProbeOptions(patience_s=suite.load_timeout_s, plain=suite.store_text and not suite.redact)
    try:
        found = smallest.probe(_settled(prepared, cell, wishes), tuple(folder.events()), options)
    except ConfigError as error:  # the run goes on after a crash, and the weights have gone since
        found = smallest.unknown(smallest.heaviest(cell.steps), str(error))
    with Lines(folder.path / "events.jsonl") as events:
        events.append(found)
        events.sync()
    watcher.event(cell, found)


def _skip(run: RunDir, cell: CellPlan, why: str) -> Outcome:
    with Lines(run.cell(cell.facts.id).path / "events.jsonl") as events:
        events.append(
            CellEnded(time_ns=time.monotonic_ns(), outcome="skipped", detail=why, records_sha256=events.sha256)
        )
    return "skipped"


def _manifest(prepared: Prepared, name: str) -> Manifest:
    host = {**msgspec.to_builtins(prepared.host), "base": str(prepared.base.resolve())}
    code = checkout()
    return Manifest(
        schema=SCHEMA,
        run=name,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        anchor_monotonic_ns=time.monotonic_ns(),
        anchor_unix_ns=time.time_ns(),
        suite=msgspec.to_builtins(prepared.suite),
        profile=prepared.suite.profile,
        seed=prepared.suite.seed,
        host=host,
        versions=versions(),
        source_commit=code.commit,
        source_changed=code.changed,
        cells=tuple(c.facts for c in prepared.cells),
        store_text=prepared.suite.store_text,
        judge=prepared.judge.facts if prepared.judge else None,
    )


def versions() -> dict[str, str]:
    """Of Bedside and the libraries whose behaviour shows in the numbers, as installed in this environment."""
    found = {"bedside": _version("bedside")}
    found |= {name: _version(name) for name in VERSIONED}
    return {name: version for name, version in found.items() if version}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


class Lock:
    """Only one process works on a run; the other is named."""

    def __init__(self, run: RunDir) -> None:
        self._path = run.path / "lock"
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise ConfigError(
                f"{self._path.parent}: process {owner} is working on this run; wait for it or end it"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._path.unlink(missing_ok=True)
            self._file.close()
