"""Degenerate outputs are read in linear time: with a quadratic expression these tests would take hours."""

import pytest

from tasks.answers import YES_NO_MAYBE, find_choice, find_label, read_reply
from tasks.base import Answer
from tasks.facts import sentences
from tasks.faithful import copied_share, unsupported_numbers
from tasks.numbers import find_date, find_number

PIECES = [
    "A", " ", "\n", "A,", "A and ", "Answer: ", "\\boxed{", "\\boxed{{}", "\\text{", "<think>", "</think>", "1", "1,", "1,111",
    "1e", "1 x10^", "¹", "一", "一万", "not ", "*", "#", "I am ", "作为", "选", "答案是", "(", "A ;", "5 mg/ml/h/", ".", ", ", "a/",
    "\nQuestion:", "is ", "\u2028",
]  # fmt: skip
OPTIONS = ["Aspirin", "Warfarin", "Heparin", "Clopidogrel"]


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_repeated_pieces_are_read_in_linear_time(piece: str) -> None:
    text = piece * (30_000 // len(piece))
    final = read_reply(Answer(text=text), "en").final
    assert find_choice(final, OPTIONS) in (None, "A")
    assert find_choice(text, OPTIONS, multiple=True) in (None, "A")
    assert find_label(text, YES_NO_MAYBE["zh"]) is None
    assert find_date(text) is None
    find_number(text)
    unsupported_numbers("", text)
    assert len(sentences(text)) <= len(text)
    assert copied_share("something else entirely", text, "en") == 0.0
