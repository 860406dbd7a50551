"""The pattern language of key facts."""

import pytest

from tasks.facts import Fact, compile_pattern, judge, sentences
from tasks.rouge import length, rouge


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("5 mg", "warfarin 5mg", True),
        ("5 mg", "warfarin 5 MG", True),
        ("5 mg", "warfarin 5-mg", True),
        ("5 mg", "warfarin 15 mg", False),
        ("5 mg", "warfarin 2.5 mg", False),
        ("5 mg", "warfarin 1,5 mg", False),
        ("5", "5.5", False),
        ("allerg", "allergic", False),
        ("allerg*", "Allergic", True),
        ("allerg*", "nonallergic", False),
        ("non ST elevation", "non-ST-elevation", True),
        ("青霉素", "对青霉素过敏", True),
        ("re:(?<!no )fever", "no fever", False),
        ("re:(?<!no )fever", "high FEVER", True),
        ("a.b", "axb", False),
    ],
)
def test_patterns(pattern: str, text: str, found: bool) -> None:
    assert (compile_pattern(pattern).search(text) is not None) is found


def test_sentences_end_at_marks_and_lines_but_not_inside_numbers() -> None:
    assert sentences("**Dose** 2.5 mg. Stop! ok? a;b; c\n腹痛。无发热！好；") == (
        "Dose 2.5 mg.",
        "Stop!",
        "ok?",
        "a;b;",
        "c",
        "腹痛。",
        "无发热！",
        "好；",
    )


def test_a_fact_needs_its_words_in_one_sentence_and_a_contradiction_outweighs_it() -> None:
    fact = Fact(
        id="a",
        label="penicillin allergy",
        category="allergy",
        accept=(("penicillin", "allerg*"),),
        contradict=(("no allerg*",),),
    )
    assert judge([fact], "Allergic to penicillin.") == {"a": "recalled"}
    assert judge([fact], "Allergic to nuts. Had penicillin.") == {"a": "missing"}
    assert judge([fact], "Allergic to penicillin. There is no allergy.") == {"a": "contradicted"}


def test_identical_chinese_text_has_rouge_one() -> None:
    text = "患者男，67岁，予阿司匹林100mg。"
    assert rouge(text, text, "zh") == {"rouge1": 1.0, "rouge2": 1.0, "rouge_l": 1.0}


def test_rouge_of_a_small_english_pair() -> None:
    scores = rouge("right leg pain", "pain in right leg", "en")
    assert scores == {
        "rouge1": pytest.approx(6 / 7),  # 3 of 4 and 3 of 3 words
        "rouge2": pytest.approx(0.4),  # "right leg" of 3 and 2 pairs
        "rouge_l": pytest.approx(4 / 7),  # "right leg"
    }


def test_lengths_count_words_or_characters() -> None:
    assert (length("BP 120/80 mmHg", "en"), length("血压120mmHg", "zh"), length("", "en")) == (4, 3, 1)
