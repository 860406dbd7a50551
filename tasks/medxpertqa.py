"""MedXpertQA (Text): hard questions of specialist board exams, ten options.

Source: Zuo et al., ICML 2025, arXiv 2501.18362; github.com/TsinghuaC3I/MedXpertQA (MIT). The Text part has 2,450 test questions; the
authors' own sample of it, 244, was used for the costly models. At 244 questions an interval is about five points wide to each side.

Worked example: "A 57-year-old male presents … What is the most likely explanation for this patient's condition?" with options
A "Fibrinolysis activation due to liver failure" … J "Bacterial destruction". "Answer: D" is judged by the letter; chance is 10 %.
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
    inline_options,
    layout_form,
    letters,
    read_samples,
)

OPTIONS = 10


class Choice(Struct, frozen=True):
    letter: str
    content: str


class Released(Struct, frozen=True, kw_only=True):
    """A line of the release. The question repeats its options after "Answer Choices:"; they are shown once."""

    id: str
    question: str
    options: tuple[Choice, ...] | dict[str, str]
    label: str | tuple[str, ...]
    medical_task: str = ""
    body_system: str = ""
    question_type: str = ""


def released(row: Released, line: Line) -> Sample:
    """A question as released, on GitHub (options as a list) or on Hugging Face (options by letter)."""
    named = row.options if isinstance(row.options, dict) else {o.letter: o.content for o in row.options}
    if len(named) != len(row.options):
        raise DataError("two options have the same letter")
    return Question(
        id=row.id,
        question=inline_options(row.question)[0],
        options=by_letter(named),
        right=letters("".join(row.label)),
        tags={"task": row.medical_task, "system": row.body_system, "type": row.question_type},
        count=OPTIONS,
    ).sample()


def load(path: Path) -> tuple[Sample, ...]:
    """The questions of a file in one of the forms."""
    return read_samples("medxpertqa", path, (Form(kind=Released, sample=released), layout_form(OPTIONS)))


MEDXPERTQA = choice_task(
    About(
        name="medxpertqa",
        title="MedXpertQA (Text), specialist questions with ten options",
        language="en",
        where_from="github.com/TsinghuaC3I/MedXpertQA",
        licence="MIT",
        citation="Zuo et al. 2025, arXiv 2501.18362",
    ),
    load,
)
