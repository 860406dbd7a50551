"""Summaries are compared with their references by an encoder, after the cells, and nobody is let think that it reads negations."""

from pathlib import Path

import pytest

from bench.cli import OK, USER_ERROR, main
from bench.config import Similarity
from bench.encoders import ScriptedEncoder, cosine
from results.records import Compared
from results.rows import Row, read_rows
from results.store import RunDir

REPLY = "Aspirin 75 mg was continued. The patient is well today."


BOTH = 'tasks = ["note_summary_en", "note_summary_zh"]'


def suite_of(folder: Path, table: str = "", tasks: str = BOTH, head: str = "") -> Path:
    path = folder / "suite.toml"
    path.write_text(
        f'name = "t"\nidle_s = 0.0\nlimit = 3\nstall_timeout_s = 20.0\n{head}\n'
        f'{tasks}\n[similarity]\nbackend = "scripted"\n{table}\n'
        f'[[deployments]]\nname = "good"\nbackend = "scripted"\nsettings = {{ reply = "{REPLY}" }}\n'
    )
    return path


def run(suite: Path, out: Path) -> tuple[RunDir, dict[str, Row]]:
    assert main(["run", str(suite), "--out", str(out)]) == OK
    folder = RunDir(max(out.iterdir()))
    return folder, {row.task: row for row in read_rows(folder.path / "rows.csv")}


def compared(folder: RunDir) -> list[Compared]:
    events = [e for c in folder.manifest().cells for e in folder.cell(c.id).events()]
    return [e for e in events if isinstance(e, Compared)]


def test_a_summary_gets_its_cosine_with_what_it_is_to_be_read_by(tmp_path: Path) -> None:
    folder, rows = run(suite_of(tmp_path), tmp_path / "out")
    english, chinese = compared(folder)
    assert (english.identical, english.dimension, english.pooling) == (pytest.approx(1), 256, "sum")
    assert english.negated is not None
    assert english.negated > 0.9
    assert len(english.summaries) == 3
    row = rows["note_summary_en"]
    assert row.similarity is not None
    assert row.similarity_lo is not None
    assert row.similarity_unrelated is not None
    assert row.similarity_lo < row.similarity < row.similarity_unrelated  # says almost nothing of its note
    assert (row.similarity_negated, row.similarity_reason) == (english.negated, None)
    assert chinese.reason == "the encoder is not said to know zh (`languages` of [similarity])"
    assert (rows["note_summary_zh"].similarity, rows["note_summary_zh"].similarity_reason) == (None, chinese.reason)
    assert folder.edits() == []
    assert "insensitive to negation and numbers" in (folder.path / "report.html").read_text(encoding="utf-8")


def test_a_run_that_is_all_there_is_not_compared_twice(tmp_path: Path) -> None:
    folder, _ = run(suite_of(tmp_path, 'languages = ["en", "zh"]'), tmp_path / "out")
    assert main(["run", "--resume", str(folder.path)]) == OK
    assert [c.reason for c in compared(folder)] == ["", ""]


def test_a_text_longer_than_the_encoder_reads_is_marked(tmp_path: Path) -> None:
    folder, _ = run(suite_of(tmp_path, "context = 5"), tmp_path / "out")
    assert {s.cut for s in compared(folder)[0].summaries} == {True}


def test_an_encoder_that_fails_leaves_its_reason_and_the_run_as_it_was(tmp_path: Path) -> None:
    gone = tmp_path / "gone.gguf"
    suite = suite_of(tmp_path, f'model = "file:{gone}"')
    suite.write_text(
        suite.read_text().replace('[similarity]\nbackend = "scripted"', '[similarity]\nbackend = "llama_cpp"')
    )
    _, rows = run(suite, tmp_path / "out")
    row = rows["note_summary_en"]
    assert (row.outcome, row.similarity) == ("ok", None)
    assert str(gone) in str(row.similarity_reason)


def test_no_text_is_left_where_none_may_be_kept(tmp_path: Path) -> None:
    folder, rows = run(suite_of(tmp_path, head="store_text = false"), tmp_path / "out")
    assert rows["note_summary_en"].similarity is not None
    kept = [p for p in folder.path.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert [p for p in kept if b"well today" in p.read_bytes()] == []


def test_a_suite_without_summaries_needs_no_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(suite_of(tmp_path, tasks='tasks = ["clinical_qa_en"]'))]) == USER_ERROR
    assert "[similarity] is given and no task has summaries" in capsys.readouterr().err


def test_the_plan_names_the_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(suite_of(tmp_path))]) == OK
    assert "Similarity: scripted, after the cells, for en." in capsys.readouterr().out


def test_a_vector_without_length_has_no_cosine() -> None:
    encoder = ScriptedEncoder(Similarity(backend="scripted"))
    assert cosine(encoder.encode("").vector, encoder.encode("a").vector) is None
    assert cosine((3.0, 4.0), (4.0, 3.0)) == pytest.approx(0.96)
