"""PubMedQA (expert-labelled): does the abstract answer its question with yes, no or maybe?

Source: Jin et al., EMNLP 2019, arXiv 1909.06146; github.com/pubmedqa/pubmedqa (MIT for the repository; publishers may hold rights in the
abstracts). 1,000 labelled questions (`ori_pqal.json`), of which `test_ground_truth.json` names the official 500 for testing: where
it lies beside the questions, those are read and their labels must agree. Always answering "yes" scores 0.552. The conclusion
(`long_answer`) is never shown.

Worked example: "Do mitochondria play a role in remodelling lace plant leaves during programmed cell death?" after its abstract; label yes.
"Answer: yes" and "Answer: A" score 1, "Answer: maybe" 0. By `likelihood` the continuations are " yes", " no", " maybe".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from tasks import answers, choice
from tasks.base import Answer, DataError, Prompt, Rank, Sample, Score, Scoring, Task, Verdict
from tasks.public import About, Form, Line, given, inline_form, read_lines, samples_of

LABELS = ("yes", "no", "maybe")
GROUND_TRUTH = "test_ground_truth.json"
Label = Literal["yes", "no", "maybe"]


class Layout(Struct, frozen=True, kw_only=True):
    """The project's JSON Lines layout."""

    id: str | int
    question: str
    contexts: tuple[str, ...]
    answer: Label


class Released(Struct, frozen=True, kw_only=True):
    """An item of `ori_pqal.json`; its key, the PubMed number, is the id."""

    id: str
    QUESTION: str
    CONTEXTS: tuple[str, ...]
    final_decision: Label


class HubContext(Struct, frozen=True):
    contexts: tuple[str, ...]


class HubRow(Struct, frozen=True, kw_only=True):
    """A row of the copy on Hugging Face (`qiaojin/PubMedQA`, `pqa_labeled`)."""

    pubid: str | int
    question: str
    context: HubContext
    final_decision: Label


def _sample(item: str | int, question: str, contexts: Sequence[str], label: str) -> Sample:
    if not question.strip() or not any(context.strip() for context in contexts):
        raise DataError("the question or its abstract is empty")
    text = f"Abstract: {' '.join(contexts)}\nQuestion: {question}"
    return Sample(id=str(item), input=text, options=LABELS, target=str(LABELS.index(label)), tags={"label": label})


def from_layout(row: Layout, line: Line) -> Sample:
    return _sample(row.id, row.question, row.contexts, row.answer)


def released(row: Released, line: Line) -> Sample:
    return _sample(row.id, row.QUESTION, row.CONTEXTS, row.final_decision)


def hub_row(row: HubRow, line: Line) -> Sample:
    return _sample(row.pubid, row.question, row.context.contexts, row.final_decision)


def load(path: Path | None) -> tuple[Sample, ...]:
    """The questions of a file in one of the forms; the official 500 where the ground truth lies beside it."""
    path = given(ABOUT, path)
    forms = (
        Form(kind=Released, sample=released),
        Form(kind=HubRow, sample=hub_row),
        Form(kind=Layout, sample=from_layout),
        inline_form(len(LABELS)),
    )
    samples = samples_of("pubmedqa", read_lines(path), forms)
    beside = path.with_name(GROUND_TRUTH)
    return _official(samples, beside) if path.suffix == ".json" and beside.is_file() else samples


def _official(samples: Sequence[Sample], file: Path) -> tuple[Sample, ...]:
    try:
        labels = msgspec.json.decode(file.read_bytes(), type=dict[str, Label])
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{file}: not an object of labels by PubMed number ({error})") from error
    known = {sample.id: sample for sample in samples}
    for number, label in labels.items():
        if number not in known or known[number].tags["label"] != label:
            raise DataError(f"{file}: {number} is {label} here and otherwise, or missing, among the questions")
    return tuple(sample for sample in samples if sample.id in labels)


def prompt(sample: Sample, scoring: Scoring) -> Prompt:
    """The abstract stands before the question, as lm-evaluation-harness has it."""
    if scoring == "likelihood":
        return Rank(context=f"{sample.input}\nAnswer:", continuations=tuple(f" {label}" for label in sample.options))
    return choice.prompt("en", sample, scoring)


def score(sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    """A written answer says a label or its letter; ranked ones are judged as any choice. `Score.answer` is the label."""
    if scoring != "generate" or answer.finish == "error":
        return choice.score("en", sample, scoring, answer)
    reply = answers.read_reply(answer, "en")
    label = find_label(reply.final, sample.options, cut_off=answer.finish == "length")
    if label is None:
        verdict: Verdict = "truncated" if answer.finish == "length" else "no_answer"
        return Score(value=0.0, verdict=verdict, metrics={"acc": 0.0}, flags=reply.flags)
    right = float(sample.options.index(label) == int(sample.target))
    return Score(
        value=right, verdict="correct" if right else "wrong", answer=label, metrics={"acc": right}, flags=reply.flags
    )


def find_label(final: str, labels: Sequence[str], *, cut_off: bool) -> str | None:
    """The label that a text decides for, by word or by letter.

    Words like "no" stand in many a last line ("no effect was seen"), so a label counts only where it is stated, not where it is named.
    """
    if not cut_off and (label := answers.find_label(final, answers.YES_NO_MAYBE["en"])):
        return label
    letters = choice.LETTERS[: len(labels)]
    letter = answers.find_choice(final, [f"option {x}" for x in letters], stated_only=cut_off)
    return labels[letters.index(letter)] if letter else None


ABOUT = About(
    name="pubmedqa",
    title="PubMedQA, yes / no / maybe from an abstract",
    language="en",
    where_from="github.com/pubmedqa/pubmedqa",
    licence="MIT",
    citation="Jin et al. 2019, arXiv 1909.06146",
)
PUBMEDQA = Task(
    name=ABOUT.name,
    version=1,
    title=ABOUT.title,
    language="en",
    kind="label",
    metric=choice.METRICS["likelihood"],
    metrics=choice.METRICS,
    scorings=("likelihood", "letters", "generate"),
    max_tokens=choice.MAX_TOKENS,
    source=ABOUT.where_from,
    licence=ABOUT.licence,
    citation=ABOUT.citation,
    public=True,
    load=load,
    prompt=prompt,
    score=score,
)
