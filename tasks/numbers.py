"""Numbers, quantities and dates in English and Chinese text, brought to one form.

"1,000", "1000" and 一千 are one number; "5mg" and "5 mg", "0.5 g" and "500 mg" are one quantity; 2024年3月5日, "5 March
2024" and "2024-03-05" are one date. Values are exact decimals. Used to read numeric answers and to find numbers in a
summary that its note does not hold.
"""

import re
import unicodedata
from collections.abc import Iterator
from datetime import date
from decimal import Decimal

from msgspec import Struct

from tasks.answers import BOXED, STATEMENT_CHARS, plain

_HAN_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_GROUPS = {"万": 10**4, "亿": 10**8}
_HAN = "[零〇一二两三四五六七八九十百千万亿]"
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")

_DIGITS = r"(?:\d{1,3}(?:[,\u00a0\u202f ]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+|\d+,\d{1,2}(?!\d)"
NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]])[-+])?(?P<digits>\d+,\d{{1,2}}(?![\d,])|{_DIGITS})"
    r"(?:\s?[x×*·]\s?10\^?\{?(?P<power>[-+]?\d{1,3})\}?|[eE](?P<exponent>[-+]?\d{1,3})(?![\w]))?(?P<group>[万亿])?"
    rf"|(?P<percent>百分之)?(?P<han>{_HAN}{{1,20}}(?:点[零〇一二三四五六七八九]{{1,10}})?)"
)
_NO_UNIT = r"(?!(?:a|an|and|as|at|by|for|from|in|is|of|on|or|out|so|the|then|to|was|which|with|years?\s+old)\b)"
_UNIT_WORD = r"[A-Za-zµμΩ°][A-Za-zµμ0-9^]{0,15}"
_UNIT = re.compile(
    rf"\s?(%|‰|{_NO_UNIT}°?{_UNIT_WORD}(?:[/·.][A-Za-zµμ0-9^]{{1,16}}){{0,3}}|/{_UNIT_WORD}"
    r"|毫克|微克|千克|克|毫升|升(?![至高到])|[天日周月年岁次片粒分级度支])?"
)

MASS_MG = {
    "kg": Decimal(10**6), "千克": Decimal(10**6), "g": Decimal(1000), "克": Decimal(1000), "mg": Decimal(1), "毫克": Decimal(1),
    "µg": Decimal("0.001"), "mcg": Decimal("0.001"), "ug": Decimal("0.001"), "微克": Decimal("0.001"),
}  # fmt: skip
VOLUME_ML = {"l": Decimal(1000), "升": Decimal(1000), "ml": Decimal(1), "毫升": Decimal(1), "cc": Decimal(1)}

_RESULT = re.compile(
    r"(?:\b(?:answer|result|total|score|value)s?\b|答案|结果|总分|评分|得分)[\"'”’】\])]*\s?"
    r"(?:(?:is|are|would be|should be)\b|应?为|是|得)?\s?[:=]*",
    re.IGNORECASE,
)
_RANGE = re.compile(r"\s?(?:[-–—~～]|to\b|or\b|and\b|或|至|到|和)\s?$", re.IGNORECASE)
_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTH = rf"(?P<month>{'|'.join(f'{m[:3]}(?:{m[3:]})?' for m in _MONTHS)})\.?"
_DATES = (
    re.compile(r"(?<!\d)(?P<y>\d{4})\s?[-/.年]\s?(?P<m>\d{1,2})\s?[-/.月]\s?(?P<d>\d{1,2})(?!\d)"),
    re.compile(r"(?<!\d)(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4})(?!\d)"),
    re.compile(rf"\b{_MONTH}\s(?P<d>\d{{1,2}})(?:st|nd|rd|th)?,?\s(?P<y>\d{{4}})\b", re.IGNORECASE),
    re.compile(rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH},?\s(?P<y>\d{{4}})\b", re.IGNORECASE),
)


class Number(Struct, frozen=True):
    """`unit` as written but folded ("kg/m^2"), "" where there is none. A percentage keeps its figure: 45 % is 45 with
    unit "%".
    """

    value: Decimal
    unit: str = ""


class Found(Struct, frozen=True):
    number: Number
    start: int
    end: int


def fold_numbers(text: str) -> str:
    """Text with superscripts as ^9, full-width digits and real minus signs in ASCII, and LaTeX thousands "1{,}250"
    joined.
    """
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^" + m.group().translate(_SUPERSCRIPTS), text)
    return unicodedata.normalize("NFKC", text).replace("−", "-").replace("{,}", ",").replace("\u03bc", "µ")


def find_numbers(folded: str) -> Iterator[Found]:
    """Every number of a folded text, with its place and unit. Chinese numerals count wherever they stand."""
    for match in NUMBER.finditer(folded):
        value = _value(match)
        if value is None:
            continue
        unit = _UNIT.match(folded, match.end())
        name = "%" if match.group("percent") else ((unit.group(1) or "") if unit else "")
        yield Found(
            Number(value, name),
            match.start(),
            unit.end() if unit and name and not match.group("percent") else match.end(),
        )


def find_number(final: str) -> Number | None:
    """The numeric answer of a final text: of the last box, the last "answer is", or the last line. `None` for a range,
    for two candidates, for none.
    """
    text = plain(fold_numbers(final))
    if boxes := BOXED.findall(text):
        return _first(boxes[-1])
    stated = [text[m.end() : m.end() + STATEMENT_CHARS].lstrip() for m in _RESULT.finditer(text)]
    readings = [s.split("\n", 1)[0] for s in stated if any(True for _ in find_numbers(s.split("\n", 1)[0][:40]))]
    if readings:
        return _first(_after_equals(readings[-1]))
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    last = lines[-1][-2000:]
    return _first(_after_equals(last)) if "=" in last or len(list(find_numbers(last))) == 1 else None


def find_date(final: str) -> str | None:
    """The date of an answer as yyyy-mm-dd. "03/05/2024" is 5 March (month first, as MedCalc-Bench writes); `None` for
    none, two, or no such day.
    """
    text = plain(fold_numbers(final))
    text = re.sub(rf"{_HAN}{{1,12}}(?=[年月日])", lambda m: str(chinese_number(m.group()) or m.group()), text)
    found = {iso for pattern in _DATES for m in pattern.finditer(text) if (iso := _iso(m))}
    return found.pop() if len(found) == 1 else None


def chinese_number(text: str) -> Decimal | None:
    """一千二百 is 1200, 二〇二四 is 2024, 三点五 is 3.5; `None` for what is no number."""
    whole, _, part = text.partition("点")
    if len(whole) > 1 and all(c in _HAN_DIGITS for c in whole):
        value = Decimal("".join(str(_HAN_DIGITS[c]) for c in whole))
    else:
        value = _han_whole(whole)
    if not part:
        return value
    return value + Decimal("0." + "".join(str(_HAN_DIGITS[c]) for c in part))


def _han_whole(text: str) -> Decimal:
    total = section = digit = 0
    for character in text:
        if character in _HAN_DIGITS:
            digit = _HAN_DIGITS[character]
        elif character in _HAN_UNITS:
            section += (digit or 1) * _HAN_UNITS[character]
            digit = 0
        else:
            total = (total + section + digit or 1) * _HAN_GROUPS[character]
            section = digit = 0
    return Decimal(total + section + digit)


def _value(match: re.Match[str]) -> Decimal | None:
    if han := match.group("han"):
        return chinese_number(han)
    digits = match.group("digits")
    decimal_comma = re.fullmatch(r"\d+,\d{1,2}", digits)
    digits = digits.replace(",", ".") if decimal_comma else re.sub(r"[,\u00a0\u202f ]", "", digits)
    value = Decimal(digits).scaleb(int(match.group("power") or match.group("exponent") or 0))
    if match.group("group"):
        value *= _HAN_GROUPS[match.group("group")]
    return -value if match.group("sign") == "-" else value


def _first(text: str) -> Number | None:
    """The first number, unless another follows it as the end of a range or as an alternative."""
    found = list(find_numbers(text))
    if not found:
        return None
    if len(found) > 1 and _RANGE.fullmatch(text[found[0].end : found[1].start] or " "):
        return None
    if re.search(r"\b(?:between|either)\s*$|介于\s*$", text[: found[0].start], re.IGNORECASE):
        return None
    return found[0].number


def _after_equals(text: str) -> str:
    return text.rpartition("=")[2] if any(True for _ in find_numbers(text.rpartition("=")[2])) else text


def _iso(match: re.Match[str]) -> str | None:
    groups = match.groupdict()
    month = (
        _MONTHS.index(next(m for m in _MONTHS if m[:3] == groups["month"][:3].lower())) + 1
        if "month" in groups
        else int(groups["m"])
    )
    try:
        return date(int(groups["y"]), month, int(groups["d"])).isoformat()
    except ValueError:
        return None
