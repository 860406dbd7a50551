"""What a run shows while it goes: a live line on a terminal, plain lines elsewhere. Everything goes to stderr."""

import sys
import time
from collections.abc import Sequence

from bench.plan import CellPlan
from bench.runner import Watcher
from hardware import Reading
from results.manifest import StepFacts
from results.records import Answered, CellEnded, Event, Loaded, MemoryProbed, Progress, Ranked, StepEnded, StepStarted

TOKENS_PER_RANKING = 8
"""A ranking takes about as long as so many tokens of an answer: prompts are read far faster than answers are written."""


def work(step: StepFacts) -> float:
    """How much one sample of a step weighs in the estimate of the time left."""
    return 1.0 if step.scoring != "generate" else (step.max_tokens or 256) / TOKENS_PER_RANKING


class State:
    """The figures of the moment, folded from events and readings."""

    def __init__(self, cells: Sequence[CellPlan]) -> None:
        self.cells, self.cell, self.name = len(cells), 0, ""
        self._work = sum(
            work(s) * s.samples for c in cells if not c.facts.skipped for s in c.facts.steps if not s.warmup
        )
        self._done = 0.0
        self.step, self.step_samples, self.step_done = "", 0, 0
        self.tokens_per_s: float | None = None
        self.memory_bytes: int | None = None
        self.watts: dict[str, tuple[float, bool]] = {}
        self.started = time.monotonic()
        self._last: tuple[int, int] | None = None
        self._plan: dict[str, StepFacts] = {}

    def cell_begins(self, cell: CellPlan) -> None:
        self.cell += 1
        self.name = cell.facts.deployment
        self._plan = {s.name: s for s in cell.facts.steps if not s.warmup}

    def judge_begins(self, judge: CellPlan) -> None:
        self.name = judge.facts.deployment
        self._plan = {s.facts.name: s.facts for s in judge.steps}
        self._work += sum(work(s) * s.samples for s in self._plan.values())

    def event(self, event: Event) -> None:
        match event:
            case StepStarted():
                self.step, self.step_done = event.step, 0
                self.step_samples = self._plan[event.step].samples if event.step in self._plan else 0
            case Answered() | Ranked() if event.step in self._plan:
                self.step_done += 1
                self._done += work(self._plan[event.step])
            case Progress():
                if self._last and event.time_ns > self._last[0]:
                    self.tokens_per_s = (event.output_tokens - self._last[1]) / (event.time_ns - self._last[0]) * 1e9
                self._last = (event.time_ns, event.output_tokens)
            case CellEnded():
                self._last = self.tokens_per_s = None
            case _:
                pass

    def reading(self, reading: Reading) -> None:
        if reading.anon_bytes is not None:
            self.memory_bytes = (reading.anon_bytes or 0) + (reading.file_bytes or 0)
        if reading.memory_bytes is not None:
            self.memory_bytes = reading.memory_bytes
        if reading.power_w is not None:
            self.watts[f"{reading.meter}/{reading.device}"] = (reading.power_w, reading.power_low_w is not None)

    def left_s(self) -> float | None:
        """Rough: by the share of the work that is done."""
        if not self._done:
            return None
        return (time.monotonic() - self.started) / self._done * max(0.0, self._work - self._done)

    def line(self) -> str:
        parts = [f"cell {self.cell}/{self.cells} {self.name}", self.step or "loading"]
        if self.step_samples:
            parts.append(f"{self.step_done}/{self.step_samples}")
        if self.tokens_per_s is not None:
            parts.append(f"{self.tokens_per_s:.0f} tok/s")
        if self.memory_bytes is not None:
            parts.append(f"{self.memory_bytes / 2**30:.2f} GiB")
        if self.watts:
            total = sum(w for w, _ in self.watts.values())
            mark = "~" if any(estimated for _, estimated in self.watts.values()) else ""
            parts.append(f"{mark}{total:.0f} W")
        if (left := self.left_s()) is not None:
            parts.append(f"about {left / 60:.1f} min left" if left >= 60 else f"about {left:.0f} s left")
        return " | ".join(parts)


class PlainWatcher(Watcher):
    """A line at each beginning and end; for logs and pipes."""

    def __init__(self, cells: Sequence[CellPlan]) -> None:
        self._state = State(cells)
        self._warnings = [(c.facts.deployment, sentence) for c in cells for sentence in c.facts.warnings]
        self._began: dict[str, int] = {}

    def cell(self, cell: CellPlan) -> None:
        if self._state.cell == 0:
            for name, sentence in self._warnings:
                self._say(f"{name}: {sentence}")
        self._state.cell_begins(cell)
        self._say(f"cell {self._state.cell}/{self._state.cells} {cell.facts.deployment}")

    def judge(self, cell: CellPlan) -> None:
        self._state.judge_begins(cell)
        self._say(f"judge {cell.facts.deployment}")

    def event(self, cell: CellPlan, event: Event) -> None:
        self._state.event(event)
        match event:
            case Loaded():
                self._say(f"  loaded in {(event.end_ns - event.start_ns) / 1e9:.1f} s")
            case StepStarted():
                self._began[event.step] = event.time_ns
            case StepEnded() if not event.step.startswith("warmup:"):
                seconds = (event.time_ns - self._began[event.step]) / 1e9
                left = self._state.left_s()
                rest = f", about {left:.0f} s left" if left is not None else ""
                early = f", ended early: {event.stopped.decision}" if event.stopped else ""
                self._say(f"  {event.step}: {self._state.step_done} samples in {seconds:.1f} s{early}{rest}")
            case MemoryProbed(smallest_bytes=int(smallest)):
                self._say(f"  smallest memory that works: {smallest / 2**20:.0f} MiB ({event.limit})")
            case MemoryProbed():
                self._say(f"  smallest memory that works: unknown, {event.reason}")
            case _:
                pass

    def reading(self, reading: Reading) -> None:
        self._state.reading(reading)

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class LiveWatcher(PlainWatcher):
    """The same lines, and under them one that lives."""

    def __init__(self, cells: Sequence[CellPlan]) -> None:
        super().__init__(cells)
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            "",
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
            refresh_per_second=4,
            transient=True,
        )
        self._live.start()

    def event(self, cell: CellPlan, event: Event) -> None:
        super().event(cell, event)
        self._live.update(self._state.line())

    def close(self) -> None:
        self._live.stop()

    def _say(self, text: str) -> None:  # type: ignore[override]
        self._live.console.print(text)
