"""Runs and resumes a suite without its report, in a process that can be killed; reads what is left on disk.

`python living.py start SUITE OUT` or `python living.py resume RUN`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from bench import session  # noqa: E402
from bench.config import load_suite  # noqa: E402
from bench.process import MARK  # noqa: E402
from bench.runner import Watcher  # noqa: E402
from results.records import Answered, CellStarted, Event, Ranked, StepEnded, StepStarted  # noqa: E402
from results.store import CellDir, RunDir  # noqa: E402

WISHES = session.Wishes()


def start_run(suite: Path, out: Path) -> RunDir:
    prepared = session.prepare(load_suite(suite), suite.parent, WISHES)
    folder = session.start(prepared, out, None)
    session.execute(prepared, folder, WISHES, Watcher())
    return folder


def resume_run(folder: RunDir) -> dict[str, str]:
    return dict(session.execute(session.reopen(folder, WISHES), folder, WISHES, Watcher()))


def child(*arguments: str | Path, before: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
    """This file as a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=before)


def only_run(out: Path) -> RunDir:
    return RunDir(max(out.iterdir()))


def cells(folder: RunDir) -> dict[str, CellDir]:
    return {cell.deployment: folder.cell(cell.id) for cell in folder.manifest().cells}


def records(out: Path) -> list[Event]:
    """All records under a folder of runs, which may not be there yet."""
    return [e for path in out.glob("*/cells/*") for e in CellDir(path).events()] if out.exists() else []


def worker_pid(out: Path) -> int | None:
    pids = [e.pid for e in records(out) if isinstance(e, CellStarted)]
    return pids[-1] if pids else None


def valid_texts(cell: CellDir) -> dict[tuple[str, str, int], object]:
    """The answers that count: of finished steps, of the last attempt. Warm-ups left out."""
    found: dict[str, dict[tuple[str, str, int], object]] = {}
    finished: dict[tuple[str, str, int], object] = {}
    for event in cell.events():
        match event:
            case StepStarted():
                found[event.step] = {}
            case Answered() | Ranked() if event.step in found:
                key = (event.step, event.sample, event.repeat)
                assert key not in found[event.step], f"{key} stands twice"
                found[event.step][key] = event.text if isinstance(event, Answered) else event.continuations
            case StepEnded() if not event.step.startswith("warmup"):
                finished |= found.pop(event.step)
            case _:
                pass
    return finished


def judged(folder: RunDir) -> dict[str, dict[tuple[str, str, int], tuple[object, ...]]]:
    """Every score of every deployment; fails when a sample was judged twice."""
    result = {}
    for name, cell in cells(folder).items():
        scores = list(cell.scores())
        result[name] = {(s.step, s.sample, s.repeat): (s.value, s.verdict, s.answer) for s in scores}
        assert len(result[name]) == len(scores)
    return result


def told(folder: RunDir) -> dict[str, dict[tuple[str, str, int], object]]:
    return {name: valid_texts(cell) for name, cell in cells(folder).items()}


def wait_for(condition: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit, f"waited in vain: {what}"
        time.sleep(0.01)


def ours() -> list[int]:
    """Living processes that a worker of this test session is or has started."""
    home, found = os.environ["XDG_CACHE_HOME"], []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            living = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        if MARK in environment and environment.get("XDG_CACHE_HOME") == home and living:
            found.append(process.pid)
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start", suite, out]:
            start_run(Path(suite), Path(out))
        case ["resume", run]:
            resume_run(RunDir(Path(run)))
