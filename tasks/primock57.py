"""PriMock57: the transcript of a mock primary-care consultation to the doctor's own note.

Source: Papadopoulos Korfiatis et al., ACL 2022, arXiv 2204.00333; github.com/babylonhealth/primock57 (CC BY 4.0). 57 consultations, acted,
no patients. British shorthand ("3/7 hx of diarrhea", "nil radiation").

Headline: ROUGE-L against the doctor's note, a tripwire (see `tasks.writing`): the notes are terse and personal, so a good note in full
sentences scores low; compare deployments, do not read levels.

The release is a folder with `notes/*.json` and, for each, a TextGrid of the doctor's and one of the patient's speech under `transcripts/`;
turns are put in order by the time they begin, and the transcribers' marks (`<UNSURE>`, `<UNIN/>`) are left out.

Worked example: "Doctor: … how can I help you this morning? Patient: …" to "3/7 hx of diarrhea, mainly watery. No blood in stool. …".
"""

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from tasks.base import DataError, Sample
from tasks.public import About, Form, Line, read_lines, read_samples
from tasks.writing import reference_sample, writing_task

MAX_TOKENS = 400
WISH = (
    "Write the doctor's note of this primary-care consultation: history, relevant negatives, medical, drug and social history, "
    "impression, plan. Be brief, use only what was said.\n\n"
)

_INTERVAL = re.compile(r'xmin = ([\d.]+)\s+xmax = [\d.]+\s+text = "((?:[^"]|"")*)"')
_MARK = re.compile(r"</?[A-Z_]+/?>")


class Layout(Struct, frozen=True, kw_only=True):
    """The project's JSON Lines layout."""

    id: str
    dialogue: str
    reference: str


def from_layout(row: Layout, line: Line) -> Sample:
    return reference_sample(row.id, row.dialogue, row.reference)


def load(path: Path) -> tuple[Sample, ...]:
    """A file in the layout, or the released folder."""
    if not path.is_dir():
        return read_samples("primock57", path, (Form(kind=Layout, sample=from_layout),))
    notes = sorted((path / "notes").glob("*.json"))
    if not notes:
        raise DataError(f"{path} holds no notes/*.json; name the folder of the release")
    return tuple(_consultation(path, note) for note in notes)


def _consultation(folder: Path, file: Path) -> Sample:
    (line, *_) = read_lines(file)
    turns = sorted(
        turn
        for who in ("doctor", "patient")
        for turn in turns_of(folder / "transcripts" / f"{file.stem}_{who}.TextGrid", who)
    )
    dialogue = "\n".join(f"{who.capitalize()}: {text}" for _, who, text in turns)
    try:
        return reference_sample(file.stem, dialogue, str(line.value.get("note") or ""))
    except DataError as error:
        raise DataError(f"{line.where}: {error}") from None


def turns_of(file: Path, who: str) -> Iterator[tuple[float, str, str]]:
    """Begin in seconds, speaker, words; silent intervals left out. Raises `DataError` for a file that is no TextGrid."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, byte {error.start + 1}: not UTF-8") from error
    if "TextGrid" not in text[:200]:
        raise DataError(f"{file}, line 1: not a TextGrid")
    for begin, words in _INTERVAL.findall(text):
        said = " ".join(_MARK.sub(" ", words.replace('""', '"')).split())
        if said:
            yield float(begin), who, said


PRIMOCK57 = writing_task(
    About(
        name="primock57",
        title="PriMock57, consultation to GP note",
        language="en",
        where_from="github.com/babylonhealth/primock57",
        licence="CC BY 4.0",
        citation="Papadopoulos Korfiatis et al. 2022, arXiv 2204.00333",
    ),
    load,
    lambda sample: f"{WISH}{sample.input.strip()}\n\nNote:",
    kind="summary",
    max_tokens=MAX_TOKENS,
    closed=True,
)
