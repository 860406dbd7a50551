"""MMLU, its six medical subjects: anatomy, clinical knowledge, college biology, college medicine, medical genetics, professional medicine.

Source: Hendrycks et al., ICLR 2021, arXiv 2009.03300; github.com/hendrycks/test (MIT). The official test list has 1,089 questions; 78 stand
in it twice (in clinical knowledge and in college medicine), so 1,011 are distinct and the intervals count those. The history of the
upstream repository holds a professional medicine file of 282 rows, ten more than the official 272: use the released one.

Five-shot: `shots = 5` with `shots_data` naming the dev file. `where = { subject = "anatomy" }` keeps one subject.

Worked example: "A lesion causing compression of the facial nerve at the stylomastoid foramen will cause ipsilateral", options A "paralysis
of the facial muscles." … D; answer A. By `likelihood` the context is "Question: A lesion … ipsilateral\\nAnswer:" and the first
continuation " paralysis of the facial muscles.".
"""

from pathlib import Path

from msgspec import Struct

from tasks.base import Sample
from tasks.public import (
    About,
    Form,
    Line,
    Question,
    choice_task,
    files_in,
    inline_form,
    layout_form,
    letters,
    read_lines,
    samples_of,
)

OPTIONS = 4
SUBJECTS = (
    "anatomy",
    "clinical_knowledge",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
)
COLUMNS = ("question", "A", "B", "C", "D", "answer")
"""The released tables have no header."""


class Released(Struct, frozen=True, kw_only=True):
    """A row of `SUBJECT_test.csv`; the subject is told by the file's name alone."""

    question: str
    A: str
    B: str
    C: str
    D: str
    answer: str


class HubRow(Struct, frozen=True, kw_only=True):
    """A row of the copy on Hugging Face (`cais/mmlu`): `answer` is an index."""

    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str


def released(row: Released, line: Line) -> Sample:
    """A row of the released tables."""
    subject = line.file.rsplit("_", 1)[0] if line.file.endswith(("_test", "_val", "_dev")) else line.file
    options = (row.A, row.B, row.C, row.D)
    tags = {"subject": subject}
    return Question(
        question=row.question, options=options, right=letters(row.answer), tags=tags, count=OPTIONS
    ).sample()


def hub_row(row: HubRow, line: Line) -> Sample:
    """A row of the copy on Hugging Face."""
    tags = {"subject": row.subject}
    return Question(question=row.question, options=row.choices, right=(row.answer,), tags=tags, count=OPTIONS).sample()


def load(path: Path) -> tuple[Sample, ...]:
    """A file in one of the forms, or a released folder (`data/test`), of which the six subjects are read."""
    names = [f"{subject}_{split}.csv" for split in ("test", "val", "dev") for subject in SUBJECTS]
    lines = [line for file in files_in(path, names) for line in read_lines(file, COLUMNS)]
    forms = (
        Form(kind=HubRow, sample=hub_row),
        Form(kind=Released, sample=released),
        layout_form(OPTIONS),
        inline_form(OPTIONS),
    )
    return samples_of("mmlu_medical", lines, forms)


MMLU_MEDICAL = choice_task(
    About(
        name="mmlu_medical",
        title="MMLU, six medical subjects",
        language="en",
        where_from="github.com/hendrycks/test",
        licence="MIT",
        citation="Hendrycks et al. 2021, arXiv 2009.03300",
    ),
    load,
)
