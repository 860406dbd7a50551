"""MedQA (US): questions in the manner of the United States Medical Licensing Examination, four options.

Source: Jin et al., "What Disease does this Patient Have?", Applied Sciences 2021, arXiv 2009.13081; github.com/jind11/MedQA (MIT, the
authors' claim over exam texts); the usual test set is the 1,273 questions of `phrases_no_exclude_test.jsonl`. Published before every
DeepSeek model was trained: a level is no evidence of clinical ability, a difference between two quantisations of one model is one.

Worked example: "A junior orthopaedic surgery resident … leave this complication out of the operative report. …" with options
A "Disclose the error to the patient and put it in the operative report", B "Tell the attending that he cannot fail to
disclose this mistake" …; answer B. "Answer: B" scores 1, "Answer: A" 0, "A or B" is no answer.
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
    inline_form,
    layout_form,
    letters,
    read_samples,
)

OPTIONS = None
"""Four in the usual release, five in the original one; all of a file's questions are read as they are."""


class Released(Struct, frozen=True, kw_only=True):
    """A line of `*_test.jsonl`. `answer` is the text of the right option, `answer_idx` its letter."""

    question: str
    options: dict[str, str]
    answer_idx: str
    answer: str = ""
    meta_info: str = ""


def released(row: Released, line: Line) -> Sample:
    """A question as the authors released it. The right option's text must be the stated one."""
    options, right = by_letter(row.options), letters(row.answer_idx)
    if row.answer and len(right) == 1 and right[0] < len(options) and options[right[0]].strip() != row.answer.strip():
        raise DataError(f"`answer` is not the text of option {row.answer_idx}")
    return Question(question=row.question, options=options, right=right, tags={"step": row.meta_info}).sample()


def load(path: Path) -> tuple[Sample, ...]:
    """The questions of a file in one of the three forms."""
    return read_samples(
        "medqa", path, (Form(kind=Released, sample=released), layout_form(OPTIONS), inline_form(OPTIONS))
    )


MEDQA = choice_task(
    About(
        name="medqa",
        title="MedQA, US licensing questions",
        language="en",
        where_from="github.com/jind11/MedQA",
        licence="MIT",
        citation="Jin et al. 2021, arXiv 2009.13081",
    ),
    load,
)
