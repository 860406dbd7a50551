"""Summaries: references are perfect, damaged ones are caught by the measure that names the damage."""

from typing import NamedTuple

import pytest

from tasks import TASKS, Answer, Generate, Language, Sample, Score, facts

LANGUAGES: tuple[Language, ...] = ("en", "zh")


def sample(language: Language, number: str) -> Sample:
    return next(s for s in TASKS[f"note_summary_{language}"].load(None) if s.id == f"note-{language}-{number}")


def judged(one: Sample, language: Language, text: str) -> Score:
    return TASKS[f"note_summary_{language}"].score(one, "generate", Answer(text=text))


EN, ZH = sample("en", "05"), sample("zh", "03")


def swapped(one: Sample, *pairs: tuple[str, str]) -> str:
    """The reference with wordings replaced; each must be there."""
    text = one.target
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("language", LANGUAGES)
def test_reference_summaries_are_perfect(language: Language) -> None:
    task = TASKS[f"note_summary_{language}"]
    for one in task.load(None):
        score = task.score(one, "generate", Answer(text=one.target))
        assert (one.id, score.value, score.verdict, score.flags, score.detail) == (one.id, 1.0, "correct", (), "")
        assert score.self_test == 1.0
        expected = {
            "key_fact_recall": 1.0,
            "contradicted_facts": 0.0,
            "contradiction_rate": 0.0,
            "critical_errors": 0.0,
            "unsupported_numbers": 0.0,
            "unsupported_drugs": 0.0,
            "rouge1": 1.0,
            "rouge2": 1.0,
            "rouge_l": 1.0,
            "length_ratio_reference": 1.0,
        }
        assert {name: score.metrics[name] for name in expected} == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_note_copied_whole_is_caught_and_worth_nothing(language: Language) -> None:
    task = TASKS[f"note_summary_{language}"]
    for one in task.load(None):
        score = task.score(one, "generate", Answer(text=one.input))
        assert (one.id, score.value, score.verdict, "copied_note" in score.flags) == (one.id, 0.0, "wrong", True)


class Damage(NamedTuple):
    language: Language
    text: str
    metrics: dict[str, float]
    flags: set[str]
    verdict: str


LOOP = {"en": "The patient is stable and the plan goes on. ", "zh": "患者病情平稳，继续目前治疗方案。"}
DAMAGES = {
    "en dropped fact": Damage(
        "en",
        swapped(EN, ("Orthogeriatric review within 72 hours, including change", "Plan includes change")),
        {"key_fact_recall": 8 / 9, "contradicted_facts": 0.0},
        set(),
        "correct",
    ),
    "en wrong dose": Damage(
        "en",
        swapped(EN, ("apixaban 2.5 mg BD", "apixaban 5 mg BD")),
        {"key_fact_recall": 8 / 9, "contradicted_facts": 1.0, "critical_errors": 1.0, "unsupported_numbers": 1.0},
        {"contradicted_fact", "critical_error", "unsupported_number"},
        "wrong",
    ),
    "en flipped side": Damage(
        "en",
        swapped(EN, ("the left neck of femur", "the right neck of femur")),
        {"key_fact_recall": 8 / 9, "contradicted_facts": 1.0, "critical_errors": 1.0},
        {"contradicted_fact", "critical_error"},
        "wrong",
    ),
    "en lost negation": Damage(
        "en",
        swapped(EN, ("No head injury, no loss", "Head injury, no loss")),
        {"key_fact_recall": 8 / 9, "contradicted_facts": 1.0, "critical_errors": 1.0},
        {"contradicted_fact", "critical_error"},
        "wrong",
    ),
    "en other patient's drug": Damage(
        "en",
        EN.target + " She also takes digoxin.",
        {"key_fact_recall": 1.0, "unsupported_drugs": 1.0},
        {"unsupported_drug"},
        "correct",
    ),
    "en wrong language": Damage("en", ZH.target, {"key_fact_recall": 0.0}, {"wrong_language"}, "wrong"),
    "en empty": Damage("en", "<think>hm</think>\n", {"key_fact_recall": 0.0}, {"empty"}, "no_answer"),
    "en looping": Damage("en", EN.target + " " + LOOP["en"] * 60, {"key_fact_recall": 1.0}, {"loop"}, "wrong"),
    "en refused": Damage(
        "en",
        "I'm sorry, but I cannot summarise medical records.",
        {"key_fact_recall": 0.0},
        {"refusal"},
        "no_answer",
    ),
    "en copied note": Damage("en", "Summary:\n" + EN.input, {"key_fact_recall": 0.0}, {"copied_note"}, "wrong"),
    "zh dropped fact": Damage(
        "zh",
        swapped(ZH, ("，4周后复查胸部CT", "")),
        {"key_fact_recall": 11 / 12, "contradicted_facts": 0.0},
        set(),
        "correct",
    ),
    "zh wrong dose": Damage(
        "zh",
        swapped(ZH, ("氨溴索30mg", "氨溴索60mg")),
        {"key_fact_recall": 11 / 12, "contradicted_facts": 1.0, "critical_errors": 1.0, "unsupported_numbers": 1.0},
        {"contradicted_fact", "critical_error", "unsupported_number"},
        "wrong",
    ),
    "zh flipped side": Damage(
        "zh",
        swapped(ZH, ("右肺下叶", "左肺下叶")),
        {"key_fact_recall": 11 / 12, "contradicted_facts": 1.0, "critical_errors": 1.0},
        {"contradicted_fact", "critical_error"},
        "wrong",
    ),
    "zh lost negation": Damage(
        "zh",
        swapped(ZH, ("未见胸腔积液", "可见胸腔积液")),
        {"key_fact_recall": 11 / 12, "contradicted_facts": 1.0, "critical_errors": 1.0},
        {"contradicted_fact", "critical_error"},
        "wrong",
    ),
    "zh other patient's drug": Damage(
        "zh",
        ZH.target + "长期口服地高辛。",
        {"key_fact_recall": 1.0, "unsupported_drugs": 1.0},
        {"unsupported_drug"},
        "correct",
    ),
    "zh wrong language": Damage("zh", EN.target, {"key_fact_recall": 0.0}, {"wrong_language"}, "wrong"),
    "zh empty": Damage("zh", "", {"key_fact_recall": 0.0}, {"empty"}, "no_answer"),
    "zh looping": Damage("zh", ZH.target + LOOP["zh"] * 60, {"key_fact_recall": 1.0}, {"loop"}, "wrong"),
    "zh refused": Damage("zh", "抱歉，我无法总结病历。", {"key_fact_recall": 0.0}, {"refusal"}, "no_answer"),
    "zh copied note": Damage("zh", ZH.input, {"key_fact_recall": 0.0}, {"copied_note"}, "wrong"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_summary_is_caught_by_the_measure_that_names_it(name: str) -> None:
    damage = DAMAGES[name]
    score = judged(EN if damage.language == "en" else ZH, damage.language, damage.text)
    assert {measure: score.metrics[measure] for measure in damage.metrics} == damage.metrics
    assert damage.flags <= set(score.flags)
    assert score.verdict == damage.verdict
    if name.split(" ", 1)[1] in {"dropped fact", "wrong dose", "flipped side", "lost negation", "other patient's drug"}:
        assert set(score.flags) == damage.flags


def test_a_wrong_allergy_is_a_critical_error_in_both_languages() -> None:
    english = judged(EN, "en", swapped(EN, ("Allergic to trimethoprim (rash).", "No known drug allergies.")))
    chinese = judged(ZH, "zh", swapped(ZH, ("既往青霉素过敏性休克史", "既往否认药物过敏史")))
    assert (english.metrics["critical_errors"], english.detail) == (1.0, "contradicted: Trimethoprim allergy (rash)")
    assert (chinese.metrics["critical_errors"], chinese.detail) == (1.0, "contradicted: 青霉素过敏性休克")


@pytest.mark.parametrize("told", ["Her father had febrile convulsions.", "Family history of febrile seizures."])
def test_what_a_relative_had_is_not_the_patients_diagnosis(told: str) -> None:
    child = sample("en", "20")
    own = ("with a first simple febrile convulsion: generalised", f"with a seizure. {told} It was generalised")
    found = facts.judge(child.extra["facts"], swapped(child, own))
    assert [id for id, finding in found.items() if finding != "recalled"] == ["dx"]


def test_a_summary_that_was_cut_off_is_judged_by_what_stands_there() -> None:
    task = TASKS["note_summary_en"]
    whole = task.score(EN, "generate", Answer(text=EN.target, finish="length"))
    half = task.score(EN, "generate", Answer(text=EN.target[: len(EN.target) // 2], finish="length"))
    thinking = task.score(EN, "generate", Answer(text="<think>Let me", finish="length"))
    assert (whole.verdict, whole.flags) == ("correct", ("cut_off",))
    assert (half.verdict, half.flags) == ("truncated", ("cut_off",))
    assert (thinking.verdict, thinking.value, thinking.flags) == ("truncated", 0.0, ("think_unclosed", "empty"))


def test_a_failed_request_is_an_error_and_no_zero() -> None:
    score = TASKS["note_summary_en"].score(EN, "generate", Answer(finish="error", error="connection lost"))
    assert score == Score(value=None, verdict="error", detail="connection lost")


def test_the_prompt_holds_the_note_and_asks_in_its_language() -> None:
    for one, language, room in ((EN, "en", 320), (ZH, "zh", 480)):
        prompt = TASKS[f"note_summary_{language}"].prompt(one, "generate")
        assert isinstance(prompt, Generate)
        assert (len(prompt.messages), prompt.messages[0].role, prompt.max_tokens) == (1, "user", room)
        assert one.input.strip() in prompt.messages[0].text
        assert one.target not in prompt.messages[0].text
