"""Clinical knowledge and reasoning in English and in Chinese: four options, one right.

Written for this project and not reviewed by a clinician: a yardstick for comparing deployments, no evidence of clinical
ability. From "which organ makes insulin?" to licensing-exam vignettes, so that a 135M model and a 671B model both find
something to get right and wrong.

Worked example: question "Which organ produces insulin?", options Liver, Pancreas, Spleen, Kidney. By `likelihood` the
model is given "Question: Which organ produces insulin?\\nAnswer:" and the four continuations " Liver", " Pancreas" ...
The continuation with the highest log-likelihood for each character is its answer (`acc_norm`, the headline); the
highest plain log-likelihood gives `acc` beside it.
"""

from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from tasks import choice
from tasks.base import Language, Sample, Task
from tasks.read import DATA, read_rows

OPTIONS = 4


class Question(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of `clinical_qa_*.jsonl`; `answer` is the index of the right option."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: int
    specialty: str
    difficulty: Literal["easy", "medium", "hard"]
    rationale: str


def complaint(row: Question) -> str:
    """What is wrong with a question, or ""."""
    return choice.complaint(row.question, row.options, (row.answer,), count=OPTIONS)


def load(file_name: str, path: Path | None) -> tuple[Sample, ...]:
    """The embedded questions, or those of another file in the same form. Raises `DataError`."""
    rows = read_rows(path or DATA / file_name, Question, complaint)
    return tuple(
        Sample(
            id=row.id,
            input=row.question,
            options=row.options,
            target=str(row.answer),
            tags={"specialty": row.specialty, "difficulty": row.difficulty},
            extra={"rationale": row.rationale},
        )
        for row in rows
    )


def _task(language: Language, title: str) -> Task:
    name = f"clinical_qa_{language}"
    return Task(
        name=name,
        version=1,
        title=title,
        language=language,
        kind="choice",
        metric=choice.METRICS["likelihood"],
        metrics=choice.METRICS,
        scorings=("likelihood", "letters", "generate"),
        max_tokens=choice.MAX_TOKENS,
        source="written for this project",
        licence="Apache-2.0",
        synthetic=True,
        load=partial(load, f"{name}.jsonl"),
        prompt=partial(choice.prompt, language),
        score=partial(choice.score, language),
    )


CLINICAL_QA_EN = _task("en", "Clinical questions, English")
CLINICAL_QA_ZH = _task("zh", "Clinical questions, Chinese")
