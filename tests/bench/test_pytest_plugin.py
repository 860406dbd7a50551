"""`bedside_cell` in a user's own tests, run by a pytest of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
name = "mine"
idle_s = 0.0
tasks = ["clinical_qa_en", "note_summary_en"]
load = [{ concurrency = 2 }]
[[deployments]]
name = "q4"
backend = "scripted"
settings = { delay_s = 0.01 }
[[deployments]]
name = "dies"
backend = "scripted"
settings = { die_after = 1 }
"""


def run_tests(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "my.toml").write_text(SUITE)
    (folder / "test_mine.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-W", "error", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_cell_gives_its_rows_its_verdicts_and_its_folder(tmp_path: Path) -> None:
    done = run_tests(
        tmp_path,
        """
from results.store import RunDir

def test_q4(bedside_cell, tmp_path):
    cell = bedside_cell("my.toml", deployment="q4", task="clinical_qa_en", limit=4)
    assert cell.outcome == "ok"
    assert [(r.task, r.samples) for r in cell.rows] == [("clinical_qa_en", 4)]
    assert 0 <= cell.rows[0].accuracy <= 1
    assert {v.step for v in cell.verdicts} == {cell.rows[0].step}
    assert cell.folder.is_relative_to(tmp_path)
    assert RunDir(cell.folder).edits() == []

def test_a_model_that_dies(bedside_cell):
    assert bedside_cell("my.toml", deployment="dies", task="note_summary_en", limit=2).outcome == "crashed"
""",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_seconds_of_the_requests_are_pytest_benchmarks_rounds(tmp_path: Path) -> None:
    done = run_tests(
        tmp_path,
        """
def test_q4(bedside_cell, benchmark):
    assert bedside_cell("my.toml", deployment="q4", task="clinical_qa_en", limit=6).outcome == "ok"
""",
        "--benchmark-json=made.json",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = json.loads((tmp_path / "made.json").read_text())["benchmarks"]
    assert made["stats"]["rounds"] == 6
    assert 0.01 <= made["stats"]["min"] <= made["stats"]["max"] < 5
    assert made["extra_info"]["step"] == "clinical_qa_en@c2"


def test_with_benchmarks_disabled_the_cell_is_run_all_the_same(tmp_path: Path) -> None:
    source = """
def test_q4(bedside_cell, benchmark):
    assert bedside_cell("my.toml", deployment="q4", task="clinical_qa_en", limit=2).rows
"""
    done = run_tests(tmp_path, source, "--benchmark-disable")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ('"my.toml", deployment="q8", task="clinical_qa_en"', "mine: no deployment `q8`; it has q4, dies"),
        ('"my.toml", deployment="q4", task="poetry"', "mine: no task `poetry`; it has clinical_qa_en, note_summary_en"),
        ('"nowhere.toml", deployment="q4", task="poetry"', "nowhere.toml: cannot be read"),
    ],
)
def test_a_mistake_fails_the_test_in_one_sentence(tmp_path: Path, call: str, sentence: str) -> None:
    done = run_tests(tmp_path, f"def test_it(bedside_cell):\n    bedside_cell({call})\n")
    assert done.returncode == 1
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout


def test_the_plugin_costs_every_other_pytest_next_to_nothing() -> None:
    """It is imported by each pytest of the environment it is installed in."""
    heavy = (
        "numpy",
        "httpx",
        "psutil",
        "llama_cpp",
        "torch",
        "bench.session",
        "bench.config",
        "results",
        "tasks",
        "hardware",
    )
    code = f"import sys, bench.pytest_plugin; print(*(set({heavy!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
