"""Scorers of the public sets that are no plain multiple choice: labels, planted errors, calculations, texts."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tasks import TASKS, Answer, DataError, Generate, Rank, Sample, Score
from tasks.medcalc import find_day, in_asked_unit
from tasks.medec import find_verdict
from tasks.numbers import Number


def one(task: str, folder: Path, row: dict[str, Any]) -> Sample:
    path = folder / f"{task}.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    (sample,) = TASKS[task].load(path)
    return sample


def judge(task: str, sample: Sample, text: str, **more: Any) -> Score:
    return TASKS[task].score(sample, "generate", Answer(text=text, **more))


# --- PubMedQA


@pytest.fixture
def label(tmp_path: Path) -> Sample:
    return one("pubmedqa", tmp_path, {"id": "1", "question": "Is it?", "contexts": ["It may."], "answer": "maybe"})


@pytest.mark.parametrize(
    ("text", "verdict", "answer"),
    [
        ("Answer: maybe", "correct", "maybe"),
        ("Answer: C", "correct", "maybe"),
        ("Option C", "correct", "maybe"),
        ("Maybe, since the trial was small.", "correct", "maybe"),
        ("Answer: no", "wrong", "no"),
        ("<think>maybe</think>Answer: yes", "wrong", "yes"),
        ("It depends.", "no_answer", None),
        ("The groups differed, and no effect was seen in the other.", "no_answer", None),
        ("<think>maybe", "no_answer", None),
    ],
)
def test_a_label_is_read_as_letter_or_word(label: Sample, text: str, verdict: str, answer: str | None) -> None:
    score = judge("pubmedqa", label, text)
    assert (score.verdict, score.answer) == (verdict, answer)


def test_a_label_can_be_ranked(label: Sample) -> None:
    prompt = TASKS["pubmedqa"].prompt(label, "likelihood")
    assert prompt == Rank(
        context="Abstract: It may.\nQuestion: Is it?\nAnswer:", continuations=(" yes", " no", " maybe")
    )
    assert TASKS["pubmedqa"].score(label, "likelihood", Answer(logprobs=(-3.0, -2.0, -1.0))).verdict == "correct"


# --- MEDEC

RECORD = {
    "id": "ms-0", "Text": "", "Sentences": "0 A man has fever.\r\n1 Hepatitis A is suspected.\r\n2 He rests.", "Error Flag": "1",
    "Error Type": "causalOrganism", "Error Sentence ID": "1", "Error Sentence": "Hepatitis A is suspected.",
    "Corrected Sentence": "Schistosoma mansoni is suspected.", "Corrected Text": "",
}  # fmt: skip
SOUND = {**RECORD, "Error Flag": "0", "Error Type": "NA", "Error Sentence ID": "-1", "Corrected Sentence": "NA"}


def test_an_error_is_found_in_its_sentence_and_corrected(tmp_path: Path) -> None:
    sample = one("medec", tmp_path, RECORD)
    assert (sample.target, sample.tags) == ("1", {"error": "causalOrganism"})
    score = judge("medec", sample, "Sentence 1 is odd.\nAnswer: 1 | Schistosoma mansoni is suspected.")
    assert (score.value, score.verdict, score.answer) == (1.0, "correct", "1")
    assert score.metrics == {"flag_accuracy": 1.0, "sentence_accuracy": 1.0, "correction_rouge_l": 1.0}


@pytest.mark.parametrize(
    ("row", "text", "flag", "sentence"),
    [
        (RECORD, "Answer: 2 | He works.", 1.0, 0.0),
        (RECORD, "Answer: CORRECT", 0.0, 0.0),
        (SOUND, "Answer: CORRECT", 1.0, 1.0),
        (SOUND, "Answer: 1 | x", 0.0, 0.0),
    ],
)
def test_flag_and_sentence_are_judged_apart(
    tmp_path: Path, row: dict[str, Any], text: str, flag: float, sentence: float
) -> None:
    metrics = judge("medec", one("medec", tmp_path, row), text).metrics
    assert (metrics["flag_accuracy"], metrics["sentence_accuracy"]) == (flag, sentence)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("CORRECT", ("-1", "")),
        ("**Answer: correct**", ("-1", "")),
        ("The answer is sentence 2: He works.", ("2", "He works.")),
        ("2 He works.", ("2", "He works.")),
        ("Answer: 7 | nothing", None),
        ("INCORRECT", None),
        ("Answer: 1.5 mg", None),
        ("I checked everything.", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_or_there_is_none(text: str, found: tuple[str, str] | None) -> None:
    assert find_verdict(text, ("0", "1", "2")) == found


def test_a_record_cut_off_has_no_verdict(tmp_path: Path) -> None:
    assert judge("medec", one("medec", tmp_path, RECORD), "Answer: 1", finish="length").verdict == "truncated"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"Error Flag": "0"}, "`Error Sentence ID` '1' does not fit the flag 0"),
        ({"Error Sentence ID": "9"}, "`Error Sentence ID` '9' does not fit"),
        ({"Error Flag": ""}, "`Error Flag` is '', not 0 or 1"),
        ({"Corrected Sentence": ""}, "`Corrected Sentence` is empty"),
        ({"Sentences": "A man."}, "`Sentences` holds no numbered sentence"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(tmp_path: Path, fault: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"line 1: {message}"):
        one("medec", tmp_path, {**RECORD, **fault})


def test_blank_rows_of_the_released_table_are_passed_over(tmp_path: Path) -> None:
    columns = ["Text ID", "Text", "Sentences", "Error Flag", "Error Type", "Error Sentence ID", "Error Sentence"]
    head = ",".join([*columns, "Corrected Sentence", "Corrected Text"])
    path = tmp_path / "ms.csv"
    path.write_text(f'{head}\r\nms-1,t,"0 One.\n1 Two.",0,NA,-1,NA,NA,NA\r\n' + ",,,,,,,,\r\n" * 3, newline="")
    assert [(s.id, s.input) for s in TASKS["medec"].load(path)] == [("ms-1", "0 One.\n1 Two.")]


# --- MedCalc-Bench

CALCULATION = {
    "id": "2-n1", "calculator": "Creatinine Clearance", "category": "lab", "patient_note": "An 87-year-old man.",
    "question": "What is the clearance in terms of mL/min?", "answer": "25.238", "lower": "23.9761", "upper": "26.4999",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "verdict", "answer"),
    [
        ("Answer: 25.2 mL/min", "correct", "25.2"),
        ("(140-87)*48/(72*1.4) = 25.24\n\n**Answer: 25.24**", "correct", "25.24"),
        ("\\boxed{26.4999}", "correct", "26.4999"),
        ("Answer: 27", "wrong", "27"),
        ("Answer: 25 to 27", "no_answer", None),
        ("It cannot be computed.", "no_answer", None),
    ],
)
def test_a_number_within_the_limits_is_right(tmp_path: Path, text: str, verdict: str, answer: str | None) -> None:
    score = judge("medcalc", one("medcalc", tmp_path, CALCULATION), text)
    assert (score.verdict, score.answer) == (verdict, answer)


def test_a_number_in_another_unit_of_mass_is_converted() -> None:
    assert in_asked_unit(Number(Decimal("0.5"), "g"), "How much, in mg?") == Decimal(500)
    assert in_asked_unit(Number(Decimal("0.5"), "g"), "What is it in terms of mg/dL?") == Decimal("0.5")
    assert in_asked_unit(Number(Decimal("5"), ""), "How much, in mg?") == Decimal(5)


@pytest.mark.parametrize(
    ("gold", "text", "verdict"),
    [
        ("09/23/2014", "Answer: September 23, 2014", "correct"),
        ("09/23/2014", "LMP 12/17/2013, so the due date.\nAnswer: 09/23/2014", "correct"),
        ("09/23/2014", "Answer: 09/24/2014", "wrong"),
        ("('14 weeks', '2 days')", "Answer: (14 weeks, 2 days)", "correct"),
        ("('14 weeks', '2 days')", "Answer: 14 weeks and 3 days", "wrong"),
        ("('14 weeks', '2 days')", "Answer: 100 days", "no_answer"),
    ],
)
def test_dates_and_ages_must_be_the_very_ones(tmp_path: Path, gold: str, text: str, verdict: str) -> None:
    sample = one("medcalc", tmp_path, {**CALCULATION, "answer": gold, "lower": gold, "upper": gold})
    assert judge("medcalc", sample, text).verdict == verdict


def test_two_ages_are_none() -> None:
    assert find_day("2 weeks 3 days or 2 weeks 4 days") is None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"answer": "40"}, "the answer 40 is not between its limits"),
        ({"answer": ""}, "`answer` '' is no number"),
        ({"lower": "nan"}, "`lower` 'nan' is no number"),
        ({"patient_note": " "}, "the note or the question is empty"),
    ],
)
def test_a_calculation_without_a_sound_gold_is_refused(tmp_path: Path, fault: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"line 1: {message}"):
        one("medcalc", tmp_path, {**CALCULATION, **fault})


# --- texts

DIALOGUE = (
    "Doctor: How is the pressure? Patient: High. Doctor: Then take lisinopril 20 mg a day and come back in 2 weeks."
)
SECTION = {"id": "v-0", "section": "PLAN", "dialogue": DIALOGUE, "reference": "Lisinopril 20 mg daily."}


def test_a_section_is_judged_literally_beside_the_tripwire(tmp_path: Path) -> None:
    sample = one("mts_dialog", tmp_path, SECTION)
    score = judge("mts_dialog", sample, "Continue lisinopril 20 mg.")
    assert (score.verdict, score.value) == ("correct", pytest.approx(0.75))
    assert (score.metrics["number_recall"], score.metrics["drug_recall"]) == (1.0, 1.0)
    wrong = judge("mts_dialog", sample, "Start amlodipine 10 mg.")
    assert (wrong.metrics["number_recall"], wrong.metrics["drug_recall"]) == (0.0, 0.0)
    assert (wrong.metrics["unsupported_numbers"], wrong.metrics["unsupported_drugs"]) == (1.0, 1.0)
    assert wrong.detail.startswith("numbers not in the source: 10 mg; drugs not in the source: amlodipine")


@pytest.mark.parametrize(
    ("text", "more", "verdict", "flag"),
    [
        ("", {}, "no_answer", "empty"),
        ("I'm sorry, but I can't help with that.", {}, "no_answer", "refusal"),
        (DIALOGUE, {}, "wrong", "copied_note"),
        ("建议每天服用赖诺普利并在两周后复诊检查血压情况。", {}, "wrong", "wrong_language"),
        ("Lisinopril 20", {"finish": "length"}, "truncated", "cut_off"),
        ("<think>Lisinopril", {}, "no_answer", "think_unclosed"),
    ],
)
def test_a_text_that_is_of_no_use_is_caught_by_name(
    tmp_path: Path, text: str, more: dict[str, Any], verdict: str, flag: str
) -> None:
    score = judge("mts_dialog", one("mts_dialog", tmp_path, SECTION), text, **more)
    assert score.verdict == verdict
    assert flag in score.flags


def test_a_word_is_no_section(tmp_path: Path) -> None:
    sample = one(
        "mts_dialog", tmp_path, {**SECTION, "reference": "Lisinopril 20 mg daily, review of the pressure in 2 weeks."}
    )
    score = judge("mts_dialog", sample, "Lisinopril.")
    assert (score.verdict, score.flags) == ("wrong", ("too_short",))


def test_must_have_statements_are_looked_into_for_numbers_and_drugs(tmp_path: Path) -> None:
    row = {
        "id": "k",
        "question": "What is Lexapro?",
        "reference": "An SSRI.",
        "must_have": ["Escitalopram 10 mg is usual"],
    }
    score = judge("k_qa", one("k_qa", tmp_path, row), "It is escitalopram, an SSRI.")
    assert (score.metrics["number_recall"], score.metrics["drug_recall"]) == (0.0, 1.0)
    assert "unsupported_numbers" not in score.metrics


def test_the_questions_of_a_case_share_its_cluster(tmp_path: Path) -> None:
    released = {
        "id": "3",
        "title": "疝",
        "description": "男，49岁。",
        "QA_pairs": [{"question": "诊断？", "answer": "疝"}] * 2,
    }
    path = tmp_path / "qa.json"
    path.write_text(json.dumps([released], ensure_ascii=False), encoding="utf-8")
    samples = list(TASKS["cmb_clin"].load(path))
    assert [(s.id, s.cluster, s.target) for s in samples] == [
        ("cmbclin-3-1", "cmbclin-3", "疝"),
        ("cmbclin-3-2", "cmbclin-3", "疝"),
    ]
    assert judge("cmb_clin", samples[0], "疝").value == 1.0
    empty = json.dumps([{**released, "QA_pairs": [{"question": "诊断？", "answer": " "}]}], ensure_ascii=False)
    path.write_text(empty, encoding="utf-8")
    with pytest.raises(DataError, match="line 1: the reference is empty"):
        TASKS["cmb_clin"].load(path)


TEXT_GRID = """File type = "ooTextFile"
Object class = "TextGrid"
        intervals [1]:
            xmin = {0}
            xmax = 9
            text = "{1}"
        intervals [2]:
            xmin = 9
            xmax = 10
            text = ""
"""


def test_a_consultation_is_put_together_from_its_two_speakers(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "transcripts").mkdir()
    (tmp_path / "notes" / "day1_consultation01.json").write_text('{"day": 1, "note": "3/7 cough."}')
    doctor = tmp_path / "transcripts" / "day1_consultation01_doctor.TextGrid"
    doctor.write_text(TEXT_GRID.format(0, 'Hello, <UNSURE>how</UNSURE> is ""it""?'))
    with pytest.raises(DataError, match=r"day1_consultation01_patient\.TextGrid cannot be read"):
        TASKS["primock57"].load(tmp_path)
    (tmp_path / "transcripts" / "day1_consultation01_patient.TextGrid").write_text(TEXT_GRID.format(2.5, "A cough."))
    (sample,) = TASKS["primock57"].load(tmp_path)
    assert (sample.id, sample.input, sample.target) == (
        "day1_consultation01",
        'Doctor: Hello, how is "it"?\nPatient: A cough.',
        "3/7 cough.",
    )
    doctor.write_text("nothing")
    with pytest.raises(DataError, match="line 1: not a TextGrid"):
        TASKS["primock57"].load(tmp_path)


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("aci_bench", {"dataset": "aci", "encounter_id": "D1", "dialogue": "[doctor] hi", "note": "CC"}),
        ("aci_bench", {"src": "[doctor] hi", "tgt": "CC", "file": "D1"}),
        ("aci_bench", {"id": "D1", "dialogue": "[doctor] hi", "reference": "CC"}),
        ("mts_dialog", {"ID": "D1", "section_header": "CC", "section_text": "CC", "dialogue": "[doctor] hi"}),
        ("primock57", {"id": "D1", "dialogue": "[doctor] hi", "reference": "CC"}),
        ("k_qa", {"id": "D1", "question": "[doctor] hi", "reference": "CC", "must_have": ["CC"]}),
    ],
)
def test_every_form_of_a_text_set_is_read(tmp_path: Path, task: str, row: dict[str, Any]) -> None:
    sample = one(task, tmp_path, row)
    assert (sample.id, sample.input, sample.target) == ("D1", "[doctor] hi", "CC")
    prompt = TASKS[task].prompt(sample, "generate")
    assert isinstance(prompt, Generate)
    assert "[doctor] hi" in prompt.messages[0].text
    for gold in ("reference", "note", "tgt", "section_text"):
        if gold in row:
            with pytest.raises(DataError, match="line 1: the reference is empty"):
                one(task, tmp_path, {**row, gold: " \n"})
