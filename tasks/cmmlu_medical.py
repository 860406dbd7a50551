"""CMMLU, its nine medical subjects, in Chinese, four options.

Source: Li et al., Findings of ACL 2024, arXiv 2306.09212; github.com/haonan-li/CMMLU (CC BY-NC-SA 4.0: not for commercial use, and never
to be bundled). 1,815 test questions; 2 stand there twice word
for word, 11 more with their options in another order: 1,802 clusters.

Worked example: 女性生殖腺是, options A 卵巢, B 前庭大腺, C 前庭球, D 乳腺; answer A. "答案：A" scores 1.
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
    layout_form,
    letters,
    read_lines,
    samples_of,
)

OPTIONS = 4
SUBJECTS = (
    "anatomy",
    "clinical_knowledge",
    "college_medical_statistics",
    "college_medicine",
    "genetics",
    "nutrition",
    "professional_medicine",
    "traditional_chinese_medicine",
    "virology",
)


class Released(Struct, frozen=True, kw_only=True):
    """A row of `SUBJECT.csv`; the subject is told by the file's name alone."""

    Question: str
    A: str
    B: str
    C: str
    D: str
    Answer: str


def released(row: Released, line: Line) -> Sample:
    """A row of the released tables."""
    return Question(
        question=row.Question,
        options=(row.A, row.B, row.C, row.D),
        right=letters(row.Answer),
        tags={"subject": line.file},
        count=OPTIONS,
    ).sample()


def load(path: Path) -> tuple[Sample, ...]:
    """A file in one of the forms, or a released folder (`data/test`), of which the nine subjects are read."""
    lines = [line for file in files_in(path, [f"{s}.csv" for s in SUBJECTS]) for line in read_lines(file)]
    return samples_of("cmmlu_medical", lines, (Form(kind=Released, sample=released), layout_form(OPTIONS)))


CMMLU_MEDICAL = choice_task(
    About(
        name="cmmlu_medical",
        title="CMMLU, nine medical subjects",
        language="zh",
        where_from="github.com/haonan-li/CMMLU",
        licence="CC BY-NC-SA 4.0",
        citation="Li et al. 2024, arXiv 2306.09212",
    ),
    load,
)
