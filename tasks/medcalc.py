"""MedCalc-Bench: a clinical calculation from a patient's note.

Source: Khandekar et al., NeurIPS 2024 Datasets and Benchmarks, arXiv 2406.12036; github.com/ncbi-nlp/MedCalc-Bench (CC BY-SA 4.0). The
first release has 1,047 test items; its authors have since corrected it (MedCalc-Bench Verified, 1,100 items): use that one to publish
levels. Several questions of one note share its cluster.

Right is a number within the published limits (5 % to each side for decimals, exact for scores), the very date, or the very weeks and days.
The unit is that of the question: a number given with another unit of mass or volume than the question names is converted, any
other unit is not looked at.

Worked example: creatinine clearance of an 87-year-old, 25.238 with limits 23.9761 and 26.4999: "Answer: 25.2 mL/min" scores 1, "Answer: 27" 0,
"between 25 and 27" is no answer. Due date 09/23/2014: "September 23, 2014" scores 1.
"""

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

from msgspec import Struct, field

from tasks import answers
from tasks.base import Answer, DataError, Generate, Message, Prompt, Sample, Score, Scoring, Task, Verdict
from tasks.numbers import MASS_MG, VOLUME_ML, Number, find_date, find_number
from tasks.public import About, Form, Line, given, read_samples

MAX_TOKENS = 1024
WISH = (
    "Read the patient's note and answer the question. Think it through if you need to. End with one line "
    '"Answer: X", where X is the value alone.\n\n'
)
_AGE = re.compile(r"(\d+)\W{0,4}weeks?\W{0,6}(?:and\W{0,3})?(\d+)\W{0,4}days?", re.IGNORECASE)
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})$")
_ASKED_UNIT = re.compile(r"\b(?:in(?:\s+terms\s+of|\s+units?\s+of)?|units?\s+of)\s+(kg|g|mg|mcg|µg|ug|ml|l)\b(?!/)", re.IGNORECASE)


class Layout(Struct, frozen=True, kw_only=True):
    """The project's JSON Lines layout."""

    id: str
    calculator: str
    category: str
    patient_note: str
    question: str
    answer: str
    lower: str
    upper: str


class Released(Struct, frozen=True, kw_only=True):
    """A row of `test_data.csv`."""

    calculator_id: str = field(name="Calculator ID")
    calculator: str = field(name="Calculator Name")
    category: str = field(name="Category")
    note_id: str = field(name="Note ID")
    note: str = field(name="Patient Note")
    question: str = field(name="Question")
    answer: str = field(name="Ground Truth Answer")
    lower: str = field(name="Lower Limit")
    upper: str = field(name="Upper Limit")


def from_layout(row: Layout, line: Line) -> Sample:
    """An item. Raises `DataError` for limits that do not hold their answer."""
    if not row.patient_note.strip() or not row.question.strip():
        raise DataError("the note or the question is empty")
    limits = tuple(sorted((_limit(row.lower, "lower"), _limit(row.upper, "upper"))))
    if type(limits[0]) is not type(limits[1]) or not limits[0] <= _limit(row.answer, "answer") <= limits[1]:
        raise DataError(f"the answer {row.answer} is not between its limits {row.lower} and {row.upper}")
    return Sample(
        id=row.id,
        input=f"{row.patient_note.strip()}\n\nQuestion: {row.question.strip()}",
        target=row.answer,
        cluster=" ".join(row.patient_note.split()),
        tags={"category": row.category, "calculator": row.calculator},
        extra={"lower": str(limits[0]), "upper": str(limits[1]), "question": row.question},
    )


def released(row: Released, line: Line) -> Sample:
    """A row of the release; its id is calculator and note, as in the layout."""
    layout = Layout(
        id=f"{row.calculator_id}-{row.note_id}",
        calculator=row.calculator,
        category=row.category,
        patient_note=row.note,
        question=row.question,
        answer=row.answer,
        lower=row.lower,
        upper=row.upper,
    )
    return from_layout(layout, line)


def _limit(text: str, name: str) -> "Decimal | str":
    """A number, or a date or "W weeks D days" in one written form."""
    if day := find_day(text):
        return day
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        raise DataError(f"`{name}` {text!r} is no number, date, or weeks and days") from None


def find_day(text: str) -> str | None:
    """ "2w 3d"-like ages as "2 weeks 3 days", else a date as yyyy-mm-dd, else `None`."""
    if ages := {(int(w), int(d)) for w, d in _AGE.findall(text)}:
        weeks, days = ages.pop()
        return f"{weeks} weeks {days} days" if not ages else None
    return find_date(text)
