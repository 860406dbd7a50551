"""Multiple choice: what is asked, and what becomes of an answer."""

import math

import pytest

from tasks import TASKS, Answer, Generate, Message, Rank, Sample, Score, arrange, headline

EN, ZH = TASKS["clinical_qa_en"], TASKS["clinical_qa_zh"]
SAMPLE = Sample(
    id="q", input=" Which organ produces insulin?\n", options=("Liver", "Pancreas", "Spleen", "Gut"), target="1"
)
CHINESE = Sample(id="z", input="胰岛素由哪个器官分泌？", options=("肝", "胰腺", "脾", "肾"), target="1")
SEVERAL = Sample(id="m", input="Which?", options=("a", "b", "c", "d"), target="0,2", extra={"multiple": True})


def test_likelihood_asks_as_lm_evaluation_harness_does() -> None:
    assert EN.prompt(SAMPLE, "likelihood") == Rank(
        context="Question: Which organ produces insulin?\nAnswer:",
        continuations=(" Liver", " Pancreas", " Spleen", " Gut"),
    )
    assert ZH.prompt(CHINESE, "likelihood") == Rank(
        context="问题：胰岛素由哪个器官分泌？\n答案：", continuations=("肝", "胰腺", "脾", "肾")
    )


def test_letters_ask_for_the_letter_after_a_lettered_question() -> None:
    assert EN.prompt(SAMPLE, "letters") == Rank(
        context="Which organ produces insulin?\nA. Liver\nB. Pancreas\nC. Spleen\nD. Gut\nAnswer:",
        continuations=(" A", " B", " C", " D"),
    )


def test_generation_asks_for_one_last_line() -> None:
    prompt = EN.prompt(SAMPLE, "generate")
    assert prompt == Generate(
        messages=(
            Message(
                "user",
                "Which organ produces insulin?\nA. Liver\nB. Pancreas\nC. Spleen\nD. Gut\n\n"
                'Think it through if you need to. End with one line "Answer: X", where X is the letter of the right option.',
            ),
        ),
        max_tokens=1024,
    )
    chinese = ZH.prompt(CHINESE, "generate")
    assert isinstance(chinese, Generate)
    assert chinese.messages[0].text.endswith("最后单独一行写“答案：X”，X为正确选项的字母。")


def test_plain_and_normalised_likelihood_can_disagree_and_the_headline_is_normalised() -> None:
    assert headline(EN, "likelihood") == "acc_norm"
    assert EN.score(SAMPLE, "likelihood", Answer(logprobs=(-6.0, -7.0, -9.0, -5.0))) == Score(
        value=1.0, verdict="correct", answer="B", metrics={"acc": 0.0, "acc_norm": 1.0}
    )


def test_ties_go_to_the_first_option() -> None:
    assert EN.score(SAMPLE, "letters", Answer(logprobs=(-1.0, -1.0, -1.0, -1.0))) == Score(
        value=0.0, verdict="wrong", answer="A", metrics={"acc": 0.0}
    )


def test_letters_are_judged_by_the_plain_sum() -> None:
    assert headline(EN, "letters") == "acc"
    assert EN.score(SAMPLE, "letters", Answer(logprobs=(-3.0, -1.0, -2.0, -4.0))) == Score(
        value=1.0, verdict="correct", answer="B", metrics={"acc": 1.0}
    )


@pytest.mark.parametrize("logprobs", [(), (-1.0, -2.0), (-1.0, math.nan, -2.0, -3.0)])
def test_missing_or_undefined_likelihoods_are_an_error_and_no_zero(logprobs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="log-likelihoods for 4 options"):
        EN.score(SAMPLE, "likelihood", Answer(logprobs=logprobs))


CASES = [
    (
        Answer(text="<think>A?</think>\nAnswer: B"),
        Score(value=1.0, verdict="correct", answer="B", metrics={"acc": 1.0}),
    ),
    (Answer(text="Answer: C"), Score(value=0.0, verdict="wrong", answer="C", metrics={"acc": 0.0})),
    (Answer(text="I do not know."), Score(value=0.0, verdict="no_answer", metrics={"acc": 0.0})),
    (
        Answer(text="<think>Surely the answer is B", finish="length"),
        Score(value=0.0, verdict="truncated", metrics={"acc": 0.0}, flags=("think_unclosed", "empty")),
    ),
    (
        Answer(text="<think>Surely the answer is B"),
        Score(value=0.0, verdict="no_answer", metrics={"acc": 0.0}, flags=("think_unclosed", "empty")),
    ),
    (
        Answer(text="<think>\n</think>Answer: B"),
        Score(value=1.0, verdict="correct", answer="B", metrics={"acc": 1.0}, flags=("think_empty",)),
    ),
    (
        Answer(text="The pancreas has islets. Now let us", finish="length"),
        Score(value=0.0, verdict="truncated", metrics={"acc": 0.0}),
    ),
    (
        Answer(text="Answer: B\n\nThe pancreas has", finish="length"),
        Score(value=1.0, verdict="correct", answer="B", metrics={"acc": 1.0}),
    ),
    (Answer(finish="error", error="connection lost"), Score(value=None, verdict="error", detail="connection lost")),
    (
        Answer(text="I'm sorry, but I can't help with that."),
        Score(value=0.0, verdict="no_answer", metrics={"acc": 0.0}, flags=("refusal",)),
    ),
    (
        Answer(text="胰岛素由胰腺的β细胞分泌，因此答案是 B。"),
        Score(value=1.0, verdict="correct", answer="B", metrics={"acc": 1.0}, flags=("wrong_language",)),
    ),
]


@pytest.mark.parametrize(("answer", "expected"), CASES, ids=range(len(CASES)))
def test_a_written_answer_ends_as_one_of_five(answer: Answer, expected: Score) -> None:
    assert EN.score(SAMPLE, "generate", answer) == expected


def test_several_right_options_count_only_together_and_the_part_stands_beside() -> None:
    assert EN.score(SEVERAL, "generate", Answer(text="Answer: A, C")) == Score(
        value=1.0, verdict="correct", answer="AC", metrics={"acc": 1.0, "partial": 1.0}
    )
    assert EN.score(SEVERAL, "generate", Answer(text="Answer: A")) == Score(
        value=0.0, verdict="wrong", answer="A", metrics={"acc": 0.0, "partial": 0.5}
    )


def test_rotated_options_are_judged_as_they_were_shown() -> None:
    rotated = arrange(SAMPLE, 1)
    assert (rotated.options, rotated.target) == (("Pancreas", "Spleen", "Gut", "Liver"), "0")
    assert EN.score(rotated, "generate", Answer(text="Answer: A")).verdict == "correct"
