"""The summaries of a run when its cells have ended: what a judge and an encoder read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from bench.plan import CellPlan
from results.manifest import StepFacts
from results.records import Answered, Event, Ranked, StepEnded, StepStarted
from results.store import RunDir
from tasks import Language, Task

if TYPE_CHECKING:
    from bench.session import Prepared

NOT_HERE = "the summaries were not kept (store_text, redact), and the process that had them in memory has ended"

Answers = Mapping[tuple[str, str], Sequence[Answered | Ranked]]
"""By cell and step; only where the disk does not keep them."""


class Told(Struct, frozen=True, kw_only=True):
    """A finished summary step. `answers` are those that came; None where they are not there any more (`NOT_HERE`)."""

    cell: CellPlan
    facts: StepFacts
    answers: tuple[Answered, ...] | None

    @property
    def language(self) -> Language:
        return language_of(self.facts)


def language_of(facts: StepFacts) -> Language:
    return "zh" if facts.language == "zh" else "en"


def finished(prepared: "Prepared", run: RunDir, in_memory: Answers, wanted: Callable[[Task], bool]) -> Iterator[Told]:
    """Every finished step of a wanted task, in the order of the plan."""
    plain = prepared.suite.store_text and not prepared.suite.redact
    for cell in prepared.cells:
        steps = [s.facts for s in cell.steps if wanted(prepared.data[s.facts.task].task)]
        folder = run.cell(cell.facts.id)
        ended = set(folder.finished_steps()) if steps else set()
        on_disk = _on_disk(folder.events()) if plain and ended else {}
        for facts in steps:
            if facts.name in ended:
                found = on_disk.get(facts.name) if plain else in_memory.get((cell.facts.id, facts.name))
                yield Told(cell=cell, facts=facts, answers=None if found is None else _good(found))


def _good(answers: Sequence[Answered | Ranked]) -> tuple[Answered, ...]:
    return tuple(a for a in answers if isinstance(a, Answered) and a.error is None)


def _on_disk(events: Iterable[Event]) -> dict[str, list[Answered | Ranked]]:
    """The answers of each step that ended; a step that was begun again counts from there."""
    begun: dict[str, list[Answered | Ranked]] = {}
    ended: dict[str, list[Answered | Ranked]] = {}
    for event in events:
        match event:
            case StepStarted():
                begun[event.step] = []
            case Answered() if event.step in begun:
                begun[event.step].append(event)
            case StepEnded() if event.step in begun:
                ended[event.step] = begun.pop(event.step)
            case _:
                pass
    return ended
