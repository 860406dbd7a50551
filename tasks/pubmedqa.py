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
from tasks.base import Answer, DataError, Prompt, Rank, Sample, Score, Scoring, Task
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
    """As a choice among the three labels; a written text may name the letter or say the label."""
    judged = choice.score("en", sample, scoring, answer)
    if scoring != "generate" or judged.answer is not None or answer.finish != "stop":
        return judged
    label = answers.find_label(answers.read_reply(answer, "en").final, answers.YES_NO_MAYBE["en"])
    if label is None:
        return judged
    right = sample.options.index(label) == int(sample.target)
    return Score(
        value=float(right),
        verdict="correct" if right else "wrong",
        answer=label,
        metrics={"acc": float(right)},
        flags=judged.flags,
    )


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
