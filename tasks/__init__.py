"""The clinical suite. `TASKS` names every task there is."""

from tasks.base import (
    Answer,
    DataError,
    Generate,
    Kind,
    Language,
    Message,
    Prompt,
    Rank,
    Sample,
    Score,
    Scoring,
    Task,
    Verdict,
    arrange,
    headline,
)
from tasks.clinical_qa import CLINICAL_QA_EN, CLINICAL_QA_ZH
from tasks.speed import SPEED

TASKS: dict[str, Task] = {
    "clinical_qa_en": CLINICAL_QA_EN,
    "clinical_qa_zh": CLINICAL_QA_ZH,
    "speed": SPEED,
}

__all__ = [
    "TASKS",
    "Answer",
    "DataError",
    "Generate",
    "Kind",
    "Language",
    "Message",
    "Prompt",
    "Rank",
    "Sample",
    "Score",
    "Scoring",
    "Task",
    "Verdict",
    "arrange",
    "headline",
]
