"""MedCalc-Bench: a clinical calculation from a patient's note.

Source: Khandekar et al., NeurIPS 2024 Datasets and Benchmarks, arXiv 2406.12036; github.com/ncbi-nlp/MedCalc-Bench (CC BY-SA 4.0). The
first release has 1,047 test items; its authors have since corrected it (MedCalc-Bench Verified, 1,100 items): use that one to publish
levels. Several questions of one note share its cluster.

Right is a number within the published limits (5 % to each side for decimals, exact for scores), the very date, or the very weeks and days.
The unit is that of the question: a number given with another unit of mass or volume than the question names is converted, any
other unit is not looked at.

Worked example: creatinine clearance of an 87-year-old, 25.238 with limits 23.9761 and 26.4999: "Answer: 25.2 mL/min" scores 1,
"Answer: 27" 0, "between 25 and 27" is no answer. Due date 09/23/2014: "September 23, 2014" scores 1.
"""

import hashlib
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
_ANSWER = re.compile(r"\banswers?\b", re.IGNORECASE)
_ASKED_UNIT = re.compile(
    r"\b(?:in(?:\s+terms\s+of|\s+units?\s+of)?|units?\s+of)\s+(kg|g|mg|mcg|µg|ug|ml|l)\b(?!/)", re.IGNORECASE
)


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
    day = find_day(row.answer)
    if day is None:
        low, high = sorted((_number(row.lower, "lower"), _number(row.upper, "upper")))
        holds = low <= _number(row.answer, "answer") <= high
        extra = {"lower": str(low), "upper": str(high), "question": row.question}
    else:
        holds = find_day(row.lower) == day == find_day(row.upper)
        extra = {"day": day}
    if not holds:
        raise DataError(f"the answer {row.answer} is not between its limits {row.lower} and {row.upper}")
    return Sample(
        id=row.id,
        input=f"{row.patient_note.strip()}\n\nQuestion: {row.question.strip()}",
        target=row.answer,
        cluster=hashlib.sha256(" ".join(row.patient_note.split()).encode()).hexdigest()[:12],
        tags={"category": row.category, "calculator": row.calculator},
        extra=extra,
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


def _number(text: str, name: str) -> Decimal:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise DataError(f"`{name}` {text!r} is no number, date, or weeks and days")
    return value


def find_day(text: str) -> str | None:
    """An age as "2 weeks 3 days", else a date as yyyy-mm-dd; `None` for none or several."""
    if ages := {(int(w), int(d)) for w, d in _AGE.findall(text)}:
        weeks, days = ages.pop()
        return f"{weeks} weeks {days} days" if not ages else None
    return find_date(text)


def load(path: Path | None) -> tuple[Sample, ...]:
    """The items of the released table or of a file in the layout."""
    forms = (Form(kind=Released, sample=released), Form(kind=Layout, sample=from_layout))
    return read_samples("medcalc", given(ABOUT, path), forms)


def prompt(sample: Sample, scoring: Scoring) -> Prompt:
    """One user turn: the wish, the note, the question."""
    return Generate(messages=(Message("user", WISH + sample.input),), max_tokens=MAX_TOKENS)


def score(sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    """Judge a value. `Score.answer` is the value as read."""
    if answer.finish == "error":
        return Score(value=None, verdict="error", detail=answer.error or "the request failed")
    reply = answers.read_reply(answer, "en")
    found = _read(sample, reply.final) if answer.finish == "stop" else None
    if found is None:
        empty: Verdict = "truncated" if answer.finish == "length" else "no_answer"
        return Score(value=0.0, verdict=empty, metrics={"within_limits": 0.0}, flags=reply.flags)
    text, right = found
    return Score(
        value=float(right),
        verdict="correct" if right else "wrong",
        answer=text,
        metrics={"within_limits": float(right)},
        flags=reply.flags,
    )


def _read(sample: Sample, final: str) -> tuple[str, bool] | None:
    """The value of a final text, and whether it is right; `None` where it gives none or several."""
    if "day" in sample.extra:
        day = find_day(_stated(final)) or find_day(final)
        return (day, day == sample.extra["day"]) if day else None
    number = find_number(final)
    if number is None:
        return None
    value = in_asked_unit(number, sample.extra["question"])
    return f"{value:f}", Decimal(sample.extra["lower"]) <= value <= Decimal(sample.extra["upper"])


def _stated(final: str) -> str:
    """What follows the last "answer", else the last line."""
    found = list(_ANSWER.finditer(final))
    return final[found[-1].end() :] if found else final.strip().rpartition("\n")[2]


def in_asked_unit(number: Number, question: str) -> Decimal:
    """The value in the unit of mass or volume that the question asks for, where the answer names another."""
    asked = _ASKED_UNIT.search(question)
    unit = number.unit.lower()
    for factors in (MASS_MG, VOLUME_ML):
        if asked and asked.group(1).lower() in factors and unit in factors:
            return number.value * factors[unit] / factors[asked.group(1).lower()]
    return number.value


ABOUT = About(
    name="medcalc",
    title="MedCalc-Bench, clinical calculations",
    language="en",
    where_from="github.com/ncbi-nlp/MedCalc-Bench",
    licence="CC BY-SA 4.0",
    citation="Khandekar et al. 2024, arXiv 2406.12036",
)
MEDCALC = Task(
    name=ABOUT.name,
    version=1,
    title=ABOUT.title,
    language="en",
    kind="number",
    metric="within_limits",
    scorings=("generate",),
    max_tokens=MAX_TOKENS,
    source=ABOUT.where_from,
    licence=ABOUT.licence,
    citation=ABOUT.citation,
    public=True,
    load=load,
    prompt=prompt,
    score=score,
)
