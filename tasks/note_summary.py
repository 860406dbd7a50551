"""Summarise a clinical note for a colleague, in English or Chinese, judged by key facts.

Headline: `key_fact_recall`, the share of the note's key facts (doses, allergies, sides, negations, follow-up ...) that
the summary states. A fact said wrongly is *contradicted*; contradicted facts of dose, laterality, negation or allergy
are *critical errors*. Beside it stand numbers and drugs that the note does not hold, ROUGE, lengths, and what went
wrong altogether (empty, refused, wrong language, looping, a copy of the note). Written for this project, not reviewed
by a clinician.

A summary is *acceptable* (verdict `correct`) when it recalls at least 70 % of the facts, has no critical error and is
none of: refused, in the wrong language, looping, a copy. A copied note is no summary: its recall counts 0, or copying
would win every ranking.

`style = "one_sentence"` asks for one sentence, the wish after the note; its headline is `key_fact_recall_of_one_sentence`. It is for models
too small to end a summary: those of 135M parameters asked for 50 to 120 words go round in circles up to any limit of tokens.

Worked example: a note with 10 key facts; the summary states 8, gives one dose wrongly and leaves one out:
key_fact_recall 0.8, contradicted_facts 1, critical_errors 1, verdict `wrong`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from tasks import answers, facts
from tasks.base import Answer, Generate, Language, Message, Prompt, Sample, Score, Scoring, Style, Task, Verdict
from tasks.facts import CRITICAL, Fact
from tasks.faithful import copied_share, unsupported_drugs, unsupported_numbers
from tasks.read import DATA, read_rows

ACCEPTABLE_RECALL = 0.7
"""Least key-fact recall of an acceptable summary. A threshold of this project, not of a guideline."""
COPIED_SHARE = 0.7
COPIED_LENGTH = 0.75
"""A summary at least this long beside its note, of which the above share is verbatim, is a copy."""
MAX_TOKENS: dict[Language, int] = {"en": 320, "zh": 480}

WISHES: dict[Language, str] = {
    "en": "Summarise the following clinical note for a colleague who takes over the patient. Write 50 to 120 words of "
    "plain prose. State what must be known: diagnosis, relevant history, key findings, procedures, drugs with doses, "
    "allergies, the side affected, important negatives, and what is to happen next. Use only what the note says.\n\n",
    "zh": "请为接班的同事总结下面这份病历。用90至220字的连贯文字，写明必须知道的内容：诊断、相关病史、关键检查结果、操作或手术、"
    "药物及剂量、过敏史、病变侧别、重要的阴性情况和下一步安排。只使用病历中的信息。\n\n",
}
SENTENCES: dict[Language, str] = {
    "en": "\n\nSummarise this clinical note in one sentence, for a colleague who takes over the patient. Use only what the note says.",
    "zh": "\n\n请为接班的同事用一句话总结这份病历。只使用病历中的信息。",
}
SENTENCE_TOKENS = 100
CUES: dict[Language, str] = {"en": "\n\nSummary:", "zh": "\n\n总结："}

Kind = Literal[
    "admission",
    "discharge",
    "ed",
    "ward_round",
    "radiology",
    "gp_letter",
    "course",
    "outpatient",
    "consult",
    "operation",
]


class Note(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of `note_summary_*.jsonl`."""

    id: str
    kind: Kind
    note: str
    reference: str
    drugs: tuple[str, ...]
    facts: tuple[Fact, ...]


def outline(row: Note) -> str:
    """What is wrong with a note but for its patterns, or ""."""
    if not row.note.strip():
        return "the note is empty"
    if not row.reference.strip():
        return "the reference is empty"
    if not row.facts:
        return "there are no key facts"
    if len({fact.id for fact in row.facts}) != len(row.facts):
        return "two facts have the same id"
    return ""


def complaint(row: Note) -> str:
    """What is wrong with a note, patterns compiled, or ""."""
    return outline(row) or next((problem for fact in row.facts if (problem := facts.complaint(fact))), "")


def load(file_name: str, path: Path | None) -> tuple[Sample, ...]:
    """The embedded notes, or those of another file in the same form. Raises `DataError`.

    The embedded patterns are compiled when used: `tasks.check` has tried them, and planning should not wait for 1,500 of them.
    """
    return tuple(
        Sample(
            id=row.id,
            input=row.note,
            target=row.reference,
            tags={"kind": row.kind},
            extra={"drugs": row.drugs, "facts": row.facts},
        )
        for row in read_rows(path or DATA / file_name, Note, complaint if path else outline)
    )


def prompt(language: Language, sample: Sample, scoring: Scoring) -> Prompt:
    """One user turn: the wish, the note, the cue."""
    text = f"{WISHES[language]}{sample.input.strip()}{CUES[language]}"
    return Generate(messages=(Message("user", text),), max_tokens=MAX_TOKENS[language])


def one_sentence(language: Language, sample: Sample, scoring: Scoring) -> Prompt:
    """One user turn: the note, then the wish, which small models forget when it stands before the note."""
    text = f"{sample.input.strip()}{SENTENCES[language]}"
    return Generate(messages=(Message("user", text),), max_tokens=SENTENCE_TOKENS)


def score(language: Language, sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    """Judge a summary. `Score.answer` is "7/9 facts"; `detail` names what was contradicted or is unsupported."""
    if answer.finish == "error":
        return Score(value=None, verdict="error", detail=answer.error or "the request failed")
    reply = answers.read_reply(answer, language)
    if not reply.final:
        verdict: Verdict = "truncated" if answer.finish == "length" else "no_answer"
        return Score(value=0.0, verdict=verdict, metrics={"key_fact_recall": 0.0}, flags=reply.flags)
    judged = facts.judge(sample.extra["facts"], reply.final)
    numbers = unsupported_numbers(sample.input, reply.final)
    drugs = unsupported_drugs(sample.input, sample.extra["drugs"], reply.final)
    wrong = [fact for fact in sample.extra["facts"] if judged[fact.id] == "contradicted"]
    critical = [fact for fact in wrong if fact.category in CRITICAL]
    from tasks.rouge import self_overlap

    metrics = _measures(language, sample, reply.final)
    copied = metrics["copied_share"] >= COPIED_SHARE and metrics["length_ratio"] >= COPIED_LENGTH
    recalled = sum(finding == "recalled" for finding in judged.values())
    recall = 0.0 if copied else recalled / len(judged)
    signs = {
        "copied_note": copied,
        "contradicted_fact": bool(wrong),
        "critical_error": bool(critical),
        "unsupported_number": bool(numbers),
        "unsupported_drug": bool(drugs),
        "cut_off": answer.finish == "length",
    }
    flags = (*reply.flags, *(name for name, there in signs.items() if there))
    return Score(
        value=recall,
        verdict=_verdict(recall, flags),
        answer=f"{recalled}/{len(judged)} facts",
        metrics={
            "key_fact_recall": recall,
            "contradicted_facts": float(len(wrong)),
            "contradiction_rate": len(wrong) / len(judged),
            "critical_errors": float(len(critical)),
            "unsupported_numbers": float(len(numbers)),
            "unsupported_drugs": float(len(drugs)),
            **metrics,
        },
        flags=flags,
        detail=_detail(wrong, numbers, drugs),
        self_test=self_overlap(sample.target, language),
    )


def _verdict(recall: float, flags: Sequence[str]) -> Verdict:
    if "refusal" in flags and recall < ACCEPTABLE_RECALL:
        return "no_answer"
    spoilt = {"refusal", "wrong_language", "loop", "copied_note", "critical_error"}
    if recall >= ACCEPTABLE_RECALL and not spoilt & set(flags):
        return "correct"
    return "truncated" if "cut_off" in flags else "wrong"


def _measures(language: Language, sample: Sample, summary: str) -> dict[str, float]:
    """Measures that need no facts. Lengths are words in English and characters in Chinese."""
    from tasks.rouge import length, rouge

    words = length(summary, language)
    return {
        **rouge(sample.target, summary, language),
        "length": float(words),
        "length_ratio": words / length(sample.input, language),
        "length_ratio_reference": words / length(sample.target, language),
        "copied_share": copied_share(sample.input, summary, language),
    }


def _detail(wrong: Sequence[Fact], numbers: Sequence[str], drugs: Sequence[str]) -> str:
    parts = (
        ("contradicted", [fact.label for fact in wrong]),
        ("numbers not in the note", numbers),
        ("drugs not in the note", drugs),
    )
    return "; ".join(f"{name}: {', '.join(items)}" for name, items in parts if items)


def _task(language: Language, title: str) -> Task:
    name = f"note_summary_{language}"
    return Task(
        name=name,
        version=1,
        title=title,
        language=language,
        kind="summary",
        metric="key_fact_recall",
        scorings=("generate",),
        max_tokens=MAX_TOKENS[language],
        source="written for this project",
        licence="Apache-2.0",
        synthetic=True,
        load=partial(load, f"{name}.jsonl"),
        prompt=partial(prompt, language),
        score=partial(score, language),
        styles={
            "one_sentence": Style(prompt=partial(one_sentence, language), metric="key_fact_recall_of_one_sentence")
        },
    )


NOTE_SUMMARY_EN = _task("en", "Summaries of clinical notes, English")
NOTE_SUMMARY_ZH = _task("zh", "Summaries of clinical notes, Chinese")
