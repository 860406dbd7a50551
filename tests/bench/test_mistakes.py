"""What a suite's author is told: the place in the suite, the word that is wrong, what was probably meant."""

from typing import Any

import pytest

from bench.config import ConfigError, load_suite, suite_from

DEPLOYMENT = {"name": "a", "backend": "scripted"}


def complaint(**changed: Any) -> str:
    suite = {"name": "t", "tasks": ["clinical_qa_en"], "deployments": [DEPLOYMENT], **changed}
    with pytest.raises(ConfigError) as raised:
        suite_from({k: v for k, v in suite.items() if v is not None}, "s.toml")
    return str(raised.value).removeprefix("s.toml: ")


def of_deployment(**changed: Any) -> str:
    return complaint(deployments=[{**DEPLOYMENT, **changed}])


def test_an_unknown_key_is_named_with_its_table_and_what_was_meant() -> None:
    assert complaint(repeat=2) == "unknown key `repeat`; did you mean `repeats`?"
    assert (
        complaint(load=[{"concurency": 1}]) == "`load`, number 1: unknown key `concurency`; did you mean `concurrency`?"
    )
    assert of_deployment(sampling={"temprature": 1}) == (
        "deployment `a`, `sampling`: unknown key `temprature`; did you mean `temperature`?"
    )
    assert of_deployment(settings={"replly": "x"}) == (
        "deployment `a`, settings: unknown key `replly`; did you mean `reply`?"
    )
    assert complaint(tasks={"speed": {}, "medqa": {"limmit": 3}}) == (
        "task `medqa`: unknown key `limmit`; did you mean `limit`?"
    )


def test_a_key_like_no_other_is_answered_with_all_there_are() -> None:
    assert of_deployment(sampling={"colour": 1}) == (
        "deployment `a`, `sampling`: unknown key `colour`; known: temperature, think_budget, top_p"
    )


def test_a_missing_key_is_named() -> None:
    assert complaint(name=None) == "`name` is missing; add it"
    assert complaint(deployments=[{"name": "a"}]) == "deployment `a`: `backend` is missing; add it"
    assert complaint(deployments=[{"backend": "scripted"}]) == "deployment number 1: `name` is missing; add it"


def test_a_word_that_is_none_of_the_choices_is_answered_with_the_nearest() -> None:
    assert (
        of_deployment(backend="llamacpp")
        == "deployment `a`, `backend`: `llamacpp` is not known; did you mean `llama_cpp`?"
    )
    assert complaint(tasks={"medqa": {"scoring": "xyz"}}) == (
        "task `medqa`, `scoring`: `xyz` is not known; known: generate, letters, likelihood"
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"limit": "four"}, '`limit`: a whole number is expected, and it is the text "four"'),
        ({"limit": 0}, "`limit`: a whole number >= 1 is expected, and it is 0"),
        ({"idle_s": True}, "`idle_s`: a number is expected, and it is true"),
        ({"store_text": "no"}, '`store_text`: true or false is expected, and it is the text "no"'),
        ({"load": {"concurrency": 1}}, "`load`: a list is expected, and it is a table"),
        ({"nightly": [1]}, "`nightly`: a table is expected, and it is a list"),
        ({"tasks": "medqa"}, '`tasks`: a table or a list is expected, and it is the text "medqa"'),
        ({"redact": ["a", 1]}, "`redact`, number 2: text in quotes is expected, and it is 1"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_with_what_is_expected(changed: dict[str, Any], said: str) -> None:
    assert complaint(**changed) == said


def test_the_mark_that_windows_editors_put_at_the_beginning_is_no_mistake(tmp_path: Any) -> None:
    suite = 'name = "t"\ntasks = ["speed"]\n[[deployments]]\nname = "a"\nbackend = "scripted"\n'
    path = tmp_path / "s.toml"
    path.write_text(suite, encoding="utf-8-sig")
    assert load_suite(path).name == "t"
    path.write_text(suite, encoding="utf-16")
    with pytest.raises(ConfigError, match=r"s\.toml: not UTF-8 at byte 0; save the file as UTF-8 text"):
        load_suite(path)
