"""A night that is killed at any of its stages: the same command goes on, and its history is that of an undisturbed night."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import living
import pytest
from living import ROOT, ours, records, wait_for

from bench.cli import OK, main
from results.nightly import history
from results.records import Ranked

SUITE = """
name = "k"
idle_s = 0.0
limit = 4
tasks = ["clinical_qa_en"]
[nightly]
control = "a"
blocks = 2
spare_blocks = 0
[[deployments]]
name = "a"
backend = "scripted"
settings = { delay_s = 0.05 }
[[deployments]]
name = "b"
backend = "scripted"
settings = { delay_s = 0.05 }
"""

STAGES: dict[str, Callable[[Path], object]] = {
    "the first block has begun": lambda folder: list((folder / "runs").glob("*/manifest.json")),
    "the first block answers": lambda folder: any(isinstance(e, Ranked) for e in records(folder / "runs")),
    "between two blocks": lambda folder: list((folder / "runs").glob("*-b1/seal.json")),
    "the second block has begun": lambda folder: list((folder / "runs").glob("*-b2/cells/*/events.jsonl")),
    "the blocks are done": lambda folder: list((folder / "runs").glob("*-b2/seal.json")),
    "the history is written": lambda folder: list(folder.glob("history.parquet*")),
}


def asked(folder: Path) -> list[tuple[str, int, str, bool | None]]:
    entries = history.read(folder / "history.parquet")
    return sorted((e.deployment, e.block, e.item, e.right) for e in entries if e.item)


@pytest.mark.parametrize("stage", STAGES)
def test_a_night_killed_at_any_stage_goes_on(tmp_path: Path, stage: str) -> None:
    suite, folder = tmp_path / "suite.toml", tmp_path / "history"
    suite.write_text(SUITE)
    words = ["nightly", str(suite), "--night", "n", "--history"]
    command = [sys.executable, str(ROOT / "run_bench.py"), *words, str(folder)]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: STAGES[stage](folder), stage)
    program.kill()
    program.wait(living.PATIENCE_S)
    wait_for(lambda: ours() == [], "no process is left")
    assert main([*words, str(folder)]) == OK
    assert main([*words, str(tmp_path / "undisturbed")]) == OK
    assert asked(folder) == asked(tmp_path / "undisturbed") != []
    names = [path.name.partition("_")[2] for path in sorted((folder / "runs").iterdir())]
    assert names == ["k-night-n-b1", "k-night-n-b2"]
    assert {p.name for p in folder.iterdir()} == {"history.parquet", "nights", "runs"}


def test_a_block_that_was_cut_before_its_plan_stood_is_begun_anew(tmp_path: Path) -> None:
    suite, folder = tmp_path / "suite.toml", tmp_path / "history"
    suite.write_text(SUITE)
    cut = folder / "runs" / "20261129T000000Z_k-night-n-b2"
    (cut / "cells").mkdir(parents=True)
    (cut / "manifest.json.part").write_text("{")
    assert main(["nightly", str(suite), "--night", "n", "--history", str(folder)]) == OK
    assert not cut.exists()
    assert len(list((folder / "runs").glob("*-b2"))) == 1
