"""A judge is asked after the cells, believed only where it agrees with the labels, and never in the way of a measurement."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli import CELL_FAILED, OK, USER_ERROR, main
from results.records import CellEnded, CellStarted, Judged
from results.rows import Row, read_rows
from results.store import CellDir, RunDir
from tasks.judging import LABELS, OPTIONS, labelled

REPLY = "Aspirin 75 mg was continued. The patient is well today."
TASKS = "[tasks.note_summary_en]\nlimit = 3\n[tasks.clinical_qa_en]\nlimit = 2"
SUPPORTED, _, NOT_STATED = (f"Answer: {option}" for option in OPTIONS["en"])


def label_replies(*wrong: int) -> dict[str, str]:
    """What a judge says that hits every label but those with these numbers."""
    said = {}
    for number, row in enumerate(labelled("en")):
        place = LABELS.index(row.label) + (number in wrong)
        said[f"Statement:\n{row.statement}\n"] = f"Answer: {OPTIONS['en'][place % len(LABELS)]}"
    return said


def toml(values: dict[str, Any]) -> str:
    """A table within a line."""
    parts = (f"{json.dumps(k)} = {toml(v) if isinstance(v, dict) else json.dumps(v)}" for k, v in values.items())
    return "{ " + ", ".join(parts) + " }"


def suite_of(folder: Path, *, head: str = "", model: str = "", **judge: Any) -> Path:
    """One scripted deployment and a scripted judge that writes its answers."""
    path = folder / "suite.toml"
    path.write_text(
        f'name = "t"\nidle_s = 0.0\nload_timeout_s = 20.0\nstall_timeout_s = 5.0\n{head}\n{TASKS}\n'
        f'[judge]\nbackend = "scripted"\nscoring = "generate"\nsettings = {toml({"reply": SUPPORTED} | judge)}\n'
        f'[[deployments]]\nname = "good"\nbackend = "scripted"\nsettings = {toml({"reply": REPLY})}\n{model}'
    )
    return path


def run(suite: Path, out: Path, expected: int = OK) -> RunDir:
    assert main(["run", str(suite), "--out", str(out)]) == expected
    return RunDir(max(out.iterdir()))


def cell(folder: RunDir) -> CellDir:
    return folder.cell(folder.manifest().cells[0].id)


def judged(folder: RunDir) -> list[Judged]:
    return [e for e in cell(folder).events() if isinstance(e, Judged)]


def summary_row(folder: RunDir) -> Row:
    (row,) = (r for r in read_rows(folder.path / "rows.csv") if r.task == "note_summary_en")
    return row


def test_a_judge_that_knows_the_labels_is_shown_with_its_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = label_replies(0, 30, 60) | {"Statement:\nThe patient is well today.": NOT_STATED}
    folder = run(suite_of(tmp_path, replies=replies), tmp_path / "out")
    (record,) = judged(folder)
    assert (record.scoring, len(record.labels), record.summaries, record.reason) == ("generate", 72, 3, "")
    assert [(s.statement, s.verdict) for s in record.statements] == [(0, "supported"), (1, "not_stated")] * 3
    row = summary_row(folder)
    assert (row.judge, row.judge_statements, row.judge_reason) == ("judge", 6, None)
    assert (row.judge_supported, row.judge_contradicted) == (0.5, 0.0)
    assert row.judge_accuracy == pytest.approx(69 / 72)
    assert row.judge_kappa == pytest.approx((69 / 72 - 1 / 3) / (2 / 3), abs=0.001)
    assert row.judge_kappa_lo is not None
    assert 0.8 < row.judge_kappa_lo < row.judge_kappa
    assert folder.edits() == []
    for page in ("report.html", "report.md"):
        assert "What a judge model says of the summaries" in (folder.path / page).read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["verify", str(folder.path)]) == OK
    assert "kappa 0.94" in capsys.readouterr().out


def test_a_chinese_judge_is_asked_in_chinese(tmp_path: Path) -> None:
    replies = {
        f"总结中的一句话：\n{row.statement}\n": f"答案：{OPTIONS['zh'][LABELS.index(row.label)]}"
        for row in labelled("zh")
    }
    suite = suite_of(tmp_path, reply=f"答案：{OPTIONS['zh'][1]}", replies=replies)
    suite.write_text(
        suite.read_text().replace("note_summary_en", "note_summary_zh").replace(REPLY, "无发热。予头孢1g。")
    )
    folder = run(suite, tmp_path / "out")
    (record,) = judged(folder)
    assert {x.label == x.verdict for x in record.labels} == {True}
    (row,) = (r for r in read_rows(folder.path / "rows.csv") if r.task == "note_summary_zh")
    assert (row.judge_kappa, row.judge_supported, row.judge_contradicted) == (1.0, 0.0, 1.0)


def test_a_judge_that_says_the_same_of_everything_is_withheld_and_the_reason_shown(tmp_path: Path) -> None:
    folder = run(suite_of(tmp_path), tmp_path / "out")
    row = summary_row(folder)
    assert row.judge_kappa == pytest.approx(0)
    assert (row.judge_supported, row.judge_contradicted, row.judge_statements) == (None, None, None)
    assert row.judge_reason is not None
    assert "does not agree with the labels well enough: kappa 0.00" in row.judge_reason
    assert row.valid
    assert any(w.startswith("F12: the figures of `judge` are withheld") for w in row.warnings)


def test_a_judge_that_always_picks_one_letter_decides_nothing(tmp_path: Path) -> None:
    folder = run(suite_of(tmp_path, reply="Answer: B"), tmp_path / "out")
    (record,) = judged(folder)
    assert {x.verdict for x in record.labels} == {"undecided"}
    assert summary_row(folder).judge_kappa == pytest.approx(0)


def test_the_judge_begins_when_the_last_cell_has_ended(tmp_path: Path) -> None:
    more = f'[[deployments]]\nname = "other"\nbackend = "scripted"\nsettings = {toml({"reply": REPLY})}\n'
    folder = run(suite_of(tmp_path, model=more), tmp_path / "out")
    ends = [e.time_ns for c in folder.manifest().cells for e in folder.cell(c.id).events() if isinstance(e, CellEnded)]
    (start,) = (e.time_ns for e in folder.judge().events() if isinstance(e, CellStarted))
    assert len(ends) == 2
    assert max(ends) < start


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"die_after": 5}, "the judge ended as crashed: signal 9"),
        ({"hang_after": 5}, "the judge ended as timeout: no sign of progress for 5 s while running"),
        ({"oom_after": 5}, "the judge ended as oom: the engine could not get the memory it needs"),
    ],
)
def test_a_judge_that_fails_leaves_its_reason_and_every_other_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: dict[str, int], reason: str
) -> None:
    folder = run(suite_of(tmp_path, **fault), tmp_path / "out", CELL_FAILED)
    assert f"judge: {reason}" in capsys.readouterr().err
    row = summary_row(folder)
    assert (row.judge_reason, row.judge_kappa, row.judge_supported) == (reason, None, None)
    assert (row.outcome, row.samples) == ("ok", 3)
    assert folder.edits() == []


def forget(folder: RunDir, *marks: bytes) -> None:
    """As after a kill: records with these marks were never written, the run was never sealed."""
    for path in (cell(folder).path / "events.jsonl", folder.judge().path / "events.jsonl"):
        lines = path.read_bytes().splitlines(True)
        path.write_bytes(b"".join(line for line in lines if not any(mark in line for mark in marks)))
    (folder.path / "seal.json").unlink()


def test_a_run_killed_while_judging_is_resumed_without_measuring_again(tmp_path: Path) -> None:
    folder = run(suite_of(tmp_path, replies=label_replies()), tmp_path / "out")
    before, (record,) = summary_row(folder), judged(folder)
    measured = sum(isinstance(e, CellStarted) for e in cell(folder).events())
    step = f'"{cell(folder).id}/{record.step}"'.encode()
    forget(folder, b'"Judged"', step)
    events = folder.judge().path / "events.jsonl"
    events.write_bytes(b"".join(x for x in events.read_bytes().splitlines(True) if b'"CellEnded"' not in x))
    assert main(["run", "--resume", str(folder.path)]) == OK
    assert summary_row(folder) == before
    assert sum(isinstance(e, CellStarted) for e in cell(folder).events()) == measured
    labels = [e for e in folder.judge().events() if getattr(e, "step", "") == "labels_en"]
    assert len(labels) == 72 * 3 + 2  # asked once: the labels had ended before the kill


def test_a_run_killed_after_judging_is_written_down_without_asking_again(tmp_path: Path) -> None:
    folder = run(suite_of(tmp_path, replies=label_replies()), tmp_path / "out")
    before = summary_row(folder)
    forget(folder, b'"Judged"')
    (folder.judge().path / "scores.jsonl").unlink()
    assert main(["run", "--resume", str(folder.path)]) == OK
    assert summary_row(folder) == before
    assert sum(isinstance(e, CellStarted) for e in folder.judge().events()) == 1


def test_a_run_that_is_all_there_is_not_judged_twice(tmp_path: Path) -> None:
    folder = run(suite_of(tmp_path), tmp_path / "out")
    assert main(["run", "--resume", str(folder.path)]) == OK
    assert len(judged(folder)) == 1


def test_scoring_again_counts_the_votes_again(tmp_path: Path) -> None:
    folder = run(suite_of(tmp_path, replies=label_replies()), tmp_path / "out")
    assert main(["score", str(folder.path)]) == OK
    first, second = judged(folder)
    assert (first.labels, first.statements) == (second.labels, second.statements)
    assert folder.edits() == []


def test_no_text_is_left_where_none_may_be_kept_and_the_summaries_are_judged_all_the_same(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, head="store_text = false", replies=label_replies())
    folder = run(suite, tmp_path / "out")
    (record,) = judged(folder)
    assert (len(record.labels), len(record.statements), record.reason) == (72, 6, "")
    assert summary_row(folder).judge_supported == 1.0
    kept = [p for p in folder.path.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert [p for p in kept if b"well today" in p.read_bytes() or b"CLERKING" in p.read_bytes()] == []


def test_summaries_that_were_not_kept_cannot_be_judged_by_another_process(tmp_path: Path) -> None:
    folder = run(suite_of(tmp_path, head="store_text = false"), tmp_path / "out")
    forget(folder, b'"Judged"')
    assert main(["run", "--resume", str(folder.path)]) == CELL_FAILED
    row = summary_row(folder)
    assert row.judge_reason is not None
    assert row.judge_reason.startswith("the summaries were not kept (store_text, redact)")


def test_the_plan_shows_the_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(suite_of(tmp_path))]) == OK
    out = capsys.readouterr().out
    assert "judge (judge)" in out
    assert "The judge comes after it" in out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("note_summary_en", "clinical_qa_zh", "[judge] is given and no task is judged"),
        ('scoring = "generate"', 'scoring = "rouge"', "`judge`, `scoring`: `rouge` is not known"),
        ('[judge]\nbackend = "scripted"', '[judge]\nbackend = "llama_cpp"', "deployment `judge`, settings"),
    ],
)
def test_a_judge_that_cannot_be_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    suite = suite_of(tmp_path)
    suite.write_text(suite.read_text().replace(old, new))
    assert main(["run", str(suite), "--out", str(tmp_path / "out")]) == USER_ERROR
    assert message in capsys.readouterr().err
