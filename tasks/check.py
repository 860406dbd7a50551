"""`python -m tasks.check`: do the embedded data keep their own rules? Prints what does not, one line each, and exits
with status 1 then.

Questions: options that differ, positions of the right answer balanced, the right option not systematically the longest,
no duplicate and no near-duplicate question. Notes: every key fact is found in its own reference summary and in its note
and is not contradicted in the reference, listed drugs stand in the note, the reference holds no number and no drug that
the note does not, its length is what the prompt asks for. Labelled statements: one of each label about a note, and the
patterns of the key facts agree with them.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

from tasks import TASKS, Language, Sample
from tasks.facts import judge, matches, sentences
from tasks.faithful import unsupported_drugs, unsupported_numbers
from tasks.judging import LABELS, NOTES, Labelled, labelled
from tasks.rouge import length

POSITION_SHARE = (0.15, 0.35)
"""Share of right answers that any of the four positions may have."""
LONGEST_SHARE = 0.45
"""Most questions whose right option may be the only longest one (chance is 0.25)."""
ALIKE = 0.8
"""Overlap of word (Chinese: character) triples, as a share of their union, from which two texts are near-duplicates."""
REFERENCE_LENGTH: dict[Language, tuple[int, int]] = {"en": (50, 140), "zh": (90, 260)}
"""Words, or Chinese characters with every Latin word and number as one."""

CAUGHT_SHARE = 0.8
"""Of the contradicted statements, those that the patterns of the key facts find by themselves."""

_TOKEN = re.compile(r"[\u3400-\u9fff]|[a-z0-9]+")


def question_problems(samples: Sequence[Sample]) -> Iterator[str]:
    """What is wrong with a set of multiple-choice questions."""
    yield from alike(samples)
    places = Counter(sample.target for sample in samples)
    low, high = POSITION_SHARE
    for place in map(str, range(len(samples[0].options))):
        share = places[place] / len(samples)
        if not low <= share <= high:
            yield f"the right answer is option {place} in {share:.0%} of the questions, not in {low:.0%} to {high:.0%}"
    longest = sum(_right_is_longest(sample) for sample in samples) / len(samples)
    if longest > LONGEST_SHARE:
        yield f"the right option is the longest one in {longest:.0%} of the questions, more than {LONGEST_SHARE:.0%}"
    for sample in samples:
        if re.search(
            r"all of the above|none of the above|以上都|以上均|以上皆", " ".join(sample.options), re.IGNORECASE
        ):
            yield f"{sample.id}: an option refers to the others"


def note_problems(samples: Sequence[Sample], language: Language) -> Iterator[str]:
    """What is wrong with a set of notes."""
    yield from alike(samples)
    for sample in samples:
        for problem in _fact_problems(sample):
            yield f"{sample.id}: {problem}"
        note = sample.input.casefold()
        for drug in sample.extra["drugs"]:
            if drug.casefold() not in note:
                yield f"{sample.id}: the listed drug {drug!r} is not in the note"
        for name, found in (
            ("numbers", unsupported_numbers(sample.input, sample.target)),
            ("drugs", unsupported_drugs(sample.input, sample.extra["drugs"], sample.target)),
        ):
            if found:
                yield f"{sample.id}: the reference holds {name} that the note does not: {', '.join(found)}"
        low, high = REFERENCE_LENGTH[language]
        if not low <= length(sample.target, language) <= high:
            yield f"{sample.id}: the reference has {length(sample.target, language)} words, not {low} to {high}"


def _fact_problems(sample: Sample) -> Iterator[str]:
    facts = sample.extra["facts"]
    if not 6 <= len(facts) <= 12:
        yield f"{len(facts)} key facts, not 6 to 12"
    judged = judge(facts, sample.target)
    note = sentences(sample.input)
    for fact in facts:
        if judged[fact.id] != "recalled":
            yield f"fact {fact.id!r} is {judged[fact.id]} in its own reference"
        if not matches(fact.accept, note):
            yield f"fact {fact.id!r} is not found in the note"


def label_problems(rows: Sequence[Labelled], notes: Sequence[Sample]) -> Iterator[str]:
    """What is wrong with a set of labelled statements: each note has one of each label, and the patterns of its key facts, which were
    written apart from them, do not say otherwise.
    """
    facts = {note.id: note.extra["facts"] for note in notes}
    by_note: dict[str, list[str]] = {}
    seen: set[str] = set()
    caught = 0
    for row in rows:
        if row.note not in facts:
            yield f"{row.id}: there is no note {row.note!r}"
            continue
        by_note.setdefault(row.note, []).append(row.label)
        if row.statement in seen:
            yield f"{row.id}: the statement stands there already"
        seen.add(row.statement)
        found = set(judge(facts[row.note], row.statement).values())
        caught += row.label == "contradicted" and "contradicted" in found
        if row.label == "supported" and "contradicted" in found:
            yield f"{row.id}: is labelled supported, and a pattern finds it contradicted"
    for note, labels in by_note.items():
        if sorted(labels) != sorted(LABELS):
            yield f"{note}: its statements are {', '.join(labels)}, not one of each"
    if by_note and caught < CAUGHT_SHARE * len(by_note):
        yield f"only {caught} of {len(by_note)} contradicted statements are found by a pattern"


def _right_is_longest(sample: Sample) -> bool:
    lengths = [len(option) for option in sample.options]
    right = lengths[int(sample.target)]
    return right == max(lengths) and lengths.count(right) == 1


def alike(samples: Sequence[Sample]) -> Iterator[str]:
    """Pairs of texts that are the same or nearly the same."""
    triples = [(sample.id, _triples(sample.input + " " + " ".join(sorted(sample.options)))) for sample in samples]
    for (one, first), (other, second) in combinations(triples, 2):
        overlap = len(first & second) / len(first | second)
        if overlap >= ALIKE:
            yield f"{one} and {other} are near-duplicates (overlap {overlap:.2f})"


def _triples(text: str) -> set[tuple[str, ...]]:
    tokens = _TOKEN.findall(text.lower())
    return {tuple(tokens[i : i + 3]) for i in range(max(1, len(tokens) - 2))}


def problems() -> Iterator[str]:
    """Everything that is wrong with the embedded data; an unreadable file raises `DataError`."""
    for name, task in TASKS.items():
        if not task.synthetic or task.kind not in ("choice", "summary"):
            continue
        samples = task.load(None)
        found = question_problems(samples) if task.kind == "choice" else note_problems(samples, task.language)
        yield from (f"{name}: {problem}" for problem in found)
    for language, task in NOTES.items():
        found = label_problems(labelled(language), task.load(None))
        yield from (f"judge_labels_{language}: {problem}" for problem in found)


def main() -> int:
    """Print every problem; 1 when there are some."""
    found = list(problems())
    for problem in found:
        print(problem)
    print(f"{len(found)} problems in the embedded data" if found else "the embedded data keep their rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
