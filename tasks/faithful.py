"""What a summary says that its note does not: numbers, drugs; and whether it is the note itself, copied.

Literal checks, no understanding: a number is supported when the note holds it in any notation (5mg / 5 mg, 0.5 g / 500
mg, 1,000 / 1000, 三天 / 3天, "three", Roman, "bid" for 2), a drug when the note holds one of its names. A rightly derived
number ("day 3" counted from two dates) counts as unsupported, so the figure is to be compared between deployments, not
read as a rate of errors.
"""

import re
from decimal import Decimal
from functools import lru_cache

from msgspec import Struct

from tasks.base import Language
from tasks.numbers import MASS_MG, VOLUME_ML, Number, find_numbers, fold_numbers
from tasks.read import DATA

_AFTER_MARK = re.compile(r"(?:^|[\n。；;])\s*\d{1,2}\.(\d+(?:\.\d+)?)")
"""In "。4.6小时后复查" the 4 is a list mark and the number is 6."""
_POWER = re.compile(r"\s?[x×*·]\s?10\^?-?\d{1,2}")
_LIST_MARK = re.compile(r"(?:^|(?<=[\s；;。：:]))\(?\d{1,2}[.)、）](?![\d.])", re.MULTILINE)
_WORDS: dict[str, int] = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_SHORTHAND: dict[str, int | str] = {
    "once": 1, "od": 1, "qd": 1, "qn": 1, "om": 1, "on": 1, "daily": 1, "twice": 2, "bd": 2, "bid": 2, "tds": 3, "tid": 3,
    "qds": 4, "qid": 4, "half": "0.5", "single": 1, "double": 2, "ii": 2, "iii": 3, "iv": 4, "vi": 6, "vii": 7,
    "viii": 8, "ix": 9, "v": 5, "i": 1, "x": 10, "hourly": 1, "weekly": 1, "monthly": 1, "first": 1, "second": 2, "third": 3, "fourth": 4,
    "fifth": 5, "sixth": 6,
}  # fmt: skip
_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_WORD = re.compile(r"[a-z]+")
_TOKEN = re.compile(r"[\u3400-\u9fff]|[a-z]+|\d+(?:\.\d+)?")
_HAN_COUNT = re.compile(r"(?:[天日周月年岁次片粒级度支小时分钟]|个月|毫克|克|毫升|微克)")

COPY_RUN: dict[Language, int] = {"en": 12, "zh": 20}
"""Words or Chinese characters in a row that count as copied."""


def unsupported_numbers(note: str, summary: str) -> tuple[str, ...]:
    """Numbers of the summary that the note does not hold, in order, each once, as written."""
    source = _supported(fold_numbers(note))
    folded = _LIST_MARK.sub(lambda m: " " * len(m.group()), fold_numbers(summary))
    missing: dict[str, None] = {}
    for found in find_numbers(folded):
        written = folded[found.start : found.end].strip()
        if _is_name(folded, found.start) or (
            not written[0].isascii() and not _HAN_COUNT.match(folded, found.start + _han_length(written))
        ):
            continue
        if not source.holds(found.number):
            missing[written] = None
    return tuple(missing)


def _han_length(written: str) -> int:
    return len(re.match(r"[零〇一二两三四五六七八九十百千万亿点分之]*", written).group())  # type: ignore[union-attr]  # the run can be empty


def _is_name(text: str, at: int) -> bool:
    """ "B12", "V3", "SpO2": a digit behind a Latin letter is part of a name."""
    return at > 0 and text[at - 1].isascii() and (text[at - 1].isalpha() or text[at - 1] == "_")


class _Source(Struct, frozen=True):
    """What a note holds: all values, those without a unit, and masses and volumes."""

    values: set[Decimal]
    bare: set[Decimal]
    quantities: set[tuple[str, Decimal]]

    def holds(self, number: Number) -> bool:
        """A mass or volume must stand in the note as one or without any unit ("5-10 mg"); "10 days" is no "10 mg"."""
        quantity = _quantity(number)
        value = abs(number.value)
        return value in self.values if quantity is None else quantity in self.quantities or value in self.bare


def _supported(note: str) -> _Source:
    numbers = [found.number for found in find_numbers(note)]
    digits = [*re.findall(r"\d+(?:\.\d+)?", _POWER.sub("", note)), *_AFTER_MARK.findall(note)]
    values = {abs(number.value) for number in numbers} | {Decimal(d) for d in digits}
    for word in _WORD.findall(note.lower()):
        for table, key in ((_WORDS, word), (_SHORTHAND, word), (_MONTHS, word[:3])):
            if key in table:
                values.add(Decimal(table[key]))
    return _Source(
        values=values,
        bare={abs(number.value) for number in numbers if not number.unit or number.unit.lower() in _SHORTHAND},
        quantities={quantity for number in numbers if (quantity := _quantity(number))},
    )


def _quantity(number: Number) -> tuple[str, Decimal] | None:
    """Mass in mg or volume in ml, so that 0.5 g and 500 mg are the same; `None` for other units."""
    unit = re.split(r"[/·.]", number.unit)[0].lower() or number.unit
    for name, factors in (("mass", MASS_MG), ("volume", VOLUME_ML)):
        if unit in factors:
            return name, abs(number.value) * factors[unit]
    return None


@lru_cache(maxsize=1)
def drug_lexicon() -> dict[str, tuple[str, ...]]:
    """Every known drug name in lower case, with all names of the same drug (`drugs.txt`: one drug a line, names apart
    by " | ").
    """
    lexicon: dict[str, tuple[str, ...]] = {}
    for line in (DATA / "drugs.txt").read_text(encoding="utf-8").split("\n"):
        names = tuple(name.strip().lower() for name in line.split("|") if name.strip())
        if names and not line.startswith("#"):
            lexicon |= dict.fromkeys(names, names)
    return lexicon


@lru_cache(maxsize=1)
def _drug_pattern() -> re.Pattern[str]:
    """All names, the longest first, so that benzylpenicillin is not read as penicillin."""
    names = sorted(drug_lexicon(), key=len, reverse=True)
    return re.compile("|".join(rf"(?<![a-z]){re.escape(n)}s?(?![a-z])" if n.isascii() else re.escape(n) for n in names))


def unsupported_drugs(note: str, drugs: tuple[str, ...], summary: str) -> tuple[str, ...]:
    """Drugs of the summary that stand neither in the note nor among its listed drugs under any of their names, each
    once.
    """
    source = "\n".join((note, *drugs)).lower()
    lexicon = drug_lexicon()
    named = dict.fromkeys(
        m.group() if m.group() in lexicon else m.group().removesuffix("s")
        for m in _drug_pattern().finditer(summary.lower())
    )
    return tuple(name for name in named if not any(_stands_in(other, source) for other in lexicon[name]))


def _stands_in(name: str, source: str) -> bool:
    return re.search(rf"(?<![a-z]){re.escape(name)}", source) is not None if name.isascii() else name in source


def copied_share(note: str, summary: str, language: Language) -> float:
    """Share of the summary's words (Chinese: characters) that stand in long runs taken word for word from the note, in
    [0, 1].
    """
    run = COPY_RUN[language]
    source, words = _TOKEN.findall(note.lower()), _TOKEN.findall(summary.lower())
    if len(words) < run:
        return 0.0
    known = {tuple(source[i : i + run]) for i in range(len(source) - run + 1)}
    covered = [False] * len(words)
    for start in range(len(words) - run + 1):
        if tuple(words[start : start + run]) in known:
            covered[start : start + run] = [True] * run
    return sum(covered) / len(words)
