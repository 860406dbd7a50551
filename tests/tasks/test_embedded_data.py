"""The shipped data keep their own rules, and the check finds what breaks them."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tasks import TASKS, Sample
from tasks.check import main, note_problems, problems, question_problems

SIZES = {"clinical_qa_en": 200, "clinical_qa_zh": 120, "note_summary_en": 32, "note_summary_zh": 24}


def test_the_shipped_data_keep_their_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(problems()) == []
    assert main() == 0
    assert capsys.readouterr().out == "the embedded data keep their rules\n"


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_the_sets_have_their_size_and_say_what_they_are(name: str, size: int) -> None:
    task = TASKS[name]
    assert len(task.load(None)) == size
    assert (task.synthetic, task.public, task.licence) == (True, False, "Apache-2.0")


def test_right_answers_are_balanced_and_specialities_many() -> None:
    samples = TASKS["clinical_qa_en"].load(None)
    assert [sum(s.target == place for s in samples) for place in "0123"] == [50, 50, 50, 50]
    assert len({s.tags["specialty"] for s in samples}) >= 10
    assert {s.tags["difficulty"] for s in samples} == {"easy", "medium", "hard"}


def broken_questions() -> list[Sample]:
    base = [
        Sample(
            id=f"q{i}",
            input=f"Question {chr(97 + i) * 3} about {chr(98 + i) * 4} {chr(99 + i) * 5}?",
            options=("a", "b", "c", "long"),
            target="3",
        )
        for i in range(8)
    ]
    return [
        *base,
        msgspec.structs.replace(base[0], id="copy"),
        msgspec.structs.replace(base[1], id="above", input="Other?", options=("x", "y", "z", "All of the above")),
    ]


def test_the_check_finds_bad_questions() -> None:
    assert list(question_problems(broken_questions())) == [
        "q0 and copy are near-duplicates (overlap 1.00)",
        "the right answer is option 0 in 0% of the questions, not in 15% to 35%",
        "the right answer is option 1 in 0% of the questions, not in 15% to 35%",
        "the right answer is option 2 in 0% of the questions, not in 15% to 35%",
        "the right answer is option 3 in 100% of the questions, not in 15% to 35%",
        "the right option is the longest one in 100% of the questions, more than 45%",
        "above: an option refers to the others",
    ]


def test_the_check_finds_bad_notes() -> None:
    good = TASKS["note_summary_en"].load(None)[0]
    bad = msgspec.structs.replace(
        good,
        target="He takes digoxin 375 mg. " + "Nothing else of note was found today. " * 7,
        extra={"drugs": (*good.extra["drugs"], "unobtainium"), "facts": good.extra["facts"][:2]},
    )
    assert list(note_problems([bad], "en")) == [
        f"{good.id}: 2 key facts, not 6 to 12",
        *(f"{good.id}: fact {fact.id!r} is missing in its own reference" for fact in good.extra["facts"][:2]),
        f"{good.id}: the listed drug 'unobtainium' is not in the note",
        f"{good.id}: the reference holds numbers that the note does not: 375 mg",
        f"{good.id}: the reference holds drugs that the note does not: digoxin",
    ]


def test_importing_the_suite_loads_nothing_heavy() -> None:
    heavy = ["numpy", "nltk", "rouge_score", "jieba", "scipy", "datasets", "torch"]
    code = f"import sys, tasks; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
