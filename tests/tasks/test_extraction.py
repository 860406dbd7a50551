"""The extractor against labelled outputs. The labels were written before the extractor was tuned; `why` tells the hard ones."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tasks.answers import YES_NO_MAYBE, find_choice, find_label, read_reply
from tasks.base import Answer
from tasks.numbers import find_date, find_number, fold_numbers

FIXTURE = Path(__file__).parent / "data" / "extraction.jsonl"
ROWS = [json.loads(line) for line in FIXTURE.read_text(encoding="utf-8").split("\n") if line]


def extracted(row: dict[str, Any]) -> str | None:
    answer = Answer(text=row["text"], reasoning=row.get("reasoning"), finish=row.get("finish", "stop"))
    final = read_reply(answer, row["lang"]).final
    match row["kind"]:
        case "choice" | "multi":
            return find_choice(
                final, row["options"], multiple=row["kind"] == "multi", stated_only=answer.finish == "length"
            )
        case "label":
            return find_label(final, YES_NO_MAYBE[row["lang"]])
        case "date":
            return find_date(final)
        case _:
            number = find_number(final)
            if number is None:
                return None
            unit_agrees = "unit" not in row or number.unit == fold_numbers(row["unit"])
            same = row["expected"] is not None and number.value == Decimal(row["expected"]) and unit_agrees
            return row["expected"] if same else f"{number.value} {number.unit}"


def test_the_fixture_is_large_and_varied() -> None:
    assert len(ROWS) >= 240
    assert {(row["kind"], row["lang"]) for row in ROWS} == {
        (kind, lang) for kind in ("choice", "multi", "label", "number", "date") for lang in ("en", "zh")
    }
    assert len({row["id"] for row in ROWS}) == len(ROWS)


def test_the_extractor_agrees_with_the_labels(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [
        (row["id"], row["text"][:80], row["expected"], got)
        for row in ROWS
        if (got := extracted(row)) != row["expected"]
    ]
    share = 1 - len(wrong) / len(ROWS)
    with capsys.disabled():
        print(f"\nextraction: {len(ROWS) - len(wrong)} of {len(ROWS)} labelled outputs agree ({share:.1%})")
        for case in wrong:
            print("  ", case)
    assert share >= 0.99
