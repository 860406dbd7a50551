"""compare, accept and export as a user calls them: exit statuses, what goes to stdout, what is never written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import GATE_FAILED, OK, USER_ERROR, main
from results.store import RunDir

Suite = Callable[..., Path]

SPEC = """title = "T"
deployment = "a"
[[clauses]]
kind = "accuracy"
task = "clinical_qa_en"
at_least = {limit}
"""


SUITE = """name = "t"
idle_s = 0.0
limit = 12
tasks = ["clinical_qa_en"]
[[deployments]]
name = "a"
backend = "scripted"
settings = { reply = "Answer: A" }
[[deployments]]
name = "b"
backend = "scripted"
settings = { reply = "Answer: B" }
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    (folder / "suite.toml").write_text(SUITE)
    assert main(["run", str(folder / "suite.toml"), "--out", str(folder / "runs")]) == OK
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(measured, tmp_path / measured.name)


def test_two_deployments_of_one_run_are_compared_and_gated(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate, out = tmp_path / "gate.toml", tmp_path / "made" / "comparison.md"
    gate.write_text("max_accuracy_drop = 0.0001\n")
    capsys.readouterr()
    chosen = ["--base-deployment", "a", "--candidate-deployment", "b"]
    assert (
        main(["compare", str(run), str(run), *chosen, "--gate", str(gate), "--out", str(out), "--json"]) == GATE_FAILED
    )
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["comparison"]["cells"][0]["base"] == "a"
    assert found["gate"]["passed"] is False
    assert said.err.startswith("gate: b clinical_qa_en@c1: ")
    assert out.read_text().startswith("# ")
    assert "## Gate" in out.read_text()


def test_a_run_with_itself_passes_any_gate_on_accuracy(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("max_accuracy_drop = 0.0\n")
    assert main(["compare", str(run), str(run), "--gate", str(gate)]) == OK
    assert "No difference: both sides are the same records." in capsys.readouterr().out


def test_what_may_not_be_compared_is_one_sentence_and_status_2(
    run: Path, write_suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(head="limit = 6", a={"reply": "Answer: A"})
    assert main(["run", str(suite), "--out", str(tmp_path / "other")]) == OK
    (other,) = (tmp_path / "other").iterdir()
    capsys.readouterr()
    assert main(["compare", str(run), str(other)]) == USER_ERROR
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "data differ (6 answers to the same items, 6 in one only)" in said.err
    assert main(["compare", str(run), str(other), "--allow", "data"]) == OK


def test_nothing_is_written_into_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(run / "x")
    assert main(["compare", str(run), str(run), "--out", out]) == USER_ERROR
    assert main(["export", str(run), "--to", "csv", "--out", out]) == USER_ERROR
    assert "breaks its seal" in capsys.readouterr().err
    assert RunDir(run).edits() == []


@pytest.mark.parametrize(("limit", "status"), [(0.0, OK), (1.0, GATE_FAILED), (0.25, GATE_FAILED)])
def test_acceptance_ends_with_0_only_when_every_clause_is_met(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, status: int
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC.format(limit=limit))
    assert main(["accept", str(spec), str(run)]) == status
    assert (tmp_path / f"acceptance_{run.name}.html").read_text().startswith("<!doctype html>")


def test_acceptance_of_an_edited_run_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC.format(limit=0.0))
    (scores, *_) = run.glob("cells/*/scores.jsonl")
    scores.write_bytes(scores.read_bytes().replace(b'"wrong"', b'"correct"'))
    capsys.readouterr()
    assert main(["accept", str(spec), str(run), "--out", str(tmp_path / "a.html")]) == USER_ERROR
    assert "scores.jsonl was edited" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("to", ["csv", "parquet", "pytest-benchmark", "lm-eval", "junit"])
def test_every_format_is_written_and_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["export", str(run), "--to", to]) == OK
    assert (tmp_path / capsys.readouterr().out.strip()).exists()


def test_an_unknown_format_is_a_mistake_of_the_user(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--to", "xlsx"]) == USER_ERROR
    assert "unknown; one of csv, parquet, pytest-benchmark, lm-eval, junit" in capsys.readouterr().err
