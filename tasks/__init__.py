"""The clinical suite. `TASKS` names every task there is."""

from tasks.aci_bench import ACI_BENCH
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
from tasks.cmb import CMB
from tasks.cmb_clin import CMB_CLIN
from tasks.cmexam import CMEXAM
from tasks.cmmlu_medical import CMMLU_MEDICAL
from tasks.k_qa import K_QA
from tasks.medcalc import MEDCALC
from tasks.medec import MEDEC
from tasks.medmcqa import MEDMCQA
from tasks.medqa import MEDQA
from tasks.medxpertqa import MEDXPERTQA
from tasks.mmlu_medical import MMLU_MEDICAL
from tasks.mts_dialog import MTS_DIALOG
from tasks.note_summary import NOTE_SUMMARY_EN, NOTE_SUMMARY_ZH
from tasks.primock57 import PRIMOCK57
from tasks.pubmedqa import PUBMEDQA
from tasks.speed import SPEED

TASKS: dict[str, Task] = {
    "clinical_qa_en": CLINICAL_QA_EN,
    "clinical_qa_zh": CLINICAL_QA_ZH,
    "note_summary_en": NOTE_SUMMARY_EN,
    "note_summary_zh": NOTE_SUMMARY_ZH,
    "speed": SPEED,
    "medqa": MEDQA,
    "medmcqa": MEDMCQA,
    "pubmedqa": PUBMEDQA,
    "mmlu_medical": MMLU_MEDICAL,
    "medxpertqa": MEDXPERTQA,
    "cmmlu_medical": CMMLU_MEDICAL,
    "cmexam": CMEXAM,
    "cmb": CMB,
    "medec": MEDEC,
    "medcalc": MEDCALC,
    "k_qa": K_QA,
    "mts_dialog": MTS_DIALOG,
    "aci_bench": ACI_BENCH,
    "primock57": PRIMOCK57,
    "cmb_clin": CMB_CLIN,
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
