"""A backend in another environment, run as the product runs it: the real worker, one job in, records out."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.config import BackendSettings
from bench.job import Job, JobStep
from results.records import Answered, Continuation, EngineInfo, Event, Loaded, Ranked

ROOT = Path(__file__).parents[2]
LONGEST_S = 1800


class Worked(Struct, frozen=True, kw_only=True):
    code: int
    last_line: str
    """Of the log."""
    events: tuple[Event, ...]

    @property
    def engine(self) -> EngineInfo:
        assert self.code == 0, self.last_line
        (info,) = [event.engine for event in self.events if isinstance(event, Loaded)]
        return info

    def answers(self, step: str) -> dict[str, Answered]:
        """By request; a failed one is an assertion."""
        found = {e.sample: e for e in self.events if isinstance(e, Answered) and e.step == step}
        assert found, self.last_line
        assert {a.error for a in found.values()} == {None}
        return found

    def texts(self, step: str) -> dict[str, str | None]:
        return {name: answer.text for name, answer in self.answers(step).items()}

    def ranks(self, step: str) -> dict[str, tuple[Continuation, ...]]:
        found = {e.sample: e for e in self.events if isinstance(e, Ranked) and e.step == step}
        assert found, self.last_line
        assert {r.error for r in found.values()} == {None}
        return {name: ranked.continuations for name, ranked in found.items()}


def work(
    python: str, settings: BackendSettings, steps: Sequence[JobStep] = (), memory_limit_bytes: int | None = None
) -> Worked:
    job = Job(cell="t", settings=settings, steps=tuple(steps), memory_limit_bytes=memory_limit_bytes)
    done = subprocess.run(
        [python, "-m", "bench.worker", "-", str(os.getpid())],
        input=msgspec.json.encode(job),
        capture_output=True,
        cwd=ROOT,
        timeout=LONGEST_S,
        check=False,
    )
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    events = tuple(msgspec.json.decode(line, type=Event) for line in done.stdout.splitlines())
    return Worked(code=done.returncode, last_line=lines[-1] if lines else "", events=events)
