"""Key facts: wordings that a summary may use for what a colleague must know, and wordings that say the opposite.

The pattern language is described in `tasks/data/FORMAT.md`. A fact is *contradicted* when one of its `contradict`
groups matches, else *recalled* when one of its `accept` groups matches, else *missing*. A group is a set of patterns
that must all stand in one sentence, so that "allergic" in one sentence and "penicillin" in another are not an allergy
to penicillin.

Worked example: accept [["warfarin", "5 mg"]], contradict [["warfarin", "re:(?<!\\d)(?:3|10) ?mg"]]. "Warfarin 5mg
nightly." recalls the fact, "Warfarin 10 mg." contradicts it, "Aspirin 5 mg. Warfarin continued." misses it.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal

from msgspec import Struct

Category = Literal[
    "diagnosis",
    "medication",
    "dose",
    "allergy",
    "laterality",
    "negation",
    "follow_up",
    "finding",
    "procedure",
    "history",
]
Finding = Literal["recalled", "contradicted", "missing"]
Groups = tuple[tuple[str, ...], ...]

CRITICAL: frozenset[Category] = frozenset({"dose", "laterality", "negation", "allergy"})
"""A contradicted fact of these categories can harm by itself."""

_SENTENCE_END = re.compile(r"\n|(?<=[.!?;])(?=\s|$)|(?<=[。！？；])")
_BLANK = r"[\s\-\u2010-\u2013]*"
_EMPHASIS = re.compile(r"\*\*|__|`|^[ \t]*#{1,6}[ \t]+", re.MULTILINE)


class Fact(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing a colleague must know."""

    id: str
    label: str
    category: Category
    accept: Groups
    contradict: Groups = ()


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text without Markdown emphasis; blank ones left out."""
    return tuple(part.strip() for part in _SENTENCE_END.split(_EMPHASIS.sub("", text)) if part.strip())


@cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of the data files as a regular expression. Raises `re.error` for a bad one and `ValueError` for an
    empty one.
    """
    if pattern.startswith("re:"):
        return re.compile(pattern[3:], re.IGNORECASE)
    open_end = pattern.endswith("*")
    literal = pattern.removesuffix("*").strip()
    if not literal:
        raise ValueError("an empty pattern would match everything")
    body = _BLANK.join(re.escape(word) for word in literal.split())
    return re.compile(_left_edge(literal[0]) + body + ("" if open_end else _right_edge(literal[-1])), re.IGNORECASE)


def _left_edge(character: str) -> str:
    """No letter or digit before; before a digit also no decimal point that belongs to a number ("5 mg" is not in "2.5
    mg").
    """
    if not (character.isascii() and character.isalnum()):
        return ""
    return r"(?<![A-Za-z0-9])" + (r"(?<!\d[.,])" if character.isdigit() else "")


def _right_edge(character: str) -> str:
    if not (character.isascii() and character.isalnum()):
        return ""
    return r"(?![A-Za-z0-9])" + (r"(?![.,]\d)" if character.isdigit() else "")


def matches(groups: Groups, parts: Sequence[str]) -> bool:
    """Whether all patterns of one of the groups stand in one of the sentences."""
    compiled = [[compile_pattern(pattern) for pattern in group] for group in groups]
    return any(all(pattern.search(part) for pattern in group) for group in compiled for part in parts)


def judge(facts: Sequence[Fact], text: str) -> dict[str, Finding]:
    """What the text does with each fact, by the fact's id."""
    parts = sentences(text)
    return {fact.id: _finding(fact, parts) for fact in facts}


def _finding(fact: Fact, parts: Sequence[str]) -> Finding:
    if matches(fact.contradict, parts):
        return "contradicted"
    return "recalled" if matches(fact.accept, parts) else "missing"


def complaint(fact: Fact) -> str:
    """What is wrong with a fact as it is written, or ""."""
    if not fact.accept:
        return f"fact `{fact.id}` accepts nothing"
    for groups in (fact.accept, fact.contradict):
        for group in groups:
            if not group:
                return f"fact `{fact.id}` has an empty group"
            for pattern in group:
                try:
                    compile_pattern(pattern)
                except (re.error, ValueError) as error:
                    return f"fact `{fact.id}`: pattern {pattern!r}: {error}"
    return ""
