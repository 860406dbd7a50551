"""MEDEC: is there a medical error in this record, and in which sentence?

Source: Ben Abacha et al., Findings of ACL 2025, arXiv 2412.19260; github.com/abachaa/MEDEC (CC BY 4.0). The MS part: 597 test texts,
311 with one planted error. Its CSV ends with 328 blank rows (the size of the UW part, which needs an agreement), which are passed over.

Headline: `flag_accuracy`, right about whether there is an error; saying "error" always scores 0.521. Beside it `sentence_accuracy`: also
the right sentence (for a correct text: none), and `correction_rouge_l`: ROUGE-L of the corrected sentence against the reference, where both
are there; a tripwire, since a right correction may be worded otherwise.

Worked example: sentence 10 of a text says "Patient's symptoms are suspected to be due to hepatitis A."; reference "… due to Schistosoma
mansoni.". "Answer: 10 | … schistosomiasis" has flag_accuracy 1 and sentence_accuracy 1; "Answer: 9" 1 and 0; "Answer: CORRECT" 0 and 0.
"""

import re
from pathlib import Path

from msgspec import Struct, field

from tasks import answers
from tasks.base import Answer, DataError, Generate, Message, Prompt, Sample, Score, Scoring, Task, Verdict
from tasks.public import About, Form, Line, given, read_samples

MAX_TOKENS = 1024
CORRECT = "-1"
"""Sentence of a text without an error, as the release writes it."""
WISH = (
    "The text below is a medical record, one sentence a line, each beginning with its number. It is either correct or holds exactly "
    "one medical error (of diagnosis, management, treatment, drug or cause). Check every sentence; think it through if you need to. End "
    'with one line: "Answer: CORRECT" if there is no error, else "Answer: N | S", where N is the number of the wrong sentence '
    "and S that sentence corrected.\n\n"
)
_STATED = re.compile(r"\banswers?\s*(?:is)?\s*[:=]?\s*", re.IGNORECASE)
_VERDICT = re.compile(
    r"""["'(\[]*(?:(?P<none>correct|no\ errors?|-1)\b|(?:sentence|line|id|number|no\.?)?\s*[#:]?\s*(?P<number>\d{1,3})(?![\d.]*\d))"""
    r"""["')\]]*[\s:|.,–—-]*(?P<rest>.*)""",
    re.IGNORECASE | re.VERBOSE,
)


class Released(Struct, frozen=True, kw_only=True):
    """A row of the release, or of the project's layout, which kept its column names but for `Text ID`."""

    sentences: str = field(name="Sentences")
    flag: str = field(name="Error Flag")
    sentence_id: str = field(name="Error Sentence ID")
    corrected: str = field(name="Corrected Sentence")
    kind: str = field(name="Error Type", default="")
    text_id: str = field(name="Text ID", default="")
    id: str = ""


def released(row: Released, line: Line) -> Sample:
    """A record with its sentences as numbered upstream. Raises `DataError` where flag, sentence and correction do not agree."""
    sentences = row.sentences.replace("\r\n", "\n").strip()
    numbers = tuple(found.group(1) for found in re.finditer(r"^(\d+) ", sentences, re.MULTILINE))
    wrong = row.sentence_id.strip()
    if not numbers:
        raise DataError("`Sentences` holds no numbered sentence")
    if row.flag not in ("0", "1"):
        raise DataError(f"`Error Flag` is {row.flag!r}, not 0 or 1")
    if (row.flag == "0") != (wrong == CORRECT) or (wrong != CORRECT and wrong not in numbers):
        raise DataError(f"`Error Sentence ID` {wrong!r} does not fit the flag {row.flag} or the sentences")
    if row.flag == "1" and row.corrected.strip() in ("", "NA"):
        raise DataError("`Corrected Sentence` is empty")
    return Sample(
        id=row.id or row.text_id,
        input=sentences,
        target=wrong,
        tags={"error": row.kind if row.flag == "1" and row.kind else "none"},
        extra={"correction": row.corrected if row.flag == "1" else "", "numbers": numbers},
    )


def load(path: Path | None) -> tuple[Sample, ...]:
    """The records of the released table or of a file in the layout."""
    return read_samples("medec", given(ABOUT, path), (Form(kind=Released, sample=released),))


def prompt(sample: Sample, scoring: Scoring) -> Prompt:
    """One user turn: the wish and the numbered sentences."""
    return Generate(messages=(Message("user", WISH + sample.input),), max_tokens=MAX_TOKENS)


def find_verdict(final: str, numbers: tuple[str, ...]) -> tuple[str, str] | None:
    """Number of the sentence called wrong ("-1" for none) and its correction: of the last "Answer:", else of the last line.

    `None` when neither says one, or the number is of no sentence.
    """
    text = answers.plain(final)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    stated = [text[found.end() :].strip() for found in _STATED.finditer(text)]
    for candidate in [*stated[::-1][:1], *lines[-1:]]:
        if found := _VERDICT.match(candidate):
            if found.group("none"):
                return CORRECT, ""
            number = str(int(found.group("number")))
            return (number, found.group("rest").split("\n")[0].strip()) if number in numbers else None
    return None


def score(sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    """Judge a verdict. `Score.answer` is the number of the sentence, "-1" for "correct"."""
    if answer.finish == "error":
        return Score(value=None, verdict="error", detail=answer.error or "the request failed")
    reply = answers.read_reply(answer, "en")
    found = find_verdict(reply.final, sample.extra["numbers"]) if answer.finish == "stop" else None
    if found is None:
        verdict: Verdict = "truncated" if answer.finish == "length" else "no_answer"
        return Score(
            value=0.0, verdict=verdict, metrics={"flag_accuracy": 0.0, "sentence_accuracy": 0.0}, flags=reply.flags
        )
    number, correction = found
    flag = float((number == CORRECT) == (sample.target == CORRECT))
    metrics = {"flag_accuracy": flag, "sentence_accuracy": float(number == sample.target)}
    if correction and sample.extra["correction"]:
        from tasks.rouge import rouge

        overlap = rouge(sample.extra["correction"], correction, "en")
        metrics |= {"correction_rouge_l": overlap["rouge_l"]} if overlap else {}
    return Score(value=flag, verdict="correct" if flag else "wrong", answer=number, metrics=metrics, flags=reply.flags)


ABOUT = About(
    name="medec",
    title="MEDEC, find the error in a record",
    language="en",
    where_from="github.com/abachaa/MEDEC",
    licence="CC BY 4.0",
    citation="Ben Abacha et al. 2025, arXiv 2412.19260",
)
MEDEC = Task(
    name=ABOUT.name,
    version=1,
    title=ABOUT.title,
    language="en",
    kind="detect",
    metric="flag_accuracy",
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
