"""What a clinical task is: samples to ask, how to ask them, and a way to score an answer. Knows no model, clock or
GPU.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

Language = Literal["en", "zh"]
Scoring = Literal["likelihood", "letters", "generate"]
"""likelihood: log-likelihood of each answer text; letters: of A, B, C ... after a lettered question; generate: write,
then extract.
"""
Kind = Literal["choice", "label", "number", "summary", "free", "detect", "speed"]
Verdict = Literal["correct", "wrong", "no_answer", "truncated", "error"]


class DataError(Exception):
    """A data file that the user can mend; the message names file and line."""


class Message(Struct, frozen=True):
    role: Literal["system", "user", "assistant"]
    text: str


class Sample(Struct, frozen=True, kw_only=True):
    """One item. `target` is the right answer as text: the index of the right option, a label, a number, the reference
    summary.
    """

    id: str
    input: str
    options: tuple[str, ...] = ()
    target: str
    cluster: str = ""
    """Samples that share it are not independent; empty means the sample's own id."""
    tags: dict[str, str] = {}
    extra: dict[str, Any] = {}
    """What only the task's own scorer reads: key facts, tolerance, source text."""


class Generate(Struct, frozen=True, tag=True, kw_only=True):
    messages: tuple[Message, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these; not sent to reasoning models, whose thinking may hold them."""
    prompt_tokens: int | None = None
    """Speed tasks only: send exactly this many (meaningless) tokens and produce exactly `max_tokens`."""


class Rank(Struct, frozen=True, tag=True, kw_only=True):
    """`context` and each continuation are plain text, concatenated as they stand (a continuation begins with its own
    blank).
    """

    context: str
    continuations: tuple[str, ...]


Prompt = Generate | Rank


class Answer(Struct, frozen=True, kw_only=True):
    """What came back: raw text of the answer channel and of the reasoning channel, or one log-likelihood for each
    continuation.
    """

    text: str = ""
    reasoning: str | None = None
    finish: Literal["stop", "length", "error"] = "stop"
    logprobs: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    """Token count of each continuation."""
    error: str | None = None


class Score(Struct, frozen=True, kw_only=True):
    """`value` is the headline in [0, 1], `None` for an error. For summaries `correct` means acceptable (threshold in
    the task).
    """

    value: float | None
    verdict: Verdict
    answer: str | None = None
    metrics: dict[str, float] = {}
    flags: tuple[str, ...] = ()
    detail: str = ""
    self_test: float | None = None
    """What the scorer gives the reference itself; `None` where no text is compared by its words."""


class Style(Struct, frozen=True, kw_only=True):
    """Another way to ask a task, with a headline name of its own, so that the two are never taken for one."""

    prompt: Callable[[Sample, Scoring], Prompt]
    metric: str


class Task(Struct, frozen=True, kw_only=True):
    """A task is one file. `load(None)` reads the embedded data; a task without any says in `DataError` how to get
    it.
    """

    name: str
    version: int
    """Of prompt and scorer; raise it when either changes what a score means."""
    title: str
    language: Language
    kind: Kind
    metric: str
    """Name of the headline value under the default scoring."""
    metrics: dict[Scoring, str] = {}
    """Where another scoring has another headline; read it through `headline`."""
    scorings: tuple[Scoring, ...]
    """The first is the default."""
    max_tokens: int
    source: str
    licence: str
    citation: str = ""
    synthetic: bool = False
    """Written for this project, not reviewed by a clinician."""
    public: bool = False
    """Published before the models were trained: absolute levels are no evidence of clinical ability."""
    load: Callable[[Path | None], Sequence[Sample]]
    prompt: Callable[[Sample, Scoring], Prompt]
    score: Callable[[Sample, Scoring, Answer], Score]
    """Not for `kind == "speed"`: such steps measure time only, are never scored, and their scorer raises
    `TypeError`.
    """
    styles: dict[str, Style] = {}
    """Other ways to ask, by the name that a suite gives in `style`."""
    together: Callable[[Sequence[tuple[Sample, Answer]]], Sequence[Score]] | None = None
    """Where set, scores all answers of a step at once, in their order, and `score` is never called."""


def headline(task: Task, scoring: Scoring) -> str:
    """Name of the headline value of a task scored in this way."""
    return task.metrics.get(scoring, task.metric)


def arrange(sample: Sample, shift: int) -> Sample:
    """The same question with its options rotated by `shift`; the target (an index) moves along."""
    count = len(sample.options)
    if not count or not shift % count:
        return sample
    order = [(i + shift) % count for i in range(count)]
    return Sample(
        id=sample.id,
        input=sample.input,
        options=tuple(sample.options[i] for i in order),
        target=",".join(str(order.index(int(t))) for t in sample.target.split(",")),
        cluster=sample.cluster,
        tags=sample.tags,
        extra=sample.extra,
    )
