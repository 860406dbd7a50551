"""Texts judged against a reference without a rubric: notes from dialogues, answers to patients, questions on a case.

Headline: ROUGE-L (F-measure; Chinese by character), a tripwire: it falls when a deployment breaks (garbles, truncates, answers in
another language) and says little about which of two sound texts is clinically better; it ranked DeepSeek-R1 671B below a 7B distill in
a published comparison. It is no measure of clinical validity, and no share of "must-have statements" is derived from words that
overlap. Beside it stand literal checks: which of the reference's numbers and drugs the text names (`number_recall`, `drug_recall`),
which of its own the source does not hold (`unsupported_numbers`, `unsupported_drugs`; only where the source is all that may be
used), lengths, copying. Verdict `correct` means *usable*: finished, in the right language, no refusal, loop, or copy of the source, and
at least a fifth as long as the reference; nothing more.

Worked example: reference "Lisinopril 20 mg daily.", text "Continue lisinopril 20 mg." ROUGE-L 0.75 (3 of 4 words each way), number_recall
1, drug_recall 1; "Continue 10 mg." has number_recall 0, drug_recall 0 and one unsupported number if the source does not hold 10.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tasks import answers
from tasks.base import Answer, DataError, Generate, Kind, Message, Prompt, Sample, Score, Scoring, Task, Verdict
from tasks.faithful import copied_share, unsupported_drugs, unsupported_numbers
from tasks.note_summary import COPIED_LENGTH, COPIED_SHARE
from tasks.public import About, given

METRIC = "rouge_l"
TOO_SHORT = 0.2
"""A text of less than this share of the reference's words is of no use, whatever it says."""


def reference_sample(
    item: str, text: str, reference: str, *, cluster: str = "", tags: dict[str, str] | None = None, facts: str = ""
) -> Sample:
    """An item with its reference. `facts`: what numbers and drugs are looked for in, where that is not the reference."""
    if not text.strip():
        raise DataError("the text to work on is empty")
    if not reference.strip():
        raise DataError("the reference is empty")
    known = {key: value for key, value in (tags or {}).items() if value}
    return Sample(
        id=item, input=text, target=reference, cluster=cluster, tags=known, extra={"facts": facts} if facts else {}
    )


def writing_task(
    about: About,
    load: Callable[[Path], Sequence[Sample]],
    wish: Callable[[Sample], str],
    *,
    kind: Kind,
    max_tokens: int,
    closed: bool,
) -> Task:
    """A task with one user turn, `wish`. `closed`: nothing but the source may be used, so what it does not hold is counted."""

    def prompt(sample: Sample, scoring: Scoring) -> Prompt:
        return Generate(messages=(Message("user", wish(sample)),), max_tokens=max_tokens)

    return Task(
        name=about.name,
        version=1,
        title=about.title,
        language=about.language,
        kind=kind,
        metric=METRIC,
        scorings=("generate",),
        max_tokens=max_tokens,
        source=about.where_from,
        licence=about.licence,
        citation=about.citation,
        public=True,
        load=lambda path: load(given(about, path)),
        prompt=prompt,
        score=partial(score, about, closed),
    )


def score(about: About, closed: bool, sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    """Judge a text. Without `rouge-score` the headline is unknown, which is an error and no zero."""
    from tasks.rouge import length, rouge, self_overlap

    if answer.finish == "error":
        return Score(value=None, verdict="error", detail=answer.error or "the request failed")
    reply = answers.read_reply(answer, about.language)
    if not reply.final:
        empty: Verdict = "truncated" if answer.finish == "length" else "no_answer"
        return Score(value=0.0, verdict=empty, metrics={METRIC: 0.0}, flags=reply.flags)
    metrics = rouge(sample.target, reply.final, about.language)
    if METRIC not in metrics:
        return Score(value=None, verdict="error", detail="rouge-score is not installed; pip install 'bedside[report]'")
    words = length(reply.final, about.language)
    copied = copied_share(sample.input, reply.final, about.language)
    is_copy = copied >= COPIED_SHARE and words >= COPIED_LENGTH * length(sample.input, about.language)
    metrics |= {
        "length": float(words),
        "length_ratio_reference": words / length(sample.target, about.language),
        "copied_share": copied,
        **_recalled(sample.extra.get("facts") or sample.target, reply.final),
    }
    numbers = unsupported_numbers(sample.input, reply.final) if closed else ()
    drugs = unsupported_drugs(sample.input, (), reply.final) if closed else ()
    if closed:
        metrics |= {"unsupported_numbers": float(len(numbers)), "unsupported_drugs": float(len(drugs))}
    signs = {
        "copied_note": is_copy,
        "unsupported_number": bool(numbers),
        "unsupported_drug": bool(drugs),
        "too_short": metrics["length_ratio_reference"] < TOO_SHORT,
        "cut_off": answer.finish == "length",
    }
    flags = (*reply.flags, *(name for name, there in signs.items() if there))
    return Score(
        value=metrics[METRIC],
        verdict=_verdict(flags),
        metrics=metrics,
        flags=flags,
        detail=_detail(numbers, drugs),
        self_test=self_overlap(sample.target, about.language),
    )


def _recalled(reference: str, text: str) -> dict[str, float]:
    """Shares of the reference's distinct numbers and drugs that the text names; nothing where the reference has none."""
    found = {}
    for name, all_of, missing in (
        ("number_recall", unsupported_numbers("", reference), unsupported_numbers(text, reference)),
        ("drug_recall", unsupported_drugs("", (), reference), unsupported_drugs(text, (), reference)),
    ):
        if all_of:
            found[name] = 1.0 - len(missing) / len(all_of)
    return found


def _verdict(flags: Sequence[str]) -> Verdict:
    if "refusal" in flags:
        return "no_answer"
    if "cut_off" in flags:
        return "truncated"
    return "wrong" if {"wrong_language", "loop", "copied_note", "too_short"} & set(flags) else "correct"


def _detail(numbers: Sequence[str], drugs: Sequence[str]) -> str:
    parts = (("numbers not in the source", numbers), ("drugs not in the source", drugs))
    return "; ".join(f"{name}: {', '.join(items)}" for name, items in parts if items)
