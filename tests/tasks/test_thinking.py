"""Thinking apart from answering; loops, refusals, languages."""

import pytest

from tasks.language import is_refusal, is_wrong_language
from tasks.thinking import Thinking, is_looping, split_thinking

SPLITS = [
    ("B", None, Thinking("none", "", "B")),
    ("<think>why</think>B", None, Thinking("closed", "why", "B")),
    ("why</think>B", None, Thinking("closed", "why", "B")),
    ("<think>\n\n</think>B", None, Thinking("empty", "\n\n", "B")),
    ("<think>why", None, Thinking("unclosed", "why", "")),
    ("<think>a</think>B<think>c", None, Thinking("unclosed", "aBc", "")),
    ("<think>a</think>B<think>c</think>D", None, Thinking("closed", "a</think>Bc", "D")),
    ("B", "why", Thinking("closed", "why", "B")),
    ("B", " ", Thinking("empty", " ", "B")),
    ("", "why", Thinking("unclosed", "why", "")),
]


@pytest.mark.parametrize(("text", "reasoning", "expected"), SPLITS, ids=range(len(SPLITS)))
def test_thinking_is_cut_off(text: str, reasoning: str | None, expected: Thinking) -> None:
    assert split_thinking(text, reasoning) == expected


SENTENCE = (
    "The patient was seen on the ward by the team and the plan was to go on with the same drugs for three more days "
)


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("", False),
        ("no. " * 20, False),
        ("no. " * 100, True),
        ("我们继续观察病情变化，" * 60, True),
        (" ".join(f"{SENTENCE * 2}{i} {i * 7} other words {i * 13} between" for i in range(4)), True),
        (" ".join(f"{i} {i * 7} {chr(97 + i % 26) * 3} {i * 31 % 97}" for i in range(400)), False),
    ],
    ids=range(6),
)
def test_repetition_is_found(text: str, loops: bool) -> None:
    assert is_looping(text) is loops


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot provide a summary of this note.",
        "As an AI language model, I have no access to records.",
        "对不起，我无法总结这份病历。",
        "我不能提供医疗建议。",
        "作为一个人工智能助手，我无法直接处理病历。",
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "The patient is unable to walk and cannot give a history.",
        "患者无法提供病史，由家属代诉。",
        "He can no longer do stairs.",
        "不能平卧，双下肢水肿。",
    ],
)
def test_a_patient_who_cannot_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


def test_the_language_is_told_by_script_and_abbreviations_do_no_harm() -> None:
    chinese = "急诊PCI术后，予阿司匹林100mg qd、替格瑞洛90mg bid，LVEF 52%。"
    english = "Admitted with NSTEMI and treated with aspirin and ticagrelor after PCI."
    assert not is_wrong_language(chinese, "zh")
    assert is_wrong_language(chinese, "en")
    assert not is_wrong_language(english, "en")
    assert is_wrong_language(english, "zh")
    assert not is_wrong_language("Answer: B", "zh")
