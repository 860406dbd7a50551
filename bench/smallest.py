"""The smallest memory that a cell works with: short repeats of its heaviest step under ever closer limits, a worker for each.

The limit is the worker's address space (RLIMIT_AS): weights mapped or read, cache, buffers, and the interpreter with its libraries. It is
never less than the memory that is touched, so a machine that has so much for the worker is enough. Such a limit takes no speed away: memory
is granted or refused. The trials' workers have one malloc arena, so that no reserved and untouched addresses count. Answers are cut short,
since llama.cpp takes its cache when it loads.

Worked example: the worker took 1,000 MiB without a limit; it works under 1,000 and 750, not under 500, 625, 687 and 718: 750 MiB at a
resolution of 4.3 %.
"""

import contextlib
import queue
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.config import BackendSettings, LlamaCppSettings, Load, ScriptedSettings
from bench.job import Job, JobStep
from bench.plan import WARMUP_REQUESTS, CellPlan
from bench.process import Worker, default_python, worker_environment
from bench.render import StepPlan, warmup_of
from bench.runner import log_tail, oom_kills, outcome_of
from results.records import Answered, Event, Loaded, MemoryProbed, MemoryTrial, Outcome, Ranked

ADDRESS_SPACE = "address space of the worker"
RESOLUTION = 0.05
OPEN_LOOP_IN_FLIGHT = 16
POLL_S = 0.05
LEAST_PATIENCE_S = 30.0
PATIENCE = 5.0
"""A limited worker may take so many times as long as the one without a limit before it counts as hanging."""
MIB = 1 << 20
LARGER = (4, 5, 6, 8)
"""Quarters of what the worker was seen to take without a limit; its peak is read every 50 ms, and the very last may be missed."""
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""glibc reserves 64 MiB of addresses for the arena of a thread and touches little of them, and whether it does is a race."""
OUT_OF_ROOM = re.compile(
    r"Thread creation failed|failed to map segment|cannot allocate memory in static TLS", re.IGNORECASE
)
"""How libraries put it that their threads or themselves found no room under a limit."""

Try = Callable[[int | None], MemoryTrial]


class ProbeOptions(Struct, frozen=True, kw_only=True):
    """How long the worker without a limit may take, and whether a worker's words may be read."""

    patience_s: float
    plain: bool


def probe(cell: CellPlan, events: Sequence[Event], options: ProbeOptions) -> MemoryProbed:
    """Search for the cell's smallest memory, or say why it is not provided. `events` are those of the cell that ended."""
    step = heaviest(cell.steps)
    device = next((e.engine.device for e in reversed(events) if isinstance(e, Loaded)), None)
    if why := refusal(cell.settings, device):
        return unknown(step, why)
    job = Job(cell=cell.facts.id, settings=cell.settings, steps=(short_repeat(step.job),))

    def attempt(limit_bytes: int | None) -> MemoryTrial:
        patience_s = options.patience_s if limit_bytes is None else max(LEAST_PATIENCE_S, PATIENCE * first.seconds)
        limit = limit_bytes or cell.deployment.memory_limit_bytes
        limited = msgspec.structs.replace(job, memory_limit_bytes=limit)
        return run_trial(limited, cell.deployment.python or default_python(), patience_s, options.plain)

    first = attempt(None)
    return search(step, first, attempt)


def refusal(settings: BackendSettings, device: str | None) -> str | None:
    """Why this engine's memory cannot be limited from outside; None where it can."""
    engine = str(type(settings).__struct_config__.tag)
    if not isinstance(settings, LlamaCppSettings | ScriptedSettings):
        return f"not provided for {engine}"
    from results.energy import where_of  # here, since it brings numpy and planning should not wait for it

    if where_of(device) == "gpu":
        return f"not provided for {engine} on {device}: a limit of the address space does not limit an accelerator's memory"
    if sys.platform != "linux":
        return f"not provided on {sys.platform}: the limit of the address space needs Linux"
    return None


def heaviest(steps: Sequence[StepPlan]) -> StepPlan:
    """The step with the most requests in flight; of those one that generates, with the most to say."""

    def weight(step: StepPlan) -> tuple[int, int, int]:
        most = max((r.sampling.max_tokens for r in step.job.requests), default=0)
        return in_flight(step.job), len(step.job.requests) > 0, most

    return max(steps, key=weight)


def in_flight(step: JobStep) -> int:
    return step.load.concurrency or OPEN_LOOP_IN_FLIGHT


def short_repeat(step: JobStep) -> JobStep:
    """A few requests of the step with as many in flight, as its warm-up has them."""
    few = warmup_of(step, WARMUP_REQUESTS * in_flight(step), 0.0)
    return msgspec.structs.replace(few, name=f"smallest:{step.name}", load=Load(concurrency=in_flight(step)))


def search(step: StepPlan, first: MemoryTrial, attempt: Try) -> MemoryProbed:
    """Bisect from what the worker took without a limit. Every trial is kept, those that failed too."""
    trials = [first]

    def works(limit_bytes: int) -> bool:
        trials.append(attempt(limit_bytes))
        return trials[-1].outcome == "ok"

    if first.outcome != "ok" or first.peak_bytes is None:
        told = first.detail or "the kernel does not tell what it took"
        return unknown(step, f"the short repeat gave no upper bound without a limit ({first.outcome}): {told}", trials)
    peak = -(-first.peak_bytes // MIB) * MIB
    high = next((peak * n // 4 for n in LARGER if works(peak * n // 4)), None)
    if high is None:
        return unknown(
            step,
            f"{peak // MIB} MiB, all that was seen of it without a limit, did not suffice, nor did twice that",
            trials,
        )
    smallest, failed = bisect(works, high)
    return MemoryProbed(
        time_ns=time.monotonic_ns(),
        step=step.facts.name,
        limit=ADDRESS_SPACE,
        smallest_bytes=smallest,
        failed_bytes=failed,
        trials=tuple(trials),
    )


def bisect(works: Callable[[int], bool], high: int, resolution: float = RESOLUTION) -> tuple[int, int]:
    """The smallest limit that worked and the largest that did not, no further apart than `resolution` of the former.

    `high` is known to work; that nothing works in a MiB is taken for granted.
    """
    low = min(MIB, high - 1)
    while high - low > max(1.0, resolution * high):
        middle = (low + high) // 2
        if works(middle):
            high = middle
        else:
            low = middle
    return high, low


def unknown(step: StepPlan, reason: str, trials: Sequence[MemoryTrial] = ()) -> MemoryProbed:
    return MemoryProbed(
        time_ns=time.monotonic_ns(),
        step=step.facts.name,
        limit=ADDRESS_SPACE,
        smallest_bytes=None,
        trials=tuple(trials),
        reason=reason,
    )


def run_trial(job: Job, python: str, patience_s: float, plain: bool) -> MemoryTrial:
    """One worker. It works when every request was answered and the kernel saw no more address space than the limit.

    The job goes through a pipe and the log is dropped after its end was read, so that a trial leaves no text on the disk.
    """
    with tempfile.TemporaryDirectory(prefix="bedside-") as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "worker.log"
        log = stack.enter_context(path.open("wb")) if plain else subprocess.DEVNULL
        kills_before, started = oom_kills(), time.monotonic()
        worker = Worker(python, "-", msgspec.json.encode(job), log, worker_environment() | ONE_ARENA)
        try:
            seen = _follow(worker, started + patience_s)
            if seen.hangs:
                outcome, detail = _hangs(patience_s)
            else:
                outcome, detail = outcome_of(worker.wait(LEAST_PATIENCE_S), path, oom_kills() > kills_before)
        finally:
            worker.end()
        if outcome == "crashed" and job.memory_limit_bytes and OUT_OF_ROOM.search(log_tail(path)):
            outcome, detail = "oom", "no room for a library or a thread within the limit"
    if outcome == "ok" and seen.failures:
        outcome, detail = "crashed", f"{seen.failures} requests failed"
    if outcome == "ok" and job.memory_limit_bytes and (seen.peak_bytes or 0) > job.memory_limit_bytes:
        outcome, detail = "oom", "the worker held more before the limit was set"
    return MemoryTrial(
        limit_bytes=job.memory_limit_bytes,
        outcome=outcome,
        seconds=time.monotonic() - started,
        peak_bytes=seen.peak_bytes,
        detail=detail,
    )


def _hangs(patience_s: float) -> tuple[Outcome, str]:
    return "timeout", f"not done after {patience_s:.0f} s"


class _Seen(Struct):
    """What was seen of a worker until it closed its records."""

    failures: int = 0
    peak_bytes: int | None = None
    hangs: bool = False


def _follow(worker: Worker, until_s: float) -> _Seen:
    seen, decoder = _Seen(), msgspec.json.Decoder(Event)
    while True:
        seen.peak_bytes = address_space_peak(worker.pid) or seen.peak_bytes
        try:
            line = worker.lines.get(timeout=POLL_S)
        except queue.Empty:
            if time.monotonic() > until_s:
                seen.hangs = True
                return seen
            continue
        if line is None:
            return seen
        event = decoder.decode(line)
        seen.failures += isinstance(event, Answered | Ranked) and event.error is not None


def address_space_peak(pid: int) -> int | None:
    """The kernel's high-water mark in bytes; None where it does not tell or the process has gone."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmPeak:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    return None
