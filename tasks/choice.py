"""Multiple choice, for every task that has it: three ways to ask, one way to judge.

- `likelihood`: the log-likelihood of each answer text after the question. `acc` takes the largest sum; `acc_norm` the
  largest sum for each character of the option, as lm-evaluation-harness 0.4 does (its `multiple_choice` output type).
  Long and short options meet fairly only in the second, which is why it is the headline.
- `letters`: the log-likelihood of "A", "B" ... after a lettered question. Small models prefer a letter whatever it
  stands for (arXiv 2309.03882).
- `generate`: the model writes, thinks if it likes, and ends with "Answer: X"; the only fair way for reasoning models.

A public set is a loader that makes `Sample`s, and a `Task` whose `prompt` is `partial(choice.prompt, "en")` and whose
`score` is `partial(choice.score, "en")`. Options are given in order, the target is the index of the right one ("0,2"
where several are; then `extra["multiple"]` is true and only `generate` applies).
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from tasks import answers
from tasks.base import Answer, Generate, Language, Message, Prompt, Rank, Sample, Score, Scoring, Verdict

METRICS: dict[Scoring, str] = {"likelihood": "acc_norm", "letters": "acc", "generate": "acc"}
"""Name of the headline value by scoring."""

MAX_TOKENS = 1024
"""Room for a short derivation; reasoning families widen it through their recipe."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Wording(Struct, frozen=True, kw_only=True):
    """How a language is asked. `gap` stands between the cue and an answer."""

    question: str
    cue: str
    gap: str
    one: str
    several: str


WORDINGS: dict[Language, Wording] = {
    "en": Wording(
        question="Question: ",
        cue="Answer:",
        gap=" ",
        one='Think it through if you need to. End with one line "Answer: X", where X is the letter of the right option.',
        several='Think it through if you need to. More than one option can be right. End with one line "Answer: X, Y", '
        "with the letters of all right options.",
    ),
    "zh": Wording(
        question="问题：",
        cue="答案：",
        gap="",
        one="可以先分析。最后单独一行写“答案：X”，X为正确选项的字母。",
        several="可以先分析。正确选项可能不止一个。最后单独一行写“答案：XY”，写出全部正确选项的字母。",
    ),
}


def complaint(question: str, options: Sequence[str], right: Sequence[int], count: int | None = None) -> str:
    """What is wrong with a question, or "". `count`: how many options there must be, where that is fixed."""
    if not question.strip():
        return "the question is empty"
    if len(options) < 2 or (count is not None and len(options) != count):
        return f"{len(options)} options, not {count or 'at least 2'}"
    if any(not option.strip() for option in options):
        return "an option is empty"
    if len({option.strip() for option in options}) != len(options):
        return "two options are the same"
    if not right:
        return "no right answer is given"
    if any(not 0 <= index < len(options) for index in right) or len(set(right)) != len(right):
        return f"the answer {', '.join(map(str, right))} is not among the {len(options)} options (counted from 0)"
    return ""


def prompt(language: Language, sample: Sample, scoring: Scoring) -> Prompt:
    """What the model is asked."""
    words = WORDINGS[language]
    question = sample.input.strip()
    letters = LETTERS[: len(sample.options)]
    lettered = "\n".join([question, *(f"{x}. {option}" for x, option in zip(letters, sample.options, strict=True))])
    match scoring:
        case "likelihood":
            return Rank(
                context=f"{words.question}{question}\n{words.cue}",
                continuations=tuple(words.gap + option for option in sample.options),
            )
        case "letters":
            return Rank(
                context=f"{lettered}\n{words.cue}", continuations=tuple(words.gap + letter for letter in letters)
            )
        case "generate":
            wish = words.several if sample.extra.get("multiple") else words.one
            return Generate(messages=(Message("user", f"{lettered}\n\n{wish}"),), max_tokens=MAX_TOKENS)


def score(language: Language, sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    """Judge an answer. `Score.answer` is the letter the model chose, as the options were shown."""
    if answer.finish == "error":
        return Score(value=None, verdict="error", detail=answer.error or "the request failed")
    match scoring:
        case "likelihood":
            return _ranked(sample, answer, METRICS[scoring])
        case "letters":
            return _ranked(sample, answer, METRICS[scoring])
        case "generate":
            return _written(language, sample, answer)


def _ranked(sample: Sample, answer: Answer, metric: str) -> Score:
    """Ties go to the first option. Raises `ValueError` when the engine gave no usable number for each option."""
    if len(answer.logprobs) != len(sample.options) or any(math.isnan(value) for value in answer.logprobs):
        raise ValueError(
            f"{len(answer.logprobs)} log-likelihoods for {len(sample.options)} options, or one is not a number"
        )
    right = int(sample.target)
    plain = _first_best(answer.logprobs)
    metrics = {"acc": float(plain == right)}
    chosen = plain
    if metric == "acc_norm":
        chosen = _first_best(
            [value / len(option) for value, option in zip(answer.logprobs, sample.options, strict=True)]
        )
        metrics["acc_norm"] = float(chosen == right)
    return Score(
        value=metrics[metric],
        verdict="correct" if chosen == right else "wrong",
        answer=LETTERS[chosen],
        metrics=metrics,
    )


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _written(language: Language, sample: Sample, answer: Answer) -> Score:
    reply = answers.read_reply(answer, language)
    found = answers.find_choice(
        reply.final,
        sample.options,
        multiple=bool(sample.extra.get("multiple")),
        stated_only=answer.finish == "length",
    )
    right = {LETTERS[int(index)] for index in sample.target.split(",")}
    chosen = set(found or "")
    verdict: Verdict = "correct" if chosen == right else "wrong" if chosen else "no_answer"
    if not chosen and answer.finish == "length":
        verdict = "truncated"
    metrics = {"acc": float(chosen == right)}
    if sample.extra.get("multiple"):
        metrics["partial"] = len(chosen & right) / len(chosen | right)
    return Score(value=metrics["acc"], verdict=verdict, answer=found, metrics=metrics, flags=reply.flags)
