"""Nights from end to end with scripted models: blocks, history, verdicts, files, exit statuses."""

import json
from pathlib import Path

import junitparser
import pytest

from bench.cli import GATE_FAILED, OK, USER_ERROR, main
from results.nightly import history

SUITE = """
name = "tiny"
idle_s = 0.0
limit = 4
tasks = ["clinical_qa_en"]
[nightly]
control = "control"
blocks = 2
[[deployments]]
name = "control"
backend = "scripted"
[[deployments]]
name = "candidate"
backend = "scripted"
settings = { %s }
"""


def night(folder: Path, label: str, settings: str = "slots = 32") -> int:
    suite = folder / "suite.toml"
    suite.write_text(SUITE % settings)
    return main(["nightly", str(suite), "--history", str(folder / "history"), "--night", label])


def test_a_night_leaves_its_files_and_a_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    said = json.loads(capsys.readouterr().out)
    assert (said["suite"], said["night"], said["verdict"], said["regressions"]) == ("tiny", "2026-01-01", "ok", [])
    made = {p.name for p in (tmp_path / "history" / "nights" / "2026-01-01").iterdir()}
    assert made == {"nightly.md", "nightly.html", "nightly.json", "junit.xml", "benchmark.json"}
    suite = junitparser.JUnitXml.fromfile(str(tmp_path / "history" / "nights" / "2026-01-01" / "junit.xml"))
    assert suite.failures == 0
    assert len(list((tmp_path / "history" / "runs").iterdir())) == 2


def test_a_night_that_was_run_is_not_run_again(tmp_path: Path) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    runs = sorted(p.name for p in (tmp_path / "history" / "runs").iterdir())
    assert night(tmp_path, "2026-01-01") == OK
    assert sorted(p.name for p in (tmp_path / "history" / "runs").iterdir()) == runs


def test_each_night_asks_the_next_part_of_the_pool(tmp_path: Path) -> None:
    for label in ("2026-01-01", "2026-01-02"):
        assert night(tmp_path, label) == OK
    entries, _ = history.read_runs(tmp_path / "history" / "runs")
    asked = {label: {e.item for e in entries if e.item and e.night == label} for label in ("2026-01-01", "2026-01-02")}
    assert len(asked["2026-01-01"]) == len(asked["2026-01-02"]) == 4
    assert not asked["2026-01-01"] & asked["2026-01-02"]


def test_a_deployment_that_fails_for_the_first_time_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    assert night(tmp_path, "2026-01-02", "die_after = 3") == GATE_FAILED
    assert "candidate ended crashed, which it did not the night before" in capsys.readouterr().err


def test_the_history_file_is_made_again_from_the_runs(tmp_path: Path) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    kept = tmp_path / "history" / "history.parquet"
    before = sorted(history.read(kept), key=repr)
    kept.write_bytes(b"not parquet")
    assert night(tmp_path, "2026-01-01") == OK
    assert sorted(history.read(kept), key=repr) == before


def test_a_broken_run_in_the_history_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    (tmp_path / "history" / "history.parquet").unlink()
    broken = min((tmp_path / "history" / "runs").iterdir())
    (broken / "manifest.json").write_text("{")
    capsys.readouterr()
    assert night(tmp_path, "2026-01-02") == OK
    assert any(broken.name in event for event in json.loads(capsys.readouterr().out)["events"])


def test_an_unknown_control_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text((SUITE % "slots = 32").replace('control = "control"', 'control = "nobody"'))
    assert main(["nightly", str(suite), "--history", str(tmp_path / "h"), "--night", "n"]) == USER_ERROR
    assert "control `nobody` is no deployment" in capsys.readouterr().err
