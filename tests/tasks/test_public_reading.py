"""Published data sets: every form is read, told apart by content, and what is wrong is named by file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks import TASKS, DataError, Sample

QUESTION = "女性生殖腺是"


def written(folder: Path, name: str, content: str | list[Any]) -> Path:
    """A text as it stands, or a list as JSON Lines."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (
        content if isinstance(content, str) else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    )
    path.write_text(text, encoding="utf-8", newline="")
    return path


def load(task: str, path: Path) -> list[Sample]:
    return list(TASKS[task].load(path))


def choice(sample: Sample) -> tuple[str, str, tuple[str, ...], str]:
    return sample.id, sample.input, sample.options, sample.target


LAYOUT = {"id": "q-7", "question": "Which?", "options": {"A": "w", "B": "x", "C": "y", "D": "z"}, "answer": "C"}
INLINE = {"id": "t-1", "question": "Which?\nAnswer Choices: (A) w (B) x (C) y (D) z", "label": ["C"]}
FORMS: list[tuple[str, str, Any, str]] = [
    ("medqa", "us.jsonl", [LAYOUT], "q-7"),
    ("medqa", "us.jsonl", [{k: v for k, v in LAYOUT.items() if k != "id"} | {"answer": "y", "answer_idx": "C"}], "medqa-0"),
    ("medqa", "us.jsonl", [INLINE], "t-1"),
    ("mmlu_medical", "t.jsonl", [{"question": "Which?", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": "anatomy"}], ""),
    ("mmlu_medical", "anatomy_test.csv", "Which?,w,x,y,z,C\n", ""),
    ("cmmlu_medical", "anatomy.csv", ",Question,A,B,C,D,Answer\n0,Which?,w,x,y,z,C\n", ""),
    ("cmexam", "test.csv", 'Question,Options,Answer,Explanation\nWhich?,"A w\nB x\nC y\nD z",C,why\n', ""),
    ("cmexam", "test.json", json.dumps([{"Question": "Which?", "Options": [{"key": k, "value": v} for k, v in
     zip("ABCD", "wxyz", strict=True)], "Answer": "C", "Explanation": ""}]), ""),
    ("cmb", "val.json", json.dumps([{"question": "Which?", "option": {"A": "w", "B": "x", "C": "y", "D": "z", "E": ""},
     "question_type": "单项选择题", "answer": "C", "exam_type": "医师考试"}], indent=1), ""),
]  # fmt: skip


@pytest.mark.parametrize(("task", "name", "content", "item"), FORMS)
def test_every_form_of_a_question_is_read(tmp_path: Path, task: str, name: str, content: Any, item: str) -> None:
    (sample,) = load(task, written(tmp_path, name, content))
    assert choice(sample) == (item or f"{task}-0", "Which?", ("w", "x", "y", "z"), "2")


def test_the_hub_counts_the_right_option_from_0_and_the_release_from_1(tmp_path: Path) -> None:
    row = {"question": "Which?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "subject_name": "Surgery"}
    hub = written(tmp_path, "hub.jsonl", [{**row, "id": "a", "cop": 0}, {**row, "id": "b", "cop": 2}])
    release = written(tmp_path, "dev.jsonl", [{**row, "id": "a", "cop": 4}, {**row, "id": "b", "cop": 2}])
    assert [s.target for s in load("medmcqa", hub)] == ["0", "2"]
    assert [s.target for s in load("medmcqa", release)] == ["3", "1"]
    assert [s.tags for s in load("medmcqa", hub)] == [{"subject": "Surgery"}] * 2
    unclear = written(tmp_path, "few.jsonl", [{**row, "id": "a", "cop": 2}])
    with pytest.raises(DataError, match="no row with 0 and none with 4"):
        load("medmcqa", unclear)
    hidden = written(tmp_path, "test.jsonl", [{**row, "id": "a", "cop": -1}])
    with pytest.raises(DataError, match="line 1: `cop` is hidden"):
        load("medmcqa", hidden)


def test_ten_options_are_shown_once(tmp_path: Path) -> None:
    letters, texts = "ABCDEFGHIJ", [f"option {i}" for i in range(10)]
    row = {
        "id": "Text-1",
        "question": "Which?\nAnswer Choices: " + " ".join(f"({a}) {b}" for a, b in zip(letters, texts, strict=True)),
        "options": [{"letter": a, "content": b} for a, b in zip(letters, texts, strict=True)],
        "label": ["J"],
        "medical_task": "Diagnosis",
    }
    (sample,) = load("medxpertqa", written(tmp_path, "text.jsonl", [row]))
    assert choice(sample) == ("Text-1", "Which?", tuple(texts), "9")
    assert sample.tags == {"task": "Diagnosis"}
    hub = {**row, "question": "Which?", "options": dict(zip(letters, texts, strict=True)), "label": "J"}
    assert load("medxpertqa", written(tmp_path, "hub.jsonl", [hub])) == [sample]


def test_a_folder_is_read_subject_by_subject_and_others_are_left(tmp_path: Path) -> None:
    for name in ("anatomy_test.csv", "college_biology_test.csv", "astronomy_test.csv"):
        written(tmp_path, f"test/{name}", f"Which {name}?,w,x,y,z,B\n")
    samples = load("mmlu_medical", tmp_path / "test")
    assert [(s.id, s.tags["subject"]) for s in samples] == [
        ("mmlu_medical-0", "anatomy"),
        ("mmlu_medical-1", "college_biology"),
    ]
    with pytest.raises(DataError, match=r"holds none of anatomy\.csv"):
        load("cmmlu_medical", tmp_path / "test")


def test_the_same_question_is_one_cluster_and_the_same_stem_is_not(tmp_path: Path) -> None:
    other = {
        **LAYOUT,
        "id": "b",
        "question": " WHICH? ",
        "options": {"A": "x", "B": "w", "C": "z", "D": "y"},
        "answer": "D",
    }
    stem = {**LAYOUT, "id": "c", "options": {"A": "k", "B": "l", "C": "m", "D": "n"}}
    samples = load("mmlu_medical", written(tmp_path, "t.jsonl", [LAYOUT, other, stem]))
    assert [s.cluster for s in samples] == ["q-7", "q-7", "c"]


def test_a_question_that_repeats_an_option_is_kept_and_marked(tmp_path: Path) -> None:
    row = {**LAYOUT, "options": {"A": "w", "B": "w", "C": "y", "D": "z"}}
    (sample,) = load("medqa", written(tmp_path, "t.jsonl", [row]))
    assert sample.tags == {"flaw": "two options are the same"}


def test_several_right_answers(tmp_path: Path) -> None:
    row = {
        "question": QUESTION,
        "option": {"A": "w", "B": "x", "C": "y"},
        "question_type": "多项选择题",
        "answer": "AC",
    }
    (sample,) = load("cmb", written(tmp_path, "v.json", json.dumps([row])))
    assert (sample.target, sample.extra) == ("0,2", {"multiple": True})


def test_the_answers_of_cmb_may_lie_beside_its_questions(tmp_path: Path) -> None:
    rows = [
        {"id": i, "question": f"{QUESTION}{i}", "option": {"A": "w", "B": "x"}, "question_type": "单项选择题"}
        for i in (1, 2)
    ]
    path = written(tmp_path, "CMB-test-choice-question-merge.json", json.dumps(rows))
    with pytest.raises(DataError, match=r"line 1: no answer is given; put the released CMB-test-choice-answer\.json"):
        load("cmb", path)
    written(tmp_path, "CMB-test-choice-answer.json", json.dumps([{"id": 1, "answer": "B"}, {"id": 2, "answer": "A"}]))
    assert [(s.id, s.target) for s in load("cmb", path)] == [("1", "1"), ("2", "0")]


def pubmed(number: str, label: str) -> dict[str, Any]:
    return {
        "QUESTION": f"Is {number} so?",
        "CONTEXTS": ["One.", "Two."],
        "final_decision": label,
        "LONG_ANSWER": "It is.",
    }


def test_pubmedqa_reads_its_release_and_the_official_half(tmp_path: Path) -> None:
    path = written(
        tmp_path, "ori_pqal.json", json.dumps({"11": pubmed("11", "yes"), "12": pubmed("12", "maybe")}, indent=4)
    )
    assert [(s.id, s.input, s.target) for s in load("pubmedqa", path)] == [
        ("11", "Abstract: One. Two.\nQuestion: Is 11 so?", "0"),
        ("12", "Abstract: One. Two.\nQuestion: Is 12 so?", "2"),
    ]
    written(tmp_path, "test_ground_truth.json", json.dumps({"12": "maybe"}))
    assert [s.id for s in load("pubmedqa", path)] == ["12"]
    written(tmp_path, "test_ground_truth.json", json.dumps({"12": "no"}))
    with pytest.raises(DataError, match=r"test_ground_truth\.json: 12 is no here and otherwise"):
        load("pubmedqa", path)
    layout = {"id": "11", "question": "Is 11 so?", "contexts": ["One.", "Two."], "answer": "yes"}
    assert [s.id for s in load("pubmedqa", written(tmp_path, "p.jsonl", [layout]))] == ["11"]


def test_lines_end_at_a_newline_only(tmp_path: Path) -> None:
    row = {**LAYOUT, "question": "Which\u2028one?"}
    csv = '"Which\u2028one?",w,x,y,z,C\n'
    assert load("medqa", written(tmp_path, "a.jsonl", [row]))[0].input == "Which\u2028one?"
    assert load("mmlu_medical", written(tmp_path, "anatomy_test.csv", csv))[0].input == "Which\u2028one?"


MEDQA_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"answer": ""}, "no right answer is given"),
    ({"answer": "E"}, "the answer 4 is not among the 4 options"),
    ({"answer": "3"}, "the answer '3' is no letter of an option"),
    ({"options": {"A": "w", "B": "x", "D": "z"}}, "the options are lettered A, B, D"),
    ({"options": {"A": "w", "B": " ", "C": "y"}}, "an option is empty"),
    ({"question": "  "}, "the question is empty"),
    ({"id": "q-7"}, r"`id` 'q-7' stands already in .*set\.jsonl, line 1"),
    ({"options": ["w", "x"]}, "Expected `object`, got `array` - at `\\$.options`"),
    ({"question": "long " * 130_000}, "the item is longer than 600,000 bytes"),
]


@pytest.mark.parametrize(("fault", "message"), MEDQA_FAULTS)
def test_a_bad_question_is_named_by_file_and_line(tmp_path: Path, fault: dict[str, Any], message: str) -> None:
    path = written(tmp_path, "set.jsonl", [LAYOUT, {**LAYOUT, "id": "other", **fault}])
    with pytest.raises(DataError, match=rf"set\.jsonl, line 2: .*{message}"):
        load("medqa", path)


def test_an_option_short_is_refused_where_the_number_is_fixed(tmp_path: Path) -> None:
    path = written(tmp_path, "s.jsonl", [{**LAYOUT, "options": {"A": "w", "B": "x", "C": "y"}}])
    with pytest.raises(DataError, match="line 1: 3 options, not 4"):
        load("mmlu_medical", path)


def test_missing_keys_name_what_was_expected(tmp_path: Path) -> None:
    path = written(tmp_path, "s.jsonl", [{"question": "Which?", "gold": 1}])
    with pytest.raises(
        DataError, match="line 1: the keys are question, gold; expected question, options, answer_idx or id"
    ):
        load("medqa", path)


def test_mixed_encodings_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "gbk.csv"
    good = f",Question,A,B,C,D,Answer\n0,{QUESTION},w,x,y,z,A\n"
    path.write_bytes(good.encode() + f"1,{QUESTION},w,x,y,z,A\n".encode("gbk"))
    with pytest.raises(DataError, match=r"gbk\.csv, line 3: not UTF-8"):
        load("cmmlu_medical", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (",Question,A,B,C,D,Answer\n0,Which?,w,x,y,z\n", "line 2: 6 columns, not 7"),
        (',Question,A,B,C,D,Answer\n0,"Which?,w,x,y,z,A\n', "line 2: not a CSV row"),
        (',Question,A,B,C,D,Answer\n0,"Which\none?",w,x,y,z,A\n1,,w,x,y,z,A\n', "line 4: the question is empty"),
        ('[{"Question": "Which?"}, {"Question": ', "line 1: not a complete JSON document"),
        ('[\n{"Question": "Which?"},\n"x"]', "line 3: an item is str, not an object"),
        ("", "holds no items"),
    ],
)
def test_a_damaged_file_is_named_by_line(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, "anatomy.csv", content)
    with pytest.raises(DataError, match=message):
        load("cmmlu_medical", path)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.public])
def test_a_public_set_says_how_to_get_it_and_is_no_folder_or_missing_file(tmp_path: Path, name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.licence
    assert task.citation
    assert not task.synthetic
    with pytest.raises(DataError, match=rf"{name} is not shipped with Bedside; get it from github\.com/"):
        task.load(None)
    with pytest.raises(DataError, match="cannot be read"):
        task.load(tmp_path / "nowhere")
