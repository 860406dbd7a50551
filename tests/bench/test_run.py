"""The whole program with scripted models: outcomes, resuming, exit statuses, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from msgspec import structs

from bench.cli import CELL_FAILED, OK, USER_ERROR, main
from bench.process import MARK
from results.records import Answered, Ranked
from results.store import CellDir, RunDir

ROOT = Path(__file__).parents[2]
NOTES = "[tasks.note_summary_en]\nlimit = 4\nload = [{ concurrency = 2 }]"
GENERATED = '[tasks.clinical_qa_en]\nscoring = "generate"\nlimit = 3'
Suite = Callable[..., Path]


def run(suite: Path, out: Path, *more: str) -> tuple[int, RunDir]:
    status = main(["run", str(suite), "--out", str(out), *more])
    return status, RunDir(max(out.iterdir()))


def cells(folder: RunDir) -> dict[str, CellDir]:
    return {cell.deployment: folder.cell(cell.id) for cell in folder.manifest().cells}


def ended(folder: RunDir) -> dict[str, tuple[str, str]]:
    found = {name: cell.ended() for name, cell in cells(folder).items()}
    return {name: (e.outcome, e.detail) for name, e in found.items() if e}


def test_a_run_is_measured_scored_reported_and_sealed(write_suite: Suite, tmp_path: Path) -> None:
    status, folder = run(write_suite(good={}, head="limit = 6"), tmp_path / "runs")
    assert status == OK
    (cell,) = cells(folder).values()
    ranked = [e for e in cell.events() if isinstance(e, Ranked) and not e.step.startswith("warmup")]
    assert len(ranked) == len(list(cell.scores())) == 6
    assert {p.name for p in folder.path.iterdir()} >= {
        "manifest.json",
        "rows.csv",
        "report.html",
        "report.md",
        "seal.json",
    }
    assert folder.edits() == []


def test_each_way_to_fail_is_an_outcome_and_the_others_go_on(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(
        head="limit = 4\nload_timeout_s = 8.0\nstall_timeout_s = 4.0",
        dies={"die_after": 1},
        dies_in_load={"die_in_load": True},
        hangs={"hang_after": 1},
        hangs_in_load={"hang_in_load": True},
        no_memory={"oom_after": 1},
        good={},
    )
    status, folder = run(suite, tmp_path / "runs")
    assert status == CELL_FAILED
    assert ended(folder) == {
        "dies": ("crashed", "signal 9"),
        "dies_in_load": ("crashed", "signal 9"),
        "hangs": ("timeout", "no sign of progress for 4 s while running"),
        "hangs_in_load": ("timeout", "no sign of progress for 8 s while loading"),
        "no_memory": ("oom", "the engine could not get the memory it needs"),
        "good": ("ok", ""),
    }
    assert processes_of_ours() == []


def test_failed_requests_are_errors_and_never_answers(write_suite: Suite, tmp_path: Path) -> None:
    status, folder = run(write_suite(head="limit = 6", good={"fail_every": 3}), tmp_path / "runs")
    (cell,) = cells(folder).values()
    verdicts = [s.verdict for s in cell.scores()]
    assert status == OK
    assert verdicts.count("error") == 2
    assert all(s.value is None for s in cell.scores() if s.verdict == "error")


def test_resuming_repeats_only_what_is_missing(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(tasks="[tasks.clinical_qa_en]\nlimit = 3\n" + NOTES, dies={"die_after": 9}, good={})
    status, folder = run(suite, tmp_path / "runs")
    assert status == CELL_FAILED
    before = {name: cell.finished_steps() for name, cell in cells(folder).items()}
    assert "clinical_qa_en@c1" in before["dies"]
    assert "note_summary_en@c2" not in before["dies"]
    good = list(cells(folder)["good"].events())
    assert main(["run", "--resume", str(folder.path)]) == OK  # what is left is shorter than its life
    assert list(cells(folder)["good"].events()) == good
    assert cells(folder)["dies"].finished_steps().count("clinical_qa_en@c1") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_is_resumed_to_the_same_samples(
    write_suite: Suite, tmp_path: Path, number: signal.Signals
) -> None:
    suite = write_suite(tasks=NOTES, head="limit = 4", slow={"reply": "Summary: well.", "delay_s": 0.3})
    out = tmp_path / "runs"
    child = start_program("run", str(suite), "--out", str(out))
    wait_for(lambda: any(isinstance(e, Answered) for c in started_cells(out) for e in c.events()))
    child.send_signal(number)
    child.communicate(timeout=30)
    assert child.returncode == 130
    assert processes_of_ours() == []
    folder = RunDir(max(out.iterdir()))
    assert ended(folder)["slow"][0] == "interrupted"
    assert main(["run", "--resume", str(folder.path)]) == OK
    assert len(list(cells(folder)["slow"].scores())) == 4


def test_a_killed_parent_leaves_no_process_and_a_run_that_can_be_resumed(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(tasks=NOTES, head="limit = 4", slow={"reply": "Summary: well.", "delay_s": 0.3})
    out = tmp_path / "runs"
    child = start_program("run", str(suite), "--out", str(out))
    wait_for(lambda: any(isinstance(e, Answered) for c in started_cells(out) for e in c.events()))
    child.kill()
    child.communicate(timeout=30)
    wait_for(lambda: processes_of_ours() == [])
    folder = RunDir(max(out.iterdir()))
    assert main(["run", "--resume", str(folder.path)]) == OK
    assert len(list(cells(folder)["slow"].scores())) == 4


def test_a_second_process_on_the_same_run_is_refused_and_names_the_first(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(tasks=NOTES, head="limit = 4", slow={"reply": "Summary: well.", "delay_s": 0.5})
    out = tmp_path / "runs"
    child = start_program("run", str(suite), "--out", str(out))
    wait_for(lambda: any(isinstance(e, Answered) for c in started_cells(out) for e in c.events()))
    second = start_program("run", "--resume", str(max(out.iterdir())))
    _, words = second.communicate(timeout=60)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert second.returncode == USER_ERROR
    assert f"process {child.pid} is working on this run" in words


@pytest.mark.parametrize("keep", ["store_text = false", 'redact = ["PLANTED-[0-9]+"]'])
def test_text_that_may_not_be_kept_is_nowhere_under_the_run(write_suite: Suite, tmp_path: Path, keep: str) -> None:
    suite = write_suite(tasks=NOTES, head=f"limit = 4\n{keep}", good={"reply": "Summary: PLANTED-77 is well."})
    status, folder = run(suite, tmp_path / "runs")
    assert status == OK
    assert len(list(cells(folder)["good"].scores())) == 4
    files = [p for p in folder.path.rglob("*") if p.is_file()]
    holding = [p.name for p in files if b"PLANTED-77" in p.read_bytes()]
    assert holding in ([], ["manifest.json"])  # the manifest holds the suite, whose scripted reply is a setting


def test_answers_judged_again_are_in_the_report_too(write_suite: Suite, tmp_path: Path) -> None:
    _, folder = run(write_suite(good={"reply": "Answer: A"}, tasks=GENERATED), tmp_path / "runs")
    (cell,) = cells(folder).values()
    first = list(cell.scores())
    made = (folder.path / "rows.csv").read_text()
    cell.write_scores([structs.replace(s, value=0.0, verdict="wrong") for s in first])
    (folder.path / "rows.csv").write_text("stale")
    folder.seal()
    assert main(["score", str(folder.path)]) == OK
    assert list(cell.scores()) == first
    assert (folder.path / "rows.csv").read_text() == made
    assert folder.edits() == []


def test_a_run_whose_texts_were_redacted_is_not_judged_again(
    write_suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(good={"reply": "Answer: A"}, head="redact = ['Answer: [A-E]']", tasks=GENERATED)
    _, folder = run(suite, tmp_path / "runs")
    (cell,) = cells(folder).values()
    judged = list(cell.scores())
    assert {s.verdict for s in judged} <= {"correct", "wrong"}
    assert main(["score", str(folder.path)]) == USER_ERROR
    assert "did not keep its texts whole" in capsys.readouterr().err
    assert list(cell.scores()) == judged


def test_what_the_patterns_match_is_redacted_in_the_scores_too(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(good={"reply": "Answer: A"}, head="redact = ['A']", tasks=GENERATED)
    _, folder = run(suite, tmp_path / "runs")
    assert {s.answer for cell in cells(folder).values() for s in cell.scores()} == {"[redacted]"}


@pytest.mark.parametrize("more", [["--limit", "1"], ["--seed", "2"], ["--only", "x"], ["--name", "n"], ["other.toml"]])
def test_resuming_takes_nothing_that_would_change_the_plan(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--resume", "somewhere", *more]) == USER_ERROR
    assert "goes on with a run as it was planned" in capsys.readouterr().err


def test_run_folders_are_private(write_suite: Suite, tmp_path: Path) -> None:
    _, folder = run(write_suite(good={}, head="limit = 2"), tmp_path / "runs")
    for path in [folder.path, *folder.path.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o777 == expected, path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nosuch"], "no such suite"),
        (["run", "none.toml"], "cannot be read"),
        (["run", "--resume", "nowhere"], "no run here"),
        (["report", "nowhere"], "no run here"),
        (["verify", "nowhere"], "no run here"),
        (["fly"], "fly"),
        (["run", "--limit", "many"], "'--limit'"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == USER_ERROR
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said


def test_an_edited_file_is_found_and_named(
    write_suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = run(write_suite(good={}, head="limit = 2"), tmp_path / "runs")
    sealed = [p for p in folder.path.rglob("*") if p.is_file() and p.stat().st_size]
    for path in sealed:
        data = path.read_bytes()
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        assert any(path.name in sentence for sentence in folder.edits()), path
        path.write_bytes(data)
    assert folder.edits() == []


def test_a_python_without_the_libraries_is_told_which_one_has_them() -> None:
    bare = subprocess.run(
        [sys.executable, "-S", str(ROOT / "run_bench.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert bare.returncode == 2
    assert "use .venv/bin/python" in bare.stderr
    assert len(bare.stderr.splitlines()) == 1


def start_program(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_bench.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """A shell without job control starts what it puts into the background with SIGINT ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started_cells(out: Path) -> list[CellDir]:
    return [CellDir(path) for path in out.glob("*/cells/*")] if out.exists() else []


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def processes_of_ours() -> list[int]:
    """Living workers that were started by a test of this session."""
    home = os.environ["XDG_CACHE_HOME"]
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if (
                MARK in environment
                and environment.get("XDG_CACHE_HOME") == home
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found
