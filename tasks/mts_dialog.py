"""MTS-Dialog: a piece of a doctor-patient dialogue to one section of the note.

Source: Ben Abacha et al., EACL 2023; github.com/abachaa/MTS-Dialog (CC BY 4.0). Test sets of 200 (MEDIQA-Chat 2023) and 200 (MEDIQA-Sum
2023), 100 for validation. The notes come from de-identified MTSamples, the dialogues were written to them.

Headline: ROUGE-L against the written section, a tripwire (see `tasks.writing`); numbers and drugs that the dialogue does not hold are
counted.

Worked example: section IMMUNIZATIONS, "Doctor: Have you had your flu shot? …", reference "Immunizations were up to date". The text
"Immunizations up to date." has ROUGE-L 0.889 (precision 1, recall 4/5).
"""

from pathlib import Path

from msgspec import Struct

from tasks.base import Sample
from tasks.public import About, Form, Line, read_samples
from tasks.writing import reference_sample, writing_task

MAX_TOKENS = 400
SECTIONS = {
    "FAM/SOCHX": "family and social history",
    "GENHX": "history of present illness",
    "PASTMEDICALHX": "past medical history",
    "CC": "chief complaint",
    "PASTSURGICAL": "past surgical history",
    "ALLERGY": "allergies",
    "ROS": "review of systems",
    "MEDICATIONS": "medications",
    "ASSESSMENT": "assessment",
    "EXAM": "physical examination",
    "DIAGNOSIS": "diagnosis",
    "DISPOSITION": "disposition",
    "PLAN": "plan",
    "EDCOURSE": "emergency department course",
    "IMMUNIZATIONS": "immunizations",
    "IMAGING": "imaging",
    "GYNHX": "gynecologic history",
    "PROCEDURES": "procedures",
    "OTHER_HISTORY": "other history",
    "LABS": "laboratory results",
}


class Layout(Struct, frozen=True, kw_only=True):
    """The project's JSON Lines layout."""

    id: str
    section: str
    dialogue: str
    reference: str


class Released(Struct, frozen=True, kw_only=True):
    """A row of the released tables."""

    ID: str
    section_header: str
    section_text: str
    dialogue: str


def from_layout(row: Layout, line: Line) -> Sample:
    return reference_sample(row.id, row.dialogue, row.reference, tags={"section": row.section})


def released(row: Released, line: Line) -> Sample:
    return reference_sample(row.ID, row.dialogue, row.section_text, tags={"section": row.section_header})


def wish(sample: Sample) -> str:
    """One user turn. A section that has no longer name is called by its own."""
    name = sample.tags.get("section", "")
    section = SECTIONS.get(name, name.lower() or "note")
    return (
        f"Write the section '{section}' of the clinical note from this conversation. Use the style of a medical record, "
        f"only what was said, and no heading.\n\n{sample.input.strip()}\n\nSection:"
    )


def load(path: Path) -> tuple[Sample, ...]:
    """The pairs of a file in either form."""
    forms = (Form(kind=Released, sample=released), Form(kind=Layout, sample=from_layout))
    return read_samples("mts_dialog", path, forms)


MTS_DIALOG = writing_task(
    About(
        name="mts_dialog",
        title="MTS-Dialog, dialogue to note section",
        language="en",
        where_from="github.com/abachaa/MTS-Dialog",
        licence="CC BY 4.0",
        citation="Ben Abacha et al. 2023, EACL, An Empirical Study of Clinical Note Generation from Doctor-Patient Encounters",
    ),
    load,
    wish,
    kind="summary",
    max_tokens=MAX_TOKENS,
    closed=True,
)
