"""Reads runs, one cell at a time, and keeps of each what the report needs: never all of its answers, never all of its telemetry."""

import gc
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path

from msgspec import Struct

from results.manifest import CellFacts, Manifest, StepFacts
from results.records import EngineInfo, MemoryProbed, Scored
from results.report.examples import Example, Prompts, examples_of
from results.report.series import Timeline, timeline_of
from results.rows import Row
from results.stats import Interval, Item, anytime, clip, items_of, mean_t, wilson
from results.store import RunDir, StoreError
from results.summary import row_of
from results.validity import Finding, judge_step, step_views
from results.validity.base import StepView
from results.views import CellRecords, read_cell

LARGE = 256 << 20
"""Bytes of records from which on further processes are worth the second or two that they take to start."""
MOST_PROCESSES = 4
SHARE = 5
"""Cells that a process reads at a time; the prompts that they share are read once for them."""
MOST_TAGS = 40
"""Values of one tag that are shown; a tag that differs from item to item tells nothing."""


class TagScore(Struct, frozen=True, kw_only=True):
    """Accuracy over the items that carry one value of one tag (a speciality, a difficulty)."""

    tag: str
    value: str
    interval: Interval


class Position(Struct, frozen=True, kw_only=True):
    """Answers of a multiple choice by where the right option stood; shares are of the answers in which one was found."""

    letter: str
    right: int
    recalled: int
    chosen: int
    answers: int


class StepPage(Struct, frozen=True, kw_only=True):
    """What is kept of one step."""

    row: Row
    facts: StepFacts
    findings: tuple[Finding, ...]
    values: tuple[Item, ...]
    successes: tuple[Item, ...]
    tags: tuple[TagScore, ...]
    positions: tuple[Position, ...]
    metrics: tuple[tuple[str, float, int], ...]
    """Name, mean and number of the task's other measures."""
    flags: tuple[tuple[str, int], ...]
    examples: tuple[Example, ...]


class CellPage(Struct, frozen=True, kw_only=True):
    """What is kept of one cell."""

    facts: CellFacts
    outcome: str
    detail: str
    log_tail: str
    fingerprint: str | None
    changed: tuple[str, ...]
    engine: EngineInfo | None
    attempts: int
    meters: tuple[tuple[str, str, str, str, str], ...]
    """Name, evidence class, boundary, interface and period with notes."""
    steps: tuple[StepPage, ...]
    timeline: Timeline | None
    smallest: MemoryProbed | None = None
    """The search for the smallest memory, where the suite asked for it."""
    model_commit: str | None = None


class RunPage(Struct, frozen=True, kw_only=True):
    """What is kept of one run."""

    manifest: Manifest
    cells: tuple[CellPage, ...]
    seal: str | None
    """Of the measurement: the report itself does not change it."""


def gather(runs: Sequence[Path]) -> tuple[RunPage, ...]:
    """Every run, in the order given; one that is named twice is read once. Raises `StoreError`."""
    if not runs:
        raise StoreError("no run was given; give a folder made by `run`")
    paths = list(dict.fromkeys(path.resolve() for path in runs))
    pages = tuple(_run(RunDir(path)) for path in paths)
    doubled = [name for name, count in Counter(p.manifest.run for p in pages).items() if count > 1]
    if doubled:
        raise StoreError(f"two of the runs have the name {doubled[0]}; one of them is a copy: leave it out")
    return pages


def _run(run: RunDir) -> RunPage:
    manifest = run.manifest()
    large = sum(p.stat().st_size for p in run.path.glob("cells/*/*.jsonl")) >= LARGE
    cells = read_cells(run, manifest, min(MOST_PROCESSES, os.cpu_count() or 1) if large else 1)
    return RunPage(manifest=manifest, cells=cells, seal=run.measurement_sha256())


def read_cells(run: RunDir, manifest: Manifest, processes: int) -> tuple[CellPage, ...]:
    """Every cell in the order of the manifest; a few at a time in processes of their own where there is more than one."""
    parts = [range(i, min(i + SHARE, len(manifest.cells))) for i in range(0, len(manifest.cells), SHARE)]
    if processes > 1 and len(parts) > 1:
        try:
            with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
                return tuple(chain.from_iterable(pool.map(_share, repeat(run.path), parts)))
        except (BrokenProcessPool, OSError):
            pass  # no processes, or no memory for them: one by one
    return tuple(chain.from_iterable(_share(run.path, part) for part in parts))


def _share(path: Path, places: range) -> list[CellPage]:
    run, prompts = RunDir(path), Prompts()
    manifest = run.manifest()
    with uncollected():
        return [_cell(run, manifest, manifest.cells[i], prompts) for i in places]


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cycles: records have none, and among millions of them the search takes a fifth of the time."""
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()


def _cell(run: RunDir, manifest: Manifest, facts: CellFacts, prompts: Prompts) -> CellPage:
    folder = run.cell(facts.id)
    cell = read_cell(manifest, facts, folder.events(), folder.telemetry(), folder.scores())
    ended = cell.ended
    return CellPage(
        facts=facts,
        outcome=cell.outcome,
        detail=(ended.detail if ended else "") or facts.skipped or "",
        log_tail=ended.log_tail if ended else "",
        fingerprint=ended.fingerprint_end if ended else None,
        changed=ended.changed if ended else (),
        engine=cell.loads[-1].engine if cell.loads else None,
        attempts=len(cell.started),
        meters=_meters(cell),
        steps=tuple(_step(view, folder.path / "job.json", prompts) for view in step_views(cell)),
        timeline=timeline_of(cell),
        smallest=cell.probed,
        model_commit=cell.started[-1].model_commit if cell.started else None,
    )


def _meters(cell: CellRecords) -> tuple[tuple[str, str, str, str, str], ...]:
    return tuple(
        (
            m.meter,
            m.evidence,
            m.boundary,
            m.sensor_api,
            "; ".join(x for x in (f"{m.period_s:g} s" if m.period_s else "", m.scope or "", m.note) if x),
        )
        for m in cell.series.meters.values()
    )


def _step(view: StepView, job: Path, prompts: Prompts) -> StepPage:
    step, findings = view.step, judge_step(view)
    scores = step.scores if step.span is not None else ()
    judged = [(sys.intern(s.sample), sys.intern(s.cluster), s) for s in scores if s.value is not None]
    early = step.sequential
    values = items_of([(i, c, s.value) for i, c, s in judged if s.value is not None], early)
    successes = items_of([(i, c, float(s.verdict == "correct")) for i, c, s in judged], early)
    return StepPage(
        row=row_of(view, findings),
        facts=step.facts,
        findings=findings,
        values=values,
        successes=values if successes == values else successes,
        tags=_tags(scores, early),
        positions=_positions(scores) if step.facts.permuted else (),
        metrics=_metrics(scores),
        flags=tuple(sorted(Counter(f for s in scores for f in s.flags).items())),
        examples=examples_of(step, job, prompts) if scores else (),
    )


def _tags(scores: Iterable[Scored], early: bool) -> tuple[TagScore, ...]:
    """By every tag with few values. A repeated item counts with its mean; the interval of graded scores is a t interval by clusters."""
    groups: dict[str, dict[str, list[tuple[str, str, float]]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if score.value is not None:
            for tag, value in score.tags.items():
                groups[tag][value].append((score.sample, score.cluster, score.value))
    return tuple(
        TagScore(tag=tag, value=value, interval=_interval(items_of(found, early)))
        for tag, by_value in sorted(groups.items())
        if 1 < len(by_value) <= MOST_TAGS
        for value, found in sorted(by_value.items())
    )


def _interval(items: Sequence[Item]) -> Interval:
    values = [i.value for i in items]
    if any(i.early for i in items):
        return anytime(values, [i.cluster for i in items])
    if all(v in (0.0, 1.0) for v in values) and len({i.cluster for i in items}) == len(items):
        return wilson(int(sum(values)), len(values))
    return clip(mean_t(values, [i.cluster for i in items]))


def _positions(scores: Iterable[Scored]) -> tuple[Position, ...]:
    """Only of questions with one right option, named by its index, and answers that are letters."""
    right, recalled, chosen = Counter[int](), Counter[int](), Counter[int]()
    for score in scores:
        if score.target is None or not score.target.isdigit() or score.value is None:
            continue
        target = int(score.target)
        right[target] += 1
        recalled[target] += score.verdict == "correct"
        if score.answer and len(score.answer) == 1 and "A" <= score.answer <= "Z":
            chosen[ord(score.answer) - ord("A")] += 1
    found = sum(chosen.values())
    return tuple(
        Position(letter=chr(ord("A") + i), right=right[i], recalled=recalled[i], chosen=chosen[i], answers=found)
        for i in sorted(set(right) | set(chosen))
    )


def _metrics(scores: Sequence[Scored]) -> tuple[tuple[str, float, int], ...]:
    sums: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, value in score.metrics.items():
            sums[name].append(value)
    return tuple((name, sum(v) / len(v), len(v)) for name, v in sums.items())
