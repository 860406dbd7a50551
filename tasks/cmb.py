"""CMB-Exam: questions of Chinese medical examinations of all professions, one or several right options.

Source: Wang et al., NAACL 2024, arXiv 2308.08833; github.com/FreedomIntelligence/CMB (Apache-2.0). 11,200 test questions; their answers
are a file of their own (`CMB-test-choice-answer.json`), which is read when it lies beside the questions. A question with several
right options (多项选择题) counts as right when exactly those are named; `partial` beside it is their overlap (Jaccard).

Asked by generation only, because a set of letters has no single likelihood.

Worked example: options A 小叶型肺炎, B 浸润性肺结核, C 继发性肺结核 …, question_type 单项选择题, answer D:
"答案：D" scores 1. With answer ABD and "答案：AB" the score is 0 and `partial` is 2/3.
"""

from pathlib import Path

from msgspec import Struct

from tasks.base import DataError, Sample
from tasks.public import (
    About,
    Form,
    Line,
    Question,
    by_letter,
    choice_task,
    layout_form,
    letters,
    read_lines,
    samples_of,
)

ANSWERS = "CMB-test-choice-answer.json"
SEVERAL = "多项选择题"


class Released(Struct, frozen=True, kw_only=True):
    """An item of `CMB-val-merge.json` or `CMB-test-choice-question-merge.json`."""

    question: str
    option: dict[str, str]
    question_type: str = ""
    answer: str | None = None
    id: str | int = ""
    exam_type: str = ""
    exam_class: str = ""
    exam_subject: str = ""


def released(row: Released, line: Line) -> Sample:
    """An item as released; its answer may have been added from the file of answers."""
    if not row.answer:
        raise DataError(f"no answer is given; put the released {ANSWERS} beside the questions")
    right = letters(row.answer)
    return Question(
        id=str(row.id),
        question=row.question,
        options=by_letter(row.option),
        right=right,
        tags={"exam": row.exam_type, "class": row.exam_class, "subject": row.exam_subject, "type": row.question_type},
        multiple=row.question_type == SEVERAL or len(right) > 1,
    ).sample()


def load(path: Path) -> tuple[Sample, ...]:
    """The questions of a file in one of the forms, with the answers of the file beside it where they have none."""
    lines = read_lines(path)
    beside = path.with_name(ANSWERS)
    if beside.is_file() and beside != path and not any(line.value.get("answer") for line in lines):
        answers = {str(line.value.get("id")): line.value.get("answer") for line in read_lines(beside)}
        lines = tuple(
            Line(line.where, line.file, {**line.value, "answer": answers.get(str(line.value.get("id")))})
            for line in lines
        )
    return samples_of("cmb", lines, (Form(kind=Released, sample=released), layout_form(None, multiple=True)))


CMB = choice_task(
    About(
        name="cmb",
        title="CMB-Exam, Chinese medical examinations",
        language="zh",
        where_from="github.com/FreedomIntelligence/CMB",
        licence="Apache-2.0",
        citation="Wang et al. 2024, arXiv 2308.08833",
    ),
    load,
    scorings=("generate",),
)
