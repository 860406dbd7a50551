"""K-QA: real patients' questions with physicians' answers, split into must-have and nice-to-have statements.

Source: Manes et al., BioNLP 2024, arXiv 2401.14493; github.com/Itaymanes/K-QA (MIT). 201 answered questions.

The authors judge whether an answer entails each must-have statement with a large language model. That is not done here and not imitated
by counting words: the headline is ROUGE-L against the physician's answer, a tripwire (see `tasks.writing`). `number_recall` and
`drug_recall` look in the must-have statements: whether the doses, ages and drugs that must be said are said, literally.

Worked example: "Alright so I dont know much about Lexapro would you tell me more about it?"; must have "Escitalopram is sold under the
brand names Lexapro and Cipralex" …. "Lexapro (escitalopram) is an SSRI." names the drug: drug_recall 1.
"""

from pathlib import Path

from msgspec import Struct

from tasks.base import DataError, Sample
from tasks.public import About, Form, Line, read_samples
from tasks.writing import reference_sample, writing_task

MAX_TOKENS = 512
WISH = "Answer the patient's question below as a physician would, in at most 150 words of plain English.\n\n"


class Layout(Struct, frozen=True, kw_only=True):
    """The project's JSON Lines layout."""

    id: str
    question: str
    reference: str
    must_have: tuple[str, ...]
    nice_to_have: tuple[str, ...] = ()


class Released(Struct, frozen=True, kw_only=True):
    """A line of `questions_w_answers.jsonl`."""

    Question: str
    Free_form_answer: str
    Must_have: tuple[str, ...]


def from_layout(row: Layout, line: Line) -> Sample:
    if not row.must_have:
        raise DataError("no must-have statement is given")
    return reference_sample(row.id, row.question, row.reference, facts=" ".join(f"{s}." for s in row.must_have))


def released(row: Released, line: Line) -> Sample:
    layout = Layout(id="", question=row.Question, reference=row.Free_form_answer, must_have=row.Must_have)
    return from_layout(layout, line)


def load(path: Path) -> tuple[Sample, ...]:
    """The questions of a file in either form."""
    return read_samples("k_qa", path, (Form(kind=Released, sample=released), Form(kind=Layout, sample=from_layout)))


K_QA = writing_task(
    About(
        name="k_qa",
        title="K-QA, patients' questions",
        language="en",
        where_from="github.com/Itaymanes/K-QA",
        licence="MIT",
        citation="Manes et al. 2024, arXiv 2401.14493",
    ),
    load,
    lambda sample: WISH + sample.input.strip(),
    kind="free",
    max_tokens=MAX_TOKENS,
    closed=False,
)
