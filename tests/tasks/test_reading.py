"""Bad data is named by file and line, and nothing of it is used."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks import TASKS, DataError
from tasks.read import MAX_LINE_BYTES

QUESTION: dict[str, Any] = {
    "id": "q1",
    "question": "Which organ produces insulin?",
    "options": ["Liver", "Pancreas", "Spleen", "Kidney"],
    "answer": 1,
    "specialty": "anatomy",
    "difficulty": "easy",
    "rationale": "Beta cells.",
}
NOTE: dict[str, Any] = {
    "id": "n1",
    "kind": "ed",
    "note": "Warfarin 5 mg nightly.",
    "reference": "Takes warfarin 5 mg.",
    "drugs": ["warfarin"],
    "facts": [
        {"id": "d", "label": "warfarin 5 mg", "category": "dose", "accept": [["warfarin", "5 mg"]], "contradict": []}
    ],
}


def written(folder: Path, *rows: dict[str, Any] | bytes) -> Path:
    path = folder / "data.jsonl"
    path.write_bytes(
        b"\n".join(r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in rows)
    )
    return path


def without(row: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != field}


BAD_QUESTIONS: dict[str, tuple[dict[str, Any] | bytes, str]] = {
    "missing gold": (without(QUESTION, "answer"), "missing required field `answer`"),
    "missing question": (without(QUESTION, "question"), "missing required field `question`"),
    "unknown field": (QUESTION | {"anwser": 1}, "unknown field `anwser`"),
    "gold out of range": (QUESTION | {"answer": 4}, "the answer 4 is not among the 4 options"),
    "negative gold": (QUESTION | {"answer": -1}, "the answer -1 is not among the 4 options"),
    "gold as a letter": (QUESTION | {"answer": "B"}, "Expected `int`, got `str`"),
    "an option short": (QUESTION | {"options": ["Liver", "Pancreas", "Spleen"]}, "3 options, not 4"),
    "an empty option": (QUESTION | {"options": ["Liver", "Pancreas", "Spleen", " "]}, "an option is empty"),
    "two options the same": (
        QUESTION | {"options": ["Liver", "Pancreas", "Liver", "Kidney"]},
        "two options are the same",
    ),
    "options as text": (QUESTION | {"options": "Liver"}, "Expected `array`, got `str`"),
    "an unknown difficulty": (QUESTION | {"difficulty": "harder"}, "Invalid enum value 'harder'"),
    "empty id": (QUESTION | {"id": " "}, "`id` is empty"),
    "duplicate id": (QUESTION | {"id": "q0"}, "`id` 'q0' stands already in line 1"),
    "half a line": (json.dumps(QUESTION).encode()[:60], "not one complete JSON object"),
    "two objects on a line": (json.dumps(QUESTION).encode() + b" {}", "not one complete JSON object"),
    "a list": (b"[1, 2]", "Expected `object`, got `array`"),
    "latin-1": ('{"id": "q1", "question": "Ménière"}'.encode("latin-1"), "is not UTF-8"),
    "gb18030": ('{"id": "q1", "question": "胰岛素"}'.encode("gb18030"), "is not UTF-8"),
    "utf-16": (json.dumps(QUESTION).encode("utf-16"), "is not UTF-8"),
    "byte order mark": (json.dumps(QUESTION).encode("utf-8-sig"), "begins with a byte order mark"),
    "a million characters": (QUESTION | {"question": "x" * 1_000_000}, f"longer than {MAX_LINE_BYTES:,} bytes"),
    "a lone surrogate": (rb'{"id": "\ud800"}', "not one complete JSON object"),
}


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_a_bad_question_is_named_by_file_and_line(name: str, tmp_path: Path) -> None:
    bad, says = BAD_QUESTIONS[name]
    path = written(tmp_path, QUESTION | {"id": "q0"}, bad, QUESTION | {"id": "q2"})
    with pytest.raises(DataError) as raised:
        TASKS["clinical_qa_en"].load(path)
    assert str(raised.value).startswith(f"{path}, line 2: ")
    assert says in str(raised.value)


FACT = NOTE["facts"][0]
BAD_NOTES: dict[str, tuple[dict[str, Any], str]] = {
    "empty reference": (NOTE | {"reference": "  "}, "the reference is empty"),
    "empty note": (NOTE | {"note": ""}, "the note is empty"),
    "missing reference": (without(NOTE, "reference"), "missing required field `reference`"),
    "no facts": (NOTE | {"facts": []}, "there are no key facts"),
    "the same fact twice": (NOTE | {"facts": [FACT, FACT]}, "two facts have the same id"),
    "unknown category": (NOTE | {"facts": [FACT | {"category": "mood"}]}, "Invalid enum value 'mood'"),
    "a fact that accepts nothing": (NOTE | {"facts": [FACT | {"accept": []}]}, "fact `d` accepts nothing"),
    "an empty group": (NOTE | {"facts": [FACT | {"contradict": [[]]}]}, "fact `d` has an empty group"),
    "a broken pattern": (
        NOTE | {"facts": [FACT | {"accept": [["re:(5 mg"]]}]},
        "fact `d`: pattern 're:(5 mg': missing )",
    ),
    "an empty pattern": (NOTE | {"facts": [FACT | {"accept": [["*"]]}]}, "an empty pattern would match everything"),
    "a million characters": (NOTE | {"note": "病" * 1_000_000}, f"longer than {MAX_LINE_BYTES:,} bytes"),
}


@pytest.mark.parametrize("name", BAD_NOTES)
def test_a_bad_note_is_named_by_file_and_line(name: str, tmp_path: Path) -> None:
    bad, says = BAD_NOTES[name]
    path = written(tmp_path, NOTE | {"id": "n0"}, bad)
    with pytest.raises(DataError) as raised:
        TASKS["note_summary_en"].load(path)
    assert str(raised.value).startswith(f"{path}, line 2: ")
    assert says in str(raised.value)


def test_lines_end_at_a_newline_only(tmp_path: Path) -> None:
    path = written(tmp_path, QUESTION | {"question": "one\u2028two\x85three\x0cfour?"}, QUESTION | {"id": "q2"})
    samples = TASKS["clinical_qa_en"].load(path)
    assert [s.id for s in samples] == ["q1", "q2"]
    assert samples[0].input == "one\u2028two\x85three\x0cfour?"


def test_windows_line_ends_blank_lines_and_a_missing_last_newline_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(QUESTION).encode() + b"\r", b"", b"  \r", QUESTION | {"id": "q2"})
    assert [s.id for s in TASKS["clinical_qa_en"].load(path)] == ["q1", "q2"]


def test_a_file_without_items_or_no_file_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no items"):
        TASKS["clinical_qa_en"].load(written(tmp_path, b""))
    with pytest.raises(DataError, match=r"missing\.jsonl cannot be read: No such file"):
        TASKS["clinical_qa_en"].load(tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        TASKS["clinical_qa_en"].load(tmp_path)
