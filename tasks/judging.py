"""What a judge is asked about a summary: for each of its statements (sentences), what the note says of it.

One question with three answers: the note supports the statement, contradicts it, or does not speak of it. It is asked
three times with the options rotated, so that each answer stands once in each place; two equal votes decide, three
different ones leave the statement `undecided`, as does a judge that always says the same letter.

Before a judge is believed it answers `data/judge_labels_*.jsonl`: 72 statements in each language about notes of
`note_summary_*`, a third of each answer, one of each about every note. They were written for this project, checked one
by one, and not reviewed by a clinician. The labels are about notes, so other summaries (of dialogues) are not judged.

Worked example: the note says "apixaban 2.5 mg BD, stopped before theatre". "Apixaban is continued up to the operation."
is contradicted, "She takes apixaban." is supported, "Her vitamin D is low." is not stated.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from msgspec import Struct

from tasks import answers, choice
from tasks.base import Answer, Language, Sample, Task, arrange
from tasks.facts import Category, sentences
from tasks.note_summary import NOTE_SUMMARY_EN, NOTE_SUMMARY_ZH
from tasks.read import DATA, read_rows

Label = Literal["supported", "contradicted", "not_stated"]
Verdict = Literal["supported", "contradicted", "not_stated", "undecided", "error"]
LABELS: tuple[Label, ...] = get_args(Label)
ORDERS = len(LABELS)

OPTIONS: dict[Language, tuple[str, ...]] = {
    "en": (
        "The note supports all of the statement.",
        "The note contradicts the statement or a part of it.",
        "The note neither supports nor contradicts the statement.",
    ),
    "zh": ("病历支持这句话的全部内容。", "病历与这句话或其中一部分相矛盾。", "病历既不支持也不否定这句话。"),
}
QUESTIONS: dict[Language, str] = {
    "en": "A colleague summarised the clinical note below. Check one statement of the summary against the note.\n\n"
    "Note:\n{note}\n\nStatement:\n{statement}\n\nWhich is right?",
    "zh": "下面是一份病历，以及同事所写总结中的一句话。请对照病历核对这句话。\n\n病历：\n{note}\n\n"
    "总结中的一句话：\n{statement}\n\n哪一项正确？",
}
NOTES: dict[Language, Task] = {"en": NOTE_SUMMARY_EN, "zh": NOTE_SUMMARY_ZH}
MAX_TOKENS = 512


class Labelled(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of `judge_labels_*.jsonl`. `category` is what the statement is about."""

    id: str
    note: str
    statement: str
    label: Label
    category: Category


def labelled(language: Language) -> tuple[Labelled, ...]:
    """The labelled statements that ship. Raises `DataError`."""
    return read_rows(DATA / f"judge_labels_{language}.jsonl", Labelled, _complaint)


def _complaint(row: Labelled) -> str:
    return "" if row.statement.strip() and row.note.strip() else "the statement or its note is empty"


def questions(language: Language, name: str, note: str, statement: str, label: Label = "supported") -> list[Sample]:
    """One statement, asked in every order of the options; ids are `NAME~0`, `NAME~1`, `NAME~2`.

    Where the truth is not known the target is `supported`: whether it is hit is then what is asked, not whether the judge is right.
    """
    asked = Sample(
        id=name,
        input=QUESTIONS[language].format(note=note.strip(), statement=statement.strip()),
        options=OPTIONS[language],
        target=str(LABELS.index(label)),
        cluster=name,
    )
    turned = (arrange(asked, shift) for shift in range(ORDERS))
    return [
        Sample(id=f"{name}~{shift}", input=s.input, options=s.options, target=s.target, cluster=name)
        for shift, s in enumerate(turned)
    ]


def label_questions(language: Language) -> tuple[Sample, ...]:
    """The labelled statements as they are asked, in the order of the file."""
    notes = {sample.id: sample.input for sample in NOTES[language].load(None)}
    rows = labelled(language)
    return tuple(q for row in rows for q in questions(language, row.id, notes[row.note], row.statement, row.label))


def statements(answer: Answer, language: Language) -> tuple[str, ...]:
    """What a summary states, thinking left out: its sentences, each once; headings and bare punctuation are none."""
    final = answers.read_reply(answer, language).final
    parts = dict.fromkeys(part for part in sentences(final) if any(map(str.isalnum, part)))
    return tuple(part for part in parts if not part.endswith((":", "：")))


def vote(question: str, letter: str | None) -> Label | None:
    """The label that a letter stood for in the order of this question (`NAME~1`)."""
    place, shift = "ABC".find(letter or "?"), int(question.rpartition("~")[2])
    return LABELS[(place + shift) % ORDERS] if place >= 0 else None


def verdict(votes: Sequence[Label | None]) -> Verdict:
    """What two equal votes say; no vote at all is an error of the judge."""
    counted = Counter(v for v in votes if v is not None).most_common(1)
    if not counted:
        return "error"
    label, count = counted[0]
    return label if count >= 2 else "undecided"


def is_judged(task: Task) -> bool:
    """Whether the labels that ship say anything of a judge of this task's summaries."""
    return task.name in {known.name for known in NOTES.values()}


def _task(language: Language) -> Task:
    name = f"judge_{language}"
    return Task(
        name=name,
        version=1,
        title="A judge's question about a statement of a summary",
        language=language,
        kind="choice",
        metric="acc",
        scorings=("letters", "generate"),
        max_tokens=MAX_TOKENS,
        source="written for this project",
        licence="Apache-2.0",
        synthetic=True,
        load=partial(_load, language),
        prompt=partial(choice.prompt, language),
        score=partial(choice.score, language),
    )


def _load(language: Language, path: Path | None) -> tuple[Sample, ...]:
    return label_questions(language)


JUDGING: dict[Language, Task] = {language: _task(language) for language in NOTES}
"""Not part of `TASKS`: no suite asks a candidate this."""
