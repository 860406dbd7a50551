"""MedMCQA: questions of Indian medical entrance exams (AIIMS, NEET PG), four options.

Source: Pal et al., CHIL 2022, arXiv 2203.14371; github.com/medmcqa/medmcqa (MIT). The labels of its test split are hidden, so papers that
say "MedMCQA" mostly mean the 4,183 questions of the validation split; some use 2,816 of them: do not mix the two.

The released JSON counts the right option (`cop`) from 1, the copy on Hugging Face from 0 (-1 where hidden). Which one a file
is shows in the whole file: a 0 or a 4 decides; a file with neither, or with both, is refused rather than guessed at.

Worked example: "Which of the following is not true for myelinated nerve fibers", cop 1 in the release: the right option is A,
"Impulse through myelinated fibers is slower than non-myelinated fibers".
"""

from functools import partial
from pathlib import Path

from msgspec import Struct

from tasks.base import DataError, Sample
from tasks.public import About, Form, Line, Question, choice_task, inline_form, layout_form, read_lines, samples_of

OPTIONS = 4


class Released(Struct, frozen=True, kw_only=True):
    """A line of the release or of its copy on Hugging Face."""

    id: str
    question: str
    opa: str
    opb: str
    opc: str
    opd: str
    cop: int | None
    subject_name: str | None = None


def released(first: int, row: Released, line: Line) -> Sample:
    """`first` is the number of the first option."""
    if row.cop is None or row.cop == -1:
        raise DataError("`cop` is hidden (the test split has no labels); use the validation split")
    return Question(
        id=row.id,
        question=row.question,
        options=(row.opa, row.opb, row.opc, row.opd),
        right=(row.cop - first,),
        tags={"subject": row.subject_name or ""},
        count=OPTIONS,
    ).sample()


def counts_from(path: Path, numbers: set[object]) -> int:
    """0 or 1, from the numbers that stand in the file. Raises `DataError` where they do not tell."""
    has_zero, has_four = bool({0, "0"} & numbers), bool({4, "4"} & numbers)
    if has_zero == has_four and numbers - {-1, "-1", None, ""}:
        why = "rows with 0 and rows with 4" if has_zero else "no row with 0 and none with 4"
        raise DataError(f"{path}: {why}, so whether `cop` counts from 0 or from 1 cannot be told; use a whole split")
    return 0 if has_zero else 1


def load(path: Path) -> tuple[Sample, ...]:
    """The questions of a file in one of the forms."""
    lines = read_lines(path)
    first = counts_from(path, {line.value.get("cop") for line in lines if "cop" in line.value})
    forms = (Form(kind=Released, sample=partial(released, first)), layout_form(OPTIONS), inline_form(OPTIONS))
    return samples_of("medmcqa", lines, forms)


MEDMCQA = choice_task(
    About(
        name="medmcqa",
        title="MedMCQA, Indian medical entrance exams",
        language="en",
        where_from="github.com/medmcqa/medmcqa",
        licence="MIT",
        citation="Pal et al. 2022, arXiv 2203.14371",
    ),
    load,
)
