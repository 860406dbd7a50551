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
from tasks.note_summary import NOTE_SUMMARY_EN, NOTE_SUMMARY_ZH
from tasks.speed import SPEED

TASKS: dict[str, Task] = {
    "clinical_qa_en": CLINICAL_QA_EN,
    "clinical_qa_zh": CLINICAL_QA_ZH,
    "note_summary_en": NOTE_SUMMARY_EN,
    "note_summary_zh": NOTE_SUMMARY_ZH,
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
