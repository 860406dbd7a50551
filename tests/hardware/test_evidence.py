"""The folder of evidence names every file of a run, holds the small ones, and no log."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.cli import main

SCRIPT = Path(__file__).parents[2] / "benchmarks/collect_evidence.py"


def test_evidence_holds_the_small_files_of_a_run_and_names_the_others(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    assert main(["run", str(write_suite(head="limit = 2", good={})), "--out", str(folder / "runs")]) == 0
    (folder / "figures.jsonl").write_text('{"what": "at rest", "value": 75.25, "unit": "W"}\n')
    command = [sys.executable, str(SCRIPT), str(folder), "--to", str(tmp_path / "evidence")]
    made = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    (run,) = (folder / "runs").iterdir()
    (cell,) = (run / "cells").iterdir()
    page = (made / "README.md").read_text()
    assert "| at rest | 75.25 | W |" in page
    assert all(str(f.relative_to(folder / "runs")) in page for f in run.rglob("*") if f.is_file())
    there = made / cell.relative_to(folder / "runs")
    assert gzip.decompress((there / "telemetry.jsonl.gz").read_bytes()) == (cell / "telemetry.jsonl").read_bytes()
    assert (there / "events.jsonl").read_bytes() == (cell / "events.jsonl").read_bytes()
    assert not list(made.rglob("worker.log"))
    assert not list(made.rglob("report.html"))
