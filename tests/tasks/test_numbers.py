"""Numbers in one form; numbers and drugs that a note does not hold."""

from decimal import Decimal

import pytest

from tasks.faithful import copied_share, unsupported_drugs, unsupported_numbers
from tasks.numbers import chinese_number, find_date, find_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("十", 10),
        ("十二", 12),
        ("二十", 20),
        ("一百零五", 105),
        ("两千", 2000),
        ("一万二千", 12000),
        ("二〇二四", 2024),
        ("三亿", 3 * 10**8),
    ],
)
def test_chinese_numerals(text: str, value: int) -> None:
    assert chinese_number(text) == value
    assert chinese_number("三点二五") == Decimal("3.25")


def test_a_range_is_no_number_and_an_impossible_day_no_date() -> None:
    assert find_number("Answer: 5-10 mg") is None
    assert find_date("Answer: 2023-02-30") is None
    assert find_date("From 2023-01-01 to 2023-02-01") is None


NOTE = "Metformin 0.5 g bid for three days, warfarin 5mg. Na 138. Seen 5 March 2024. 肌酐82μmol/L，住院十二天。WBC 11.2×10^9/L. NYHA III."


@pytest.mark.parametrize(
    ("summary", "missing"),
    [
        ("Metformin 500 mg 2 times a day for 3 days.", ()),
        ("Warfarin 5 mg; sodium 138.", ()),
        ("Seen 05/03/2024 or 2024-03-05.", ()),
        ("Creatinine 82, 12 days, WBC 11.2 × 10⁹/L, NYHA class 3.", ()),
        ("Warfarin 10 mg.", ("10 mg",)),
        ("Warfarin 2.5 mg and 5 mg.", ("2.5 mg",)),
        ("Warfarin 3 mg.", ("3 mg",)),
        ("住院12天，肌酐82。", ()),
        ("住院十五天。", ("十五天",)),
        ("一般情况可，三尖瓣无反流。", ()),
        ("1. Warfarin.\n2. Metformin.\n7. Home.", ()),
        ("Vitamin B12 and SpO2 were not measured.", ()),
        ("Potassium 1,200 units.", ("1,200 units",)),
    ],
)
def test_numbers_that_the_note_does_not_hold(summary: str, missing: tuple[str, ...]) -> None:
    assert unsupported_numbers(NOTE, summary) == missing


@pytest.mark.parametrize(
    ("note", "summary", "missing"),
    [
        ("on warfarin", "Takes warfarin and digoxin.", ("digoxin",)),
        ("on paracetamol", "Takes acetaminophen.", ()),
        ("口服华法林", "口服华法林、地高辛。", ("地高辛",)),
        ("on insulin glargine", "Takes insulin.", ()),
        ("allergic to penicillins", "Allergic to penicillin.", ()),
        ("penicillin allergy", "Given benzylpenicillin.", ("benzylpenicillin",)),
        ("no drugs", "Two aspirins a day.", ("aspirin",)),
    ],
)
def test_drugs_that_the_note_does_not_hold(note: str, summary: str, missing: tuple[str, ...]) -> None:
    assert unsupported_drugs(note, (), summary) == missing


def test_copying_is_measured_by_long_runs() -> None:
    words = " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(100))
    assert copied_share(words, words, "en") == 1.0
    assert copied_share(words, "something else entirely " * 10, "en") == 0.0
    assert copied_share(words, " ".join(words.split()[:20] + ["new"] * 20), "en") == 0.5
