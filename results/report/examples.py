"""Worked examples: what was asked, what the model said, what was made of it. All of it is text to show, never markup.

Prompts stand in a cell's job.json; cells that were asked the same share them, so one file is read for many cells. A run that keeps no
text has neither prompts nor answers there.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from results.records import Answered, Ranked, Scored
from results.views import StepRecords

LONGEST_PROMPT = 1800
LONGEST_ANSWER = 1500
HELD_CHARACTERS = 8_000_000
"""Prompts of one step that are kept for other cells; a step with more is read again."""

Place = tuple[str, int]
"""Sample and repeat."""


class Option(Struct, frozen=True, kw_only=True):
    """One ranked continuation."""

    text: str
    logprob: float
    chosen: bool
    right: bool


class Example(Struct, frozen=True, kw_only=True):
    """One answer with everything that led to its score. Texts are `None` where they were not kept."""

    step: str
    task: str
    sample: str
    kind: Literal["right", "wrong", "other"]
    verdict: str
    value: float | None
    extracted: str | None
    target: str | None
    prompt: str | None
    options: tuple[Option, ...] = ()
    by_length: bool = False
    """The option chosen has the largest log-likelihood for each character."""
    reasoning: str | None = None
    answer: str | None = None
    detail: str = ""
    flags: tuple[str, ...] = ()
    output_tokens: int | None = None


class _Turn(Struct):
    role: str
    text: str


class _Request(Struct):
    id: str
    repeat: int = 0
    turns: list[_Turn] = []
    prefill: str = ""


class _Rank(Struct):
    id: str
    context: str
    repeat: int = 0
    continuations: list[str] = []


class _Step(Struct):
    name: str
    requests: list[_Request] = []
    ranks: list[_Rank] = []


class _Job(Struct):
    steps: list[_Step] = []


class Asked(Struct, frozen=True):
    """A prompt, and the continuations that were ranked after it."""

    prompt: str
    continuations: tuple[str, ...] = ()


class Prompts:
    """Finds the prompts of a step, by the hash of all its prompts where another cell was asked the same."""

    def __init__(self) -> None:
        self._held: dict[str, dict[Place, Asked]] = {}

    def of(self, job: Path, step: StepRecords, wanted: Sequence[Place]) -> dict[Place, Asked]:
        """Prompts of the wanted places; those that were not kept are left out."""
        held = self._held.get(step.facts.prompt_sha256, {})
        if any(place not in held for place in wanted):
            held = _read_prompts(job, step.facts.name, wanted)
            self._held[step.facts.prompt_sha256] = held
        return {place: held[place] for place in wanted if place in held}


def _read_prompts(job: Path, step: str, wanted: Iterable[Place]) -> dict[Place, Asked]:
    try:
        decoded = msgspec.json.decode(job.read_bytes(), type=_Job)
    except (OSError, msgspec.DecodeError):
        return {}  # no text was kept, or the cell never began
    asked: dict[Place, Asked] = {}
    for found in (s for s in decoded.steps if s.name == step):
        for request in found.requests:
            turns = "\n\n".join(t.text if t.role == "user" else f"[{t.role}] {t.text}" for t in request.turns)
            asked[request.id, request.repeat] = Asked(
                turns + (f"\n\n[reply] {request.prefill}" if request.prefill else "")
            )
        for rank in found.ranks:
            asked[rank.id, rank.repeat] = Asked(rank.context, tuple(rank.continuations))
    if sum(len(a.prompt) for a in asked.values()) > HELD_CHARACTERS:
        kept = set(wanted)
        return {place: a for place, a in asked.items() if place in kept}
    return asked


def examples_of(step: StepRecords, job: Path, prompts: Prompts) -> tuple[Example, ...]:
    """The first answer that is right, the first that is wrong, and the first of any other verdict."""
    chosen: dict[Literal["right", "wrong", "other"], Scored] = {}
    for score in step.scores:
        chosen.setdefault(_kind(score), score)
    places = {kind: (s.sample, s.repeat) for kind, s in chosen.items()}
    records = {(r.sample, r.repeat): r for r in step.records if (r.sample, r.repeat) in set(places.values())}
    asked = prompts.of(job, step, list(places.values())) if places else {}
    order: tuple[Literal["right", "wrong", "other"], ...] = ("right", "wrong", "other")
    return tuple(
        _example(kind, step, chosen[kind], records.get(places[kind]), asked.get(places[kind]))
        for kind in order
        if kind in chosen
    )


def _kind(score: Scored) -> Literal["right", "wrong", "other"]:
    match score.verdict:
        case "correct":
            return "right"
        case "wrong":
            return "wrong"
        case _:
            return "other"


def _example(
    kind: Literal["right", "wrong", "other"],
    step: StepRecords,
    score: Scored,
    record: Answered | Ranked | None,
    asked: Asked | None,
) -> Example:
    answered = record if isinstance(record, Answered) else None
    return Example(
        step=step.facts.name,
        task=step.facts.task,
        sample=score.sample,
        kind=kind,
        verdict=score.verdict,
        value=score.value,
        extracted=score.answer,
        target=_target(score, asked),
        prompt=cut(asked.prompt, LONGEST_PROMPT) if asked else None,
        options=_options(score, record, asked) if isinstance(record, Ranked) else (),
        by_length=step.facts.metric == "acc_norm",
        reasoning=cut(answered.reasoning, LONGEST_ANSWER) if answered else None,
        answer=cut(answered.text, LONGEST_ANSWER) if answered else None,
        detail=score.detail or (record.error or "" if record else ""),
        flags=score.flags,
        output_tokens=answered.output_tokens if answered else None,
    )


def _target(score: Scored, asked: Asked | None) -> str | None:
    """Options are named by letter where the target is their index."""
    if score.target is None or not score.target.replace(",", "").isdigit() or not _lettered(score):
        return score.target
    return ", ".join(letter(int(i)) for i in score.target.split(",") if i)


def _lettered(score: Scored) -> bool:
    """A multiple choice: its answers are letters (or nothing was found) and its target is an index."""
    return score.answer is None or (score.answer.isalpha() and score.answer.isupper() and score.answer.isascii())


def letter(index: int) -> str:
    """0 is A."""
    return chr(ord("A") + index) if 0 <= index < 26 else str(index)


def _options(score: Scored, record: Ranked, asked: Asked | None) -> tuple[Option, ...]:
    texts = asked.continuations if asked else ()
    right = {int(i) for i in (score.target or "").split(",") if i.isdigit()}
    return tuple(
        Option(
            text=f"{letter(i)}. {texts[i].strip()}" if i < len(texts) else letter(i),
            logprob=c.logprob,
            chosen=score.answer == letter(i),
            right=i in right,
        )
        for i, c in enumerate(record.continuations)
    )


def cut(text: str | None, longest: int) -> str | None:
    """The text, or its beginning and end with a mark between that says how much was left out."""
    if text is None or len(text) <= longest:
        return text
    head, tail = longest * 2 // 3, longest // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters …]\n{text[-tail:]}"
