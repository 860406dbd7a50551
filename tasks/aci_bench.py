"""ACI-Bench: the transcript of a whole visit to the full note.

Source: Yim et al., Scientific Data 2023, arXiv 2306.02022; github.com/wyim/aci-bench (CC BY 4.0). Role-played visits, no patients; train
67, valid 20, three test sets of 40. A dialogue has about 6,500 characters and a note about 2,700, so a request needs a context of
some 6,000 tokens. Some speakers are swapped in the transcripts (upstream).

Headline: ROUGE-L against the written note, a tripwire (see `tasks.writing`); numbers and drugs that the visit does not hold are counted.

Worked example: "[doctor] hi , brian . how are you ? …" with the note "CHIEF COMPLAINT\\n\\nFollow-up of chronic problems. …". A note with
"Lasix 40 mg" where the visit says 80 mg has one unsupported number.
"""

from pathlib import Path

from msgspec import Struct

from tasks.base import Sample
from tasks.public import About, Form, Line, read_samples
from tasks.writing import reference_sample, writing_task

MAX_TOKENS = 1024
WISH = (
    "Write the clinical note of this visit with the sections Chief complaint, History of present illness, Review of systems, "
    "Physical examination, Results, Assessment and plan. Use only what was said.\n\n"
)


class Layout(Struct, frozen=True, kw_only=True):
    """The project's JSON Lines layout."""

    id: str
    dialogue: str
    reference: str
    subset: str = ""


class Released(Struct, frozen=True, kw_only=True):
    """A row of `data/challenge_data/*.csv`."""

    dataset: str
    encounter_id: str
    dialogue: str
    note: str


class Json(Struct, frozen=True, kw_only=True):
    """An item of `data/challenge_data_json/*.json`."""

    src: str
    tgt: str
    file: str


def from_layout(row: Layout, line: Line) -> Sample:
    return reference_sample(row.id, row.dialogue, row.reference, tags={"subset": row.subset})


def released(row: Released, line: Line) -> Sample:
    return reference_sample(row.encounter_id, row.dialogue, row.note, tags={"subset": row.dataset})


def from_json(row: Json, line: Line) -> Sample:
    return reference_sample(row.file, row.src, row.tgt)


def load(path: Path) -> tuple[Sample, ...]:
    """The visits of a file in one of the forms."""
    forms = (
        Form(kind=Released, sample=released),
        Form(kind=Json, sample=from_json),
        Form(kind=Layout, sample=from_layout),
    )
    return read_samples("aci_bench", path, forms)


ACI_BENCH = writing_task(
    About(
        name="aci_bench",
        title="ACI-Bench, visit to full note",
        language="en",
        where_from="github.com/wyim/aci-bench",
        licence="CC BY 4.0",
        citation="Yim et al. 2023, arXiv 2306.02022",
    ),
    load,
    lambda sample: f"{WISH}{sample.input.strip()}\n\nNote:",
    kind="summary",
    max_tokens=MAX_TOKENS,
    closed=True,
)
